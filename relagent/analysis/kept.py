"""What the models of a figure showed, one file a model: measured once, drawn as often as wanted.

Trained models are large and stay where they were made; these files are small, stay beside the
figure, and let it be drawn again, or go on with the models that are missing, anywhere.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relagent.analysis.findings import Profile, profile_of
from relagent.analysis.trained import (
    FigureRunError,
    Norms,
    Stop,
    TrainedConfig,
    final_accuracy,
    gradients_of,
    norms_of,
    run_of,
    trained,
)
from relagent.runs.config import names_of, to_json
from relagent.runs.files import write_atomically
from relagent.runs.provenance import provenance
from relagent.tasks.config import TaskConfig
from relagent.tasks.run import LoadedModel
from relagent.tasks.train import DivergenceError

COMMAND = ("python", "-m", "relagent.analysis.figures")
"""What makes these files, whichever figure asks first, and the figures: their words follow."""
DIGITS = 4
"""Of the numbers in a profile: more than a picture can show."""


@dataclass(frozen=True)
class Measured:
    """What is told of one model."""

    row: dict[str, Any]
    """``seed``, ``accuracy`` and the norms of its gradients; where training diverged, ``accuracy``
    is None, and ``diverged`` the update at which it did."""
    profile: Profile | None
    """‖∇_{h_t} L‖, unless training diverged."""


def measured(model: TaskConfig, config: TrainedConfig, folder: Path, stop: Stop) -> Measured:
    """Return what is known of a model; train it, measure it and keep that if it is not known yet.

    Args:
        model: its settings.
        config: the figure's.
        folder: of the files.
        stop: polled while training; true saves and ends.

    Raises:
        FigureRunError: a file or run of that name is of other settings, or damaged.
        StoppedError: asked to stop.
    """
    path = _file_of(model, folder)
    anywhere = names_of(type(model), "machine")
    settings = {
        **{name: value for name, value in to_json(model).items() if name not in anywhere},
        "sequences": config.sequences,
    }
    if path.exists():
        return _read(path, settings)
    found = _measure(model, config, stop)
    record = {
        "settings": settings,
        "row": found.row,
        "profile": None if found.profile is None else _plain(found.profile),
        "provenance": provenance(command=list(COMMAND)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(record, allow_nan=False).encode() + b"\n")
    return found


def _plain(profile: Profile) -> dict[str, list[float | None]]:
    """Return a profile as JSON takes it: what is not finite, which no picture shows, is null."""
    return {
        name: [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values]
        for name, values in profile._asdict().items()
    }


def is_known(model: TaskConfig, folder: Path) -> bool:
    """Return whether :func:`measured` would train nothing."""
    return _file_of(model, folder).exists()


def _file_of(model: TaskConfig, folder: Path) -> Path:
    return folder / f"{run_of(model, folder).name}.json"


def _read(path: Path, wanted: dict[str, Any]) -> Measured:
    try:
        record = json.loads(path.read_bytes())
        known, row, parts = dict(record["settings"]), dict(record["row"]), record["profile"]
        wanted_row = {"seed", "accuracy", *(() if parts is None else Norms._fields)}
        if missing := wanted_row - row.keys():
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
        profile = None
        if parts is not None:
            profile = Profile(*(np.array(parts[name], float) for name in Profile._fields))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FigureRunError(
            f"{path} is no measurement of a model ({type(error).__name__}: {error}): remove it, "
            "and it will be made again"
        ) from error
    for name, value in wanted.items():
        if known.get(name) != value:
            raise FigureRunError(
                f"{path} was measured with {name} {known.get(name)!r}, now it is {value!r}: ask "
                "for the same, or choose another --out"
            )
    return Measured(row, profile)


def _measure(model: TaskConfig, config: TrainedConfig, stop: Stop) -> Measured:
    loaded = trained_if_it_can(model, config, stop)
    if isinstance(loaded, DivergenceError):
        return Measured({"seed": model.seed, "accuracy": None, "diverged": loaded.update}, None)
    norms = gradients_of(loaded, config.sequences)
    accuracy = final_accuracy(run_of(model, Path(config.runs)))
    row = {"seed": model.seed, "accuracy": accuracy, **norms_of(norms).plain()}
    return Measured(row, profile_of([norms]))


def trained_if_it_can(
    model: TaskConfig, config: TrainedConfig, stop: Stop
) -> LoadedModel | DivergenceError:
    """Train or load a model; where training diverges, say so in a line and return how."""
    try:
        return trained(model, Path(config.runs), stop)
    except DivergenceError as error:
        print(error, file=sys.stderr)
        return error
