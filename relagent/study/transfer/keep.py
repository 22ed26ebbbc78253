"""The policy of a run, kept small beside the results: it can be played, not trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from relagent.runs.checkpoint import save_checkpoint
from relagent.runs.directory import RunDirectory
from relagent.runs.files import write_atomically
from relagent.runs.packing import pack, unpack

_OF_A_POLICY = (
    "policy",
    "policy_kwargs",
    "arguments",
    "schedules",
    "missing",
    "observation_space",
    "action_space",
    "parameters",
)


def keep_policy(run: Path, folder: Path) -> None:
    """Copy a run without what only training needs: a small run that can be played, not resumed.

    Args:
        run: a run directory with a checkpoint.
        folder: the new run directory; one that is there is replaced.
    """
    checkpoint = RunDirectory.open(run).load_checkpoint()
    state = unpack(checkpoint.tensors, checkpoint.data)
    slim = {
        "model": {name: state["model"][name] for name in _OF_A_POLICY},
        **{name: state[name] for name in ("backend", "settings") if name in state},
    }
    shutil.rmtree(folder, ignore_errors=True)
    save_checkpoint(folder / "checkpoints", checkpoint.step, *pack(slim))
    made = RunDirectory.open(run).read_provenance()
    made = {name: value for name, value in made.items() if name not in ("command", "resumed")}
    write_atomically(folder / "provenance.json", json.dumps(made, indent=2).encode() + b"\n")
    write_atomically(folder / "config.json", (run / "config.json").read_bytes())
