"""What every kind of training does to go on with a run: its settings and its last checkpoint."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from relagent.errors import RelagentError
from relagent.runs.checkpoint import Checkpoint
from relagent.runs.config import Config, ConfigT, flag_of, names_of, to_json
from relagent.runs.directory import RunDamagedError, RunDirectory
from relagent.runs.packing import unpack


class ResumeError(RelagentError):
    """A run that cannot go on as asked."""


def config_for_resume(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """Return a run's settings with what may change on resuming changed.

    Args:
        config: the run's settings.
        changes: new values by name; a value that equals the run's is no change.

    Raises:
        ResumeError: a setting that decides the result differs from the run's.
    """
    may_change = names_of(type(config), "budget", "machine")
    settings = {field.name: getattr(config, field.name) for field in fields(config)}
    for name, value in changes.items():
        if name not in may_change and value != settings[name]:
            raise ResumeError(
                f"{name} of this run is {settings[name]!r} and cannot become {value!r}: a resumed "
                f"run may change only {', '.join(may_change)}; start a new run instead"
            )
    return type(config)(**{**settings, **changes})


def changed_options(run: RunDirectory, config: Config) -> str:
    """Return the words of a command line that repeat what differs from the run's settings."""
    known = to_json(run.read_config(type(config)))
    return "".join(
        f" {flag_of(name)} {shlex.quote(str(value))}"
        for name, value in to_json(config).items()
        if value != known[name]
    )


def deciding_settings(config: Config) -> dict[str, Any]:
    """Return what a checkpoint says of its run under ``settings``: all that decides the result."""
    settings = to_json(config)
    return {name: settings[name] for name in names_of(type(config), "result")}


def read_checkpoint(
    run: RunDirectory, config: Config | None = None
) -> tuple[dict[str, Any], Checkpoint]:
    """Return the newest usable checkpoint as a tree; say where a newer one is damaged.

    Args:
        run: the run.
        config: its settings, where they are used beside the checkpoint: what comes of both would
            have a false name if they were another run's.

    Raises:
        CheckpointNotFoundError, CheckpointDamagedError: there is none that can be used.
        RunDamagedError: it was made with other settings.
    """
    checkpoint = run.load_checkpoint()
    for line in checkpoint.skipped:
        print(f"warning: {line}; using the one before", file=sys.stderr)
    state = unpack(checkpoint.tensors, checkpoint.data)
    if config is not None:
        said = to_json(config)
        for name, value in state.get("settings", {}).items():  # old checkpoints do not say
            if said.get(name) != value:
                raise RunDamagedError(
                    run.path / "config.json",
                    f"it says {name} {said.get(name)}, but {checkpoint.path.name} was made with "
                    f"{value}",
                )
    return state, checkpoint
