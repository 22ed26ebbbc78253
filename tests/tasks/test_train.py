"""The training loop: exact resume, ends, learning rates, divergence."""

import gzip
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from relagent.runs.checkpoint import load_file
from relagent.runs.config import to_json
from relagent.runs.directory import RunDamagedError, RunDirectory
from relagent.runs.packing import pack, unpack
from relagent.runs.resuming import ResumeError
from relagent.tasks.base import Score
from relagent.tasks.config import TaskConfig
from relagent.tasks.data import DataNotFoundError
from relagent.tasks.defaults import default_config
from relagent.tasks.evaluate import evaluate
from relagent.tasks.run import OtherDataError, load_model
from relagent.tasks.train import DivergenceError, Training, resume, train
from relagent.tasks.transfer import TransferError, add_score, transfer

from .standins import write_mnist, write_ptb

SMALL = {"hidden_size": 8, "threads": 1, "log_every": 4, "device": "cpu"}


def small(task: str, memory: str, folder: Path, **settings: Any) -> TaskConfig:
    """A run of 12 updates or a bit more, with two evaluations or more."""
    match task:
        case "mnist":
            settings = {"data": str(write_mnist(folder / "data")), "batch_size": 10, **settings}
            settings = {"epochs": 3, "group": 4, **settings}
        case "ptb":
            settings = {"data": str(write_ptb(folder / "data")), "batch_size": 6, **settings}
            settings = {"epochs": 2, "window": 15, "embedding_size": 5, **settings}
        case _:
            settings = {"T": 6, "updates": 12, "evaluate_every": 5, **settings}
            settings = {"evaluation_batches": 2, **settings}
    return default_config(task, memory, **{**SMALL, **settings})


def stop_after(polls: int) -> Callable[[], bool]:
    """Ask for a stop at this poll and all later ones."""
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count > polls

    return stop


def polled(polls: int, then: Callable[[], bool]) -> Callable[[], bool]:
    """Go on at so many polls, and do something at the next."""
    count = itertools.count()
    return lambda: next(count) >= polls and then()


def last_checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = RunDirectory.open(path).load_checkpoint()
    state = unpack(checkpoint.tensors, checkpoint.data)
    assert isinstance(state, dict)
    return state


