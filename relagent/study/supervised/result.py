"""The result of one supervised task: a small JSON file with all that the report needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from relagent.memories import MEMORIES
from relagent.runs.config import from_json
from relagent.runs.files import write_atomically
from relagent.study.curve import thin
from relagent.study.result_file import read_folder, read_result_file, require, require_curves
from relagent.tasks.config import DatasetConfig
from relagent.tasks.defaults import TASKS

FORMAT = 2


@dataclass(frozen=True)
class SupervisedResult:
    """The result of one task.

    Attributes:
        study: the task's name: copy, denoise, mnist or ptb.
        memory: its memory's name.
        seed: of the run.
        config: the run's settings, with the budget that it had in the end.
        command: the words that train it again.
        updates: really taken.
        total: updates that the budget allowed.
        solved: the update after which every evaluated step was right; None if there was none.
        diverged: the update that was not taken because its loss or gradient was no finite number,
            or after which the evaluation's loss was none, so that training ended; None if there was
            none.
        validation: of the last evaluation: ``updates``, ``loss``, ``accuracy`` and, on PTB,
            ``bpc``; None where the run diverged before the first.
        best: of the best evaluation, likewise.
        test: of the weights of the best evaluation; None where a task has no test data, or a run
            no evaluation.
        parameters: how many the model has.
        seconds: of training, evaluations included, pauses left out.
        peak_memory: ``bytes`` that were in use at most, in the last session, and ``of`` what.
        transfer: scores at other delays: ``T``, ``accuracy``, ``loss`` (unless it is no finite
            number), ``sequences``.
        training: curves of ``loss``, ``accuracy``, ``gradient_norm`` (and ``bpc``) against
            ``steps`` (updates), thinned.
        evaluations: curves of the validation, likewise, without gradients.
        provenance: versions, commit and machine of training.
        checkpoint: where the final checkpoint is, from the folder of runs.
    """

    study: str
    memory: str
    seed: int
    config: Mapping[str, Any]
    command: tuple[str, ...]
    updates: int
    total: int
    solved: int | None
    diverged: int | None
    validation: Mapping[str, float] | None
    best: Mapping[str, float] | None
    test: Mapping[str, float] | None
    parameters: int
    seconds: float
    peak_memory: Mapping[str, Any]
    transfer: tuple[Mapping[str, float], ...]
    training: Mapping[str, list[float]]
    evaluations: Mapping[str, list[float]]
    provenance: Mapping[str, Any]
    checkpoint: str

    @property
    def score(self) -> Mapping[str, float] | None:
        """What the run is judged by: of the test data where there are any, else ``validation``."""
        return self.validation if self.test is None else self.test

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all, with one line a key."""
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {"format": FORMAT, **asdict(self)}
        lines = [f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in data.items()]
        write_atomically(path, ("{\n " + ",\n ".join(lines) + "\n}\n").encode())


def read_result(path: Path) -> SupervisedResult:
    """Read one result file.

    Raises:
        ResultError: it cannot be read, or is none.
    """
    return read_result_file(path, FORMAT, _parsed)


def _parsed(data: Mapping[str, Any]) -> SupervisedResult:
    result = SupervisedResult(
        study=str(data["study"]),
        memory=str(data["memory"]),
        seed=int(data["seed"]),
        config=dict(data["config"]),
        command=tuple(map(str, data["command"])),
        updates=int(data["updates"]),
        total=int(data["total"]),
        solved=None if data["solved"] is None else int(data["solved"]),
        diverged=None if data["diverged"] is None else int(data["diverged"]),
        validation=_score(data["validation"]),
        best=_score(data["best"]),
        test=_score(data["test"]),
        parameters=int(data["parameters"]),
        seconds=float(data["seconds"]),
        peak_memory=dict(data["peak_memory"]),
        transfer=tuple(map(_numbers, data["transfer"])),
        training=_curves(data["training"]),
        evaluations=_curves(data["evaluations"]),
        provenance=dict(data["provenance"]),
        checkpoint=str(data["checkpoint"]),
    )
    if result.study not in TASKS or result.memory not in MEMORIES:
        raise ValueError(f"{result.study} with {result.memory} is not known")
    kind = TASKS[result.study]
    # Where the data lie is the one setting that a result leaves out.
    unsaid = {"data": None} if issubclass(kind, DatasetConfig) else {}
    from_json(kind, {**unsaid, **result.config})
    evaluated = [score for score in (result.validation, result.best) if score is not None]
    if len(evaluated) < 2 and (evaluated or result.diverged is None):
        raise ValueError("it has no evaluation")
    for score in evaluated:
        require(score, "updates", "loss", "accuracy")
    require(result.peak_memory, "bytes", "of")
    for score in result.transfer:
        require(score, "T", "accuracy", "sequences")
    names = ("steps", "loss", "accuracy")
    require_curves(result.training, *names, "gradient_norm")
    require_curves(result.evaluations, *names)
    return result


def read_results(folder: Path) -> list[SupervisedResult]:
    """Read all result files; see :func:`~relagent.study.result_file.read_folder`."""
    return read_folder(folder, read_result, _run_of)


def _run_of(result: SupervisedResult) -> tuple[Any, ...]:
    forms = (result.config.get(name) for name in ("T", "group", "permuted"))
    return (result.study, result.memory, result.seed, *forms)


def _score(data: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if data is None else _numbers(data)


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    return {
        str(name): int(value) if name in ("updates", "T", "sequences") else float(value)
        for name, value in data.items()
    }


def _curves(data: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    return {
        name: [int(v) if name == "steps" else float(v) for v in values]
        for name, values in data.items()
    }


def split_row(row: Mapping[str, Any], split: str) -> dict[str, float]:
    """A row of metrics (``validation/loss``: ...) as a score (``loss``: ...), with its updates."""
    prefix = f"{split}/"
    scores = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
    return {"updates": row["step"], **scores} if "step" in row else scores


def thin_curves(
    rows: list[dict[str, Any]], characters: bool
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The curves of training and of its evaluations out of a run's metrics, in four digits.

    Args:
        rows: of metrics.
        characters: whether there are bits per character too.
    """
    names = ["loss", "accuracy", *(["bpc"] if characters else [])]
    training = {name: f"train/{name}" for name in (*names, "gradient_norm")}
    evaluations = {name: f"validation/{name}" for name in names}

    def number(value: float) -> float:
        return float(f"{value:.4g}")

    return thin(rows, training, number=number), thin(rows, evaluations, number=number)
