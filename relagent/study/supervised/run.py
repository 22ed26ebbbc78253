"""Do one supervised task: train, or go on where it was, score at other delays, write one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relagent.runs.config import from_json, names_of
from relagent.runs.directory import RunDamagedError, RunDirectory
from relagent.study.supervised.grid import sequences
from relagent.study.supervised.result import SupervisedResult, split_row, thin_curves
from relagent.study.supervised.task import SupervisedTask, epoch_length, task_words
from relagent.study.work import (
    read_part,
    train_from_wherever,
    training_provenance,
    write_part,
)
from relagent.tasks.config import DatasetConfig
from relagent.tasks.defaults import TASKS
from relagent.tasks.run import LoadedModel, load_model, read_outcome
from relagent.tasks.train import DivergenceError, resume, train
from relagent.tasks.transfer import transfer


def run_task(task: SupervisedTask, stop: Callable[[], bool]) -> bool:
    """Do a task, or what is left of it; see :meth:`relagent.study.task.Task.do`.

    A run directory that ``python -m relagent.tasks`` made with the same settings is taken over.
    """
    if task.finished():
        return True
    task.check_run()
    if not _train(task, stop) or not _transfer(task, stop):
        return False
    _result(task).write(task.result)
    return True


def _train(task: SupervisedTask, stop: Callable[[], bool]) -> bool:
    def begin() -> bool:
        return train(task.config, task.run, stop)

    def go_on(update: int) -> bool:
        made = read_outcome(task.run)
        if made.get("updates") == update:
            ended = made["solved"] or made["diverged"]
            if task.enough(ended, made["config"]):
                return True
        names = names_of(type(task.config), "machine")  # data, for one, may have moved
        changes = {name: getattr(task.config, name) for name in names}
        changes[task.budget_name] = _budget(task, update)
        return resume(task.run, changes, stop)

    try:
        return train_from_wherever(task.run, begin, go_on)
    except DivergenceError:  # which is a result too
        return True


def _budget(task: SupervisedTask, update: int) -> int:
    """The budget, or what the run has used already, should that be more."""
    if isinstance(task.config, DatasetConfig):
        return max(task.budget, -(-update // epoch_length(task.config)))
    return max(task.budget, update)


def _transfer(task: SupervisedTask, stop: Callable[[], bool]) -> bool:
    """Score at every other delay that was not scored yet, and save what came of each.

    Weights that had diverged are not scored.
    """
    if read_outcome(task.run).get("diverged") is not None:
        return True
    loaded: LoadedModel | None = None
    for T in task.transfer_delays:
        path, made_with = task.transfer_path(T), _made_with(task, T)
        if read_part(path, made_with) is not None:
            continue
        if stop():
            return False
        loaded = loaded or load_model(task.run, task.device)
        batches, size = made_with["batches"], made_with["batch_size"]
        score = transfer(loaded, T, batches=batches, batch_size=size)
        write_part(path, made_with, score.numbers())
    return True


def _made_with(task: SupervisedTask, T: int) -> dict[str, Any]:
    batches, size = sequences(task.config.memory, T)
    return {"updates": read_outcome(task.run)["updates"], "batches": batches, "batch_size": size}


def _result(task: SupervisedTask) -> SupervisedResult:
    made = read_outcome(task.run)
    run = RunDirectory.open(task.run)
    characters = "bpc" in task.figure
    rows = run.read_metrics()
    evaluations = [split_row(row, "validation") for row in rows if "validation/loss" in row]
    if not evaluations and made["diverged"] is None:
        raise RunDamagedError(task.run / "metrics.jsonl", "it has no evaluation")

    def merit(score: Mapping[str, float]) -> float:
        return -score["loss"] if characters else score["accuracy"]

    training, validation = thin_curves(rows, characters)
    transferred = [
        read_part(task.transfer_path(T), _made_with(task, T)) for T in task.transfer_delays
    ]
    config = from_json(TASKS[task.config.task], made["config"])
    return SupervisedResult(
        study=config.task,
        memory=config.memory,
        seed=config.seed,
        # Where data are is nobody's business.
        config={name: value for name, value in made["config"].items() if name != "data"},
        command=tuple(task_words(config)),
        updates=made["updates"],
        total=made["total"],
        solved=made["solved"],
        diverged=made["diverged"],
        validation=evaluations[-1] if evaluations else None,
        best=max(evaluations, key=merit, default=None),  # the first of equals
        test=None if made["test"] is None else split_row(made["test"], "test"),
        parameters=made["parameters"],
        seconds=round(made["seconds"], 1),
        peak_memory=made["peak_memory"],
        transfer=tuple(score for score in transferred if score is not None),
        training=training,
        evaluations=validation,
        provenance=training_provenance(task.run),
        checkpoint=str(run.load_checkpoint().path.relative_to(task.root)),
    )