def result(path: Path) -> dict[str, Any]:
    data = json.loads((path / "result.json").read_bytes())
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize(
    ("task", "memory"),
    [
        ("copy", "rel-rnn"),
        ("copy", "exp-rnn"),
        ("denoise", "goru"),
        ("mnist", "rel"),
        ("ptb", "mem"),
        ("ptb", "rel-rnn"),
        ("ptb", "sab"),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(task: str, memory: str, tmp_path: Path) -> None:
    config = small(task, memory, tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(config, whole)
    finished = train(config, cut, stop_after(3))
    parts = 1
    while not finished:  # some stops come in the middle of an evaluation
        torch.rand(parts)  # whatever else the process did
        finished = resume(cut, {}, stop_after(4 + 3 * parts))
        parts += 1
    assert parts >= 3
    for name in ("metrics.jsonl", "checkpoints"):
        left, right = whole / name, cut / name
        if left.is_dir():
            left, right = max(left.iterdir()), max(right.iterdir())
            assert left.name == right.name
        assert left.read_bytes() == right.read_bytes()
    untimed = ("seconds", "peak_memory")
    one, other = result(whole), result(cut)
    assert {k: v for k, v in one.items() if k not in untimed} == {
        k: v for k, v in other.items() if k not in untimed
    }
    assert other["seconds"] > 0


def test_more_updates_can_be_asked_for_but_no_other_run(tmp_path: Path) -> None:
    config = small("copy", "lstm", tmp_path)
    train(config, tmp_path / "run")
    train(small("copy", "lstm", tmp_path, updates=20), tmp_path / "long")
    assert resume(tmp_path / "run", {"updates": 20})
    one, other = (last_checkpoint(tmp_path / name)["model"] for name in ("run", "long"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "run" / "result.json").exists()
    assert not resume(tmp_path / "run", {"updates": 30}, stop_after(3))
    assert not (tmp_path / "run" / "result.json").exists()  # what it said is true no more
    with pytest.raises(ResumeError, match="T of this run is 6 and cannot become 7"):
        resume(tmp_path / "run", {"T": 7})
    with pytest.raises(ResumeError, match="10 of --updates 10: give a larger --updates"):
        resume(tmp_path / "run", {"updates": 10})


def test_settings_of_another_run_are_told(tmp_path: Path) -> None:
    config = small("copy", "rel", tmp_path)
    train(config, tmp_path / "run")
    other = replace(config, nu=7)
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_json(other)))
    said = r"says nu 7, but checkpoint-\S+ was made with 10"
    for use in (load_model, resume):
        with pytest.raises(RunDamagedError, match=said):
            use(tmp_path / "run")


@pytest.mark.parametrize("task", ["mnist", "ptb"])
def test_other_data_are_not_gone_on_with(task: str, tmp_path: Path) -> None:
    train(small(task, "lstm", tmp_path, epochs=1), tmp_path / "run")
    here, there = tmp_path / "data", tmp_path / "elsewhere"
    shutil.copytree(here, there)
    assert resume(tmp_path / "run", {"data": str(there), "epochs": 2})  # the same, moved
    here.rename(tmp_path / "gone")
    with pytest.raises(DataNotFoundError):
        load_model(tmp_path / "run")
    assert load_model(tmp_path / "run", data=str(there)).updates > 0
    for path in there.rglob("*train*"):
        if path.suffix == ".txt":
            path.write_text(path.read_text()[::-1])
        elif "labels" in path.name:
            content = gzip.decompress(path.read_bytes())
            path.write_bytes(gzip.compress(content[:8] + content[:7:-1]))
    with pytest.raises(OtherDataError, match="not those that this run was trained on"):
        resume(tmp_path / "run", {"data": str(there), "epochs": 3})


def test_an_evaluation_that_a_stop_left_is_logged_once(tmp_path: Path) -> None:
    """Also where the process that made it up was killed before it saved again."""
    config, path = small("copy", "lstm", tmp_path), tmp_path / "run"
    training = Training(config)
    with RunDirectory.create(path, config, {}) as run:
        for _ in range(5):
            training.step(run)
        run.save_checkpoint(5, *pack(training.state()))  # the evaluation at 5 is due

    def killed() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(path, stop=polled(2, killed))
    assert resume(path)
    rows = RunDirectory.open(path).read_metrics()
    steps = [row["step"] for row in rows if "validation/loss" in row]
    assert steps == [5, 10, 12]


@pytest.mark.parametrize(
    ("task", "memory"), [("copy", "exp-rnn"), ("mnist", "rel"), ("ptb", "mem")]
)
def test_evaluation_changes_nothing(task: str, memory: str, tmp_path: Path) -> None:
    rare = small(task, memory, tmp_path)
    training, other = Training(rare), Training(rare)
    with RunDirectory.create(tmp_path / "run", rare, {}) as run:
        for _ in range(4):
            training.step(run)
            other.step(run)
            before = torch.get_rng_state()
            assert evaluate(training.model, training.task, "validation", rare) is not None
            assert torch.equal(torch.get_rng_state(), before)
    one, two = training.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_state_of_a_text_goes_over_within_an_epoch(tmp_path: Path) -> None:
    config = small("ptb", "rel", tmp_path)
    training = Training(config)
    with RunDirectory.create(tmp_path / "run", config, {}) as run:
        training.step(run)
        model, batch = training.model, training.task.training_batch(0, 6, 0)
        assert training.carried is not None
        # Once more with the weights as they were: the state that was carried is that of window 1.
        fresh = Training(config)
        _, after = fresh.model(batch.x)
        expected = model.memory.forget(after)
        assert all(map(torch.equal, training.carried, expected))
        assert not any(part.requires_grad for part in training.carried)
        while training.update % training.interval:
            training.step(run)
        assert not training.task.training_batch(training.update, 6, 0).continues


@pytest.mark.parametrize(("memory", "learning_rate"), [("orth-rnn", 1e-3), ("rel-rnn", 2e-3)])
def test_copy_is_learned_and_training_ends_when_it_is(
    memory: str, learning_rate: float, tmp_path: Path
) -> None:
    config = default_config(
        "copy", memory, T=5, learning_rate=learning_rate, evaluate_every=50, updates=2000, threads=1
    )
    assert train(config, tmp_path / "run")
    outcome = result(tmp_path / "run")
    assert outcome["solved"] == outcome["updates"] < 2000
    assert outcome["validation"]["validation/accuracy"] == 1
    assert outcome["validation"]["step"] == outcome["solved"]
    score = transfer(load_model(tmp_path / "run"), 5, batches=5, batch_size=20)
    assert score.score.accuracy > 0.99
    assert score.score.scored == 5 * 20 * 10


def test_the_best_weights_are_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small("mnist", "lstm", tmp_path)
    training = Training(config)
    tested: list[dict[str, torch.Tensor]] = []

    def scripted(model: Any, task: Any, split: str, *_: Any) -> Score:
        if split == "test":
            tested.append({name: value.clone() for name, value in model.state_dict().items()})
            return Score(0.5, 9, 10)
        return Score(1.0, [2, 7, 3][training.update // 5 - 1], 10)

    monkeypatch.setattr("relagent.tasks.train.evaluate", scripted)
    with RunDirectory.create(tmp_path / "run", config, {}) as run:
        assert training.run(run, lambda: False)
    outcome = result(tmp_path / "run")
    assert outcome["best_update"] == 10
    assert outcome["test"] == {"test/loss": 0.5, "test/accuracy": 0.9}
    best = last_checkpoint(tmp_path / "run")["best"]["model"]
    assert all(torch.equal(tested[0][name], best[name]) for name in best)
    assert any(not torch.equal(training.model.state_dict()[name], best[name]) for name in best)


def test_step_sizes_are_halved_when_the_validation_stalls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small("ptb", "exp-rnn", tmp_path)
    training = Training(config)
    rates = []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0):  # better, better, equal, worse, better
        training.evaluation(Score(loss, 1, 2))
        rates.append(tuple(group["lr"] for group in training.optimizer.param_groups))
    assert rates == [
        pytest.approx((3e-3 * scale, 3e-4 * scale)) for scale in (1, 1, 0.5, 0.25, 0.25)
    ]
    mnist = Training(small("mnist", "lstm", tmp_path))
    for correct in (2, 1):
        mnist.evaluation(Score(1.0, correct, 2))
    assert mnist.optimizer.param_groups[0]["lr"] == 2e-4


def test_only_a_regular_evaluation_ends_training(tmp_path: Path) -> None:
    """Where a budget ends is no reason for a larger one to stop there too."""
    training = Training(small("copy", "lstm", tmp_path))
    for update, solved in ((12, None), (15, 15)):
        training.update = update
        training.evaluation(Score(0.0, 20, 20))
        assert training.solved == solved


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_divergence_is_caught_before_the_step(where: str, tmp_path: Path) -> None:
    config = small("ptb", "lstm", tmp_path)
    training = Training(config)
    with RunDirectory.create(tmp_path / "run", config, {}) as run:
        training.step(run)
        head = training.model.head
        if where == "loss":
            head.bias.data[0] = torch.inf
        else:
            head.bias.register_hook(lambda gradient: gradient * torch.nan)
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        with pytest.raises(
            DivergenceError, match=r"diverged at update 2: .*learning-rate"
        ) as caught:
            training.step(run)
    assert "\n" not in str(caught.value)
    after = training.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    saved = unpack(*load_file(tmp_path / "run" / "diverged-2.safetensors"))
    assert torch.equal(saved["batch"]["x"], training.task.training_batch(1, 6, 0).x)
    assert all(torch.equal(saved["model"][name], before[name]) for name in before)
    assert training.carried is not None
    assert all(map(torch.equal, saved["state"], training.carried))


def test_exp_rnn_stays_a_rotation(tmp_path: Path) -> None:
    config = small("copy", "exp-rnn", tmp_path, learning_rate=0.01, orthogonal_learning_rate=0.01)
    train(config, tmp_path / "run")
    rows = RunDirectory.open(tmp_path / "run").read_metrics()
    errors = [row["memory/orthogonality"] for row in rows if "memory/orthogonality" in row]
    assert len(errors) == 3
    assert max(errors) <= 1e-5


def test_rows_average_the_updates_since_the_last(tmp_path: Path) -> None:
    losses = []
    for log_every in (1, 4):
        path = tmp_path / str(log_every)
        train(small("copy", "lstm", tmp_path, log_every=log_every), path)
        rows = RunDirectory.open(path).read_metrics()
        losses.append([row["train/loss"] for row in rows if "train/loss" in row])
    assert len(losses[0]) == 12
    means = [sum(losses[0][i : i + 4]) / 4 for i in (0, 4, 8)]
    assert losses[1] == pytest.approx(means)
    bpc = small("ptb", "lstm", tmp_path, epochs=1)
    train(bpc, tmp_path / "ptb")
    row = RunDirectory.open(tmp_path / "ptb").read_metrics()[-1]
    assert row["validation/bpc"] == pytest.approx(row["validation/loss"] / 0.6931471805599453)


def test_transfer_needs_a_delay(tmp_path: Path) -> None:
    train(small("mnist", "lstm", tmp_path, epochs=1), tmp_path / "run")
    with pytest.raises(TransferError, match="a run of mnist, which has no delay"):
        transfer(load_model(tmp_path / "run"), 5)


def test_a_loss_that_overflows_at_another_delay_is_left_out(tmp_path: Path) -> None:
    train(small("copy", "lstm", tmp_path), tmp_path / "run")
    loaded = load_model(tmp_path / "run")
    with torch.no_grad():
        next(iter(loaded.model.parameters())).fill_(torch.nan)
    score = transfer(loaded, 5, batches=1, batch_size=2)
    assert set(score.numbers()) == {"T", "accuracy", "sequences"}
    add_score(tmp_path / "scores.json", loaded, score)
    assert json.loads((tmp_path / "scores.json").read_text())["scores"] == [score.numbers()]
