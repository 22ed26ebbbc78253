"""One task, stopped, killed, taken over, gone on with."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from relagent.runs.directory import RunDirectory, RunInUseError
from relagent.runs.machine import machine
from relagent.study.cluster import do_remotely
from relagent.study.report import write_report
from relagent.study.result_file import ResultError
from relagent.study.supervised import run
from relagent.study.supervised.result import SupervisedResult, read_result
from relagent.study.supervised.tables import main_table
from relagent.study.supervised.task import SupervisedTask
from relagent.study.supervised.view import View
from relagent.study.task import TaskConflictError, task_to_json
from relagent.tasks import train as train_module
from relagent.tasks.base import Score
from relagent.tasks.evaluate import evaluate
from relagent.tasks.train import resume, train

from .conftest import DELAYS, MakeTask

pytestmark = pytest.mark.usefixtures("short_transfer")


def never() -> bool:
    return False


def after(polls: int) -> Callable[[], bool]:
    """Ask for a stop at the poll of that number, and from then on."""
    count = itertools.count()
    return lambda: next(count) >= polls


def outcome(task: SupervisedTask) -> dict[str, Any]:
    """All of a result that does not speak of time and place."""
    data: dict[str, Any] = json.loads(task.result.read_text())
    for name in ("seconds", "provenance", "peak_memory"):
        del data[name]
    return data


def last(result: SupervisedResult) -> Mapping[str, float]:
    """The last evaluation of a run that has one."""
    assert result.validation is not None
    return result.validation


def test_stopped_everywhere_it_ends_as_if_nothing_happened(make_task: MakeTask) -> None:
    whole, task = make_task(folder="whole"), make_task()
    assert whole.do(never)
    tries = 0
    while not task.do(after(4)):  # some updates, or a score, at a time
        tries += 1
        assert tries < 30
        assert not task.result.exists()
    assert tries >= 3
    assert outcome(task) == outcome(whole)
    assert read_result(task.result).provenance["sessions"] > 1


def test_the_result_tells_what_the_run_did(make_task: MakeTask) -> None:
    task = make_task("rel-rnn")
    assert task.do(never)
    result = read_result(task.result)
    made = json.loads((task.run / "result.json").read_text())
    assert (result.study, result.memory, result.seed) == ("copy", "rel-rnn", 0)
    assert (result.updates, result.solved, result.test) == (12, None, None)
    assert result.parameters == made["parameters"]
    assert last(result)["updates"] == 12
    assert last(result)["accuracy"] == made["validation"]["validation/accuracy"]
    assert result.best is not None
    assert result.best["accuracy"] == max(result.evaluations["accuracy"])
    assert result.training["steps"] == [4, 8, 12]
    assert result.evaluations["steps"] == [5, 10, 12]
    assert [score["T"] for score in result.transfer] == list(DELAYS)
    assert {score["sequences"] for score in result.transfer} == {2}
    assert (task.root / result.checkpoint).is_file()
    assert str(task.root) not in task.result.read_text()
    assert task.outcome() == (12, last(result)["accuracy"])


def test_finished_is_not_touched(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    assert task.do(never)
    for name in ("train", "resume", "transfer"):
        monkeypatch.setattr(run, name, lambda *_, **__: pytest.fail("it was done again"))
    times = {path: path.stat().st_mtime_ns for path in task.root.parent.rglob("*")}
    assert task.do(lambda: True)
    # A lost result file is made again without training or scoring.
    before = task.result.read_text()
    task.result.unlink()
    assert task.do(never)
    assert task.result.read_text() == before
    for path in (task.result, task.result.parent):
        del times[path]
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_run_made_by_hand_is_taken_over(make_task: MakeTask) -> None:
    whole, finished, begun = (make_task(folder=name) for name in ("whole", "finished", "begun"))
    assert whole.do(never)
    assert train(finished.config, finished.run)
    assert finished.do(never)
    assert read_result(finished.result).provenance["sessions"] == 1
    assert not train(begun.config, begun.run, after(6))
    assert begun.do(never)
    made = read_result(begun.result).provenance
    assert made["sessions"] == 2 and len(made["resumed"]) == 1
    assert made["resumed"][0]["versions"] == made["training"]["versions"]
    assert outcome(whole) == outcome(finished) == outcome(begun)


def test_a_larger_budget_goes_on(make_task: MakeTask) -> None:
    # 10 and 15 are evaluations anyway: the longer run has no trace of the shorter one.
    whole, task = make_task(folder="whole", updates=15), make_task(updates=10)
    assert whole.do(never)
    assert task.do(never)
    assert read_result(task.result).updates == 10
    more = make_task(updates=15)
    assert not more.finished()
    assert more.do(never)
    assert outcome(more) == outcome(whole)
    assert read_result(task.result).config["updates"] == 15
    # And back: more than is asked for is finished.
    assert task.finished()
    assert make_task(updates=15).finished()


def test_a_run_that_is_further_than_is_asked_for_ends_where_it_is(make_task: MakeTask) -> None:
    task = make_task(updates=8)
    longer = make_task(updates=100)
    assert not train(longer.config, longer.run, after(11))
    step = RunDirectory.open(task.run).load_checkpoint().step
    assert 8 < step < 100
    assert task.do(never)
    result = read_result(task.result)
    assert result.updates == last(result)["updates"] == step
    assert task.finished()


def test_epochs_go_on_too(make_ptb: MakeTask) -> None:
    whole, task = make_ptb("whole", epochs=3), make_ptb(epochs=1)
    assert whole.total == 15
    assert whole.do(never)
    assert task.do(never)
    assert read_result(task.result).updates == 5
    more = make_ptb(epochs=3)
    assert not more.finished()
    assert more.do(never)
    assert outcome(more) == outcome(whole)
    result = read_result(more.result)
    assert result.test is not None
    assert 0 <= result.test["accuracy"] <= 1
    assert result.test["bpc"] > 0
    assert more.outcome() == (15, last(result)["bpc"])
    assert "data" not in result.config
    # In the middle of the fourth epoch, when one is asked for: it ends with the fourth.
    longer = make_ptb("other", epochs=9)
    assert not train(longer.config, longer.run, after(23))
    assert 15 < RunDirectory.open(longer.run).load_checkpoint().step < 20
    task = make_ptb("other", epochs=1)
    assert task.do(never)
    result = read_result(task.result)
    assert (result.config["epochs"], result.updates) == (4, 20)


def test_what_is_solved_is_finished(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(updates=100)
    # With one symbol of one sequence right by chance or not, a run is solved; here all are.
    monkeypatch.setattr("relagent.tasks.base.Score.perfect", property(lambda _: True))
    assert task.do(never)
    result = read_result(task.result)
    assert result.solved == result.updates == 5
    assert make_task(updates=200).finished()
    assert task.trained(5)
    assert not task.trained(4)


def diverging(update: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the gradient of that update is no number."""
    clip = nn.utils.clip_grad_norm_
    taken = itertools.count(1)

    def norm(*arguments: Any) -> torch.Tensor:
        return clip(*arguments) * (torch.nan if next(taken) == update else 1)

    monkeypatch.setattr("relagent.tasks.train.nn.utils.clip_grad_norm_", norm)


