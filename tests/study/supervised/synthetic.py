"""Results that say what they are told to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from relagent.runs.config import to_json
from relagent.study.supervised.result import SupervisedResult
from relagent.study.supervised.task import SupervisedTask
from relagent.tasks.defaults import default_config


def synthetic(
    study: str,
    memory: str,
    seed: int = 0,
    *,
    accuracy: float = 1.0,
    updates: int = 1000,
    diverged: int | None = None,
    transfer: dict[int, float] | None = None,
    **settings: Any,
) -> SupervisedResult:
    """A result; a perfect accuracy of copy or denoise is solved."""
    config = default_config(study, memory, seed=seed, device="cpu", **settings)
    dataset = study in ("mnist", "ptb")
    score: dict[str, float] = {"updates": updates, "loss": 0.1, "accuracy": accuracy}
    names = ["loss", "accuracy"]
    if study == "ptb":
        names.append("bpc")
        score["bpc"] = 0.1 / math.log(2)
    steps: list[float] = [updates // 10 * i for i in range(1, 11)]
    curve = {"steps": steps, **{name: [1 / i for i in range(1, 11)] for name in names}}
    return SupervisedResult(
        study=study,
        memory=memory,
        seed=seed,
        config={name: value for name, value in to_json(config).items() if name != "data"},
        command=("python", "-m", "relagent.tasks", study),
        updates=updates,
        total=updates,
        solved=updates if accuracy == 1 and not dataset else None,
        diverged=diverged,
        validation=score,
        best=score,
        test={name: value for name, value in score.items() if name != "updates"}
        if dataset
        else None,
        parameters=1234,
        seconds=600.0,
        peak_memory={"bytes": 480_000_000, "of": "process"},
        transfer=tuple(
            {"T": T, "accuracy": value, "loss": 0.01, "sequences": 1000}
            for T, value in (transfer or {}).items()
        ),
        training={**curve, "gradient_norm": [0.5] * 10},
        evaluations=curve,
        provenance={
            "training": {"versions": {"torch": "2.9"}, "git": {"commit": "0" * 40, "dirty": False}},
            "sessions": 1,
            "machine": {"processor": "A fine one", "cores": 2, "memory_gib": 8.0, "gpu": None},
        },
        checkpoint="checkpoint",
    )


def write(folder: Path, result: SupervisedResult) -> None:
    """Write it where a study would."""
    config = default_config(**dict(result.config))
    task = SupervisedTask(config, results=folder)
    result.write(task.result)