def test_what_diverged_is_a_result(make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    diverging(8, monkeypatch)
    assert task.do(never)
    result = read_result(task.result)
    assert (result.updates, result.total, result.solved, result.diverged) == (7, 12, None, 8)
    assert last(result)["updates"] == 5
    assert result.transfer == ()  # its weights say nothing
    assert task.trained(7)
    assert make_task(updates=200).finished()
    # Made again of the run directory alone, without training.
    before = outcome(task)
    task.result.unlink()
    monkeypatch.setattr(run, "resume", None)
    assert task.do(never)
    assert outcome(task) == before


def test_the_test_score_of_what_diverged_is_that_of_its_best_epoch(
    make_ptb: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_ptb(epochs=4)
    diverging(13, monkeypatch)
    assert task.do(never)
    result = read_result(task.result)
    assert (result.updates, result.total, result.diverged) == (12, 20, 13)
    assert result.evaluations["steps"] == [5, 10]
    assert result.best is not None
    assert result.best["updates"] == 10
    assert result.test is not None
    _, rows = main_table(View([result]))
    assert rows[0][-1].endswith(" bpc, epoch 2 of 4, diverged at 13")


def test_an_evaluation_without_a_finite_loss_ends_training(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    number = itertools.count(1)

    def ruined(*arguments: Any) -> Score | None:
        score = evaluate(*arguments)
        return score and (score._replace(loss=math.inf) if next(number) >= 2 else score)

    monkeypatch.setattr(train_module, "evaluate", ruined)
    assert task.do(never)
    result = read_result(task.result)
    assert (result.updates, result.diverged) == (10, 10)
    assert last(result)["updates"] == 5
    task.result.unlink()
    assert task.do(never)
    assert read_result(task.result).diverged == 10


@pytest.mark.parametrize("make", ["make_task", "make_ptb"])
def test_diverged_before_the_first_evaluation_it_is_a_result_without_scores(
    make: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: SupervisedTask = request.getfixturevalue(make)()
    diverging(3, monkeypatch)
    assert task.do(never)
    result = read_result(task.result)
    assert (result.updates, result.diverged) == (2, 3)
    assert (result.validation, result.best, result.test) == (None, None, None)
    assert result.evaluations["steps"] == []
    assert task.outcome() == (2, None)
    assert make_report(task).count("diverged at 3, no score") == 1
    # Made again of the run directory alone, without training.
    before = outcome(task)
    task.result.unlink()
    monkeypatch.setattr(run, "resume", None)
    assert task.do(never)
    assert outcome(task) == before


def make_report(task: SupervisedTask) -> str:
    """The page on a study's results."""
    folder = task.result.parent.parent
    write_report(folder)
    return (folder / "README.md").read_text()


def test_a_result_without_scores_is_one_of_what_diverged(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    diverging(3, monkeypatch)
    assert task.do(never)
    made = json.loads(task.result.read_text())
    for wrong in ({"diverged": None}, {"best": {"updates": 1, "loss": 1.0, "accuracy": 0.5}}):
        task.result.write_text(json.dumps({**made, **wrong}))
        with pytest.raises(ResultError, match="no evaluation"):
            read_result(task.result)


def test_the_machine_is_that_of_training_not_of_who_collects(make_task: MakeTask) -> None:
    task = make_task()
    assert task.do(never)
    path = task.run / "provenance.json"
    made = json.loads(path.read_text())
    assert read_result(task.result).provenance["machine"] == made["machine"] == machine()
    elsewhere = {"processor": "A fine one", "cores": 999, "memory_gib": 8.0, "gpu": None}
    early = {"platform": "Linux 1.0 x86_64", "cpu_count": 998}  # noted no machine
    known_of_it = {"processor": "Linux 1.0 x86_64", "cores": 998}
    del made["machine"]
    for last, expected in (({"machine": elsewhere}, elsewhere), (early, known_of_it)):
        path.write_text(json.dumps({**made, "resumed": [{**made, **last}]}))
        task.result.unlink()
        assert task.do(never)
        assert read_result(task.result).provenance["machine"] == expected


def test_killed_before_the_first_checkpoint_it_starts_over(make_task: MakeTask) -> None:
    whole, task = make_task(folder="whole"), make_task()
    assert whole.do(never)
    shutil.copytree(whole.run, task.run)
    for path in (task.run / "checkpoints").iterdir():
        path.unlink()
    assert task.do(never)
    assert outcome(task) == outcome(whole)


def test_a_run_of_other_settings_or_another_process_is_left_alone(make_task: MakeTask) -> None:
    task = make_task(learning_rate=0.5)
    other = make_task()
    assert not train(other.config, other.run, after(6))
    with pytest.raises(TaskConflictError, match=r"made with learning_rate 0\.0002, now it is 0\.5"):
        task.do(never)
    with RunDirectory.open_for_resume(other.run), pytest.raises(RunInUseError):
        other.do(never)
    assert resume(other.run)


def test_scores_are_made_again_for_other_weights(make_task: MakeTask) -> None:
    task = make_task(updates=10)
    assert task.do(never)
    first = read_result(task.result).transfer
    path = task.transfer_path(DELAYS[0])
    path.write_text("cut sho")
    task.result.unlink()
    assert task.do(never)
    assert read_result(task.result).transfer == first
    more = make_task(updates=30, learning_rate=2e-4)
    assert more.do(never)
    assert read_result(more.result).transfer != first


def test_how_far_it_is(make_task: MakeTask) -> None:
    task = make_task()
    assert (task.total, task.unit, task.figure) == (12, "updates", "accuracy")
    assert task.read_figure({"step": 5, "validation/accuracy": 0.5}) == 0.5
    assert task.read_figure({"step": 4, "train/accuracy": 0.5}) is None
    assert task.scores == [task.run / "transfer" / f"T{T}.json" for T in DELAYS]
    assert task.trained(12)
    assert not task.trained(11)


def test_another_machine_sends_the_result_back(make_task: MakeTask) -> None:
    whole, task = make_task(folder="whole"), make_task()
    assert whole.do(never)
    files = do_remotely(task_to_json(task))
    assert files is not None
    assert list(files) == [f"runs/{task.name}.json"]
    assert not task.results.exists()
    task.result.parent.mkdir(parents=True)
    task.result.write_bytes(files[f"runs/{task.name}.json"])
    assert outcome(task) == outcome(whole)


def test_the_data_may_move_while_a_run_goes_on(make_ptb: MakeTask, tmp_path: Path) -> None:
    assert not make_ptb().do(after(3))
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert make_ptb(data=str(tmp_path / "elsewhere" / "ptb")).do(never)
