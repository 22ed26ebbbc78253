"""Checkpoints: one safetensors file each, written whole or not at all, that runs no code.

The tensors are the file's tensors. The rest is JSON in the file's metadata, beside a SHA-256 over
the *whole* file (taken with its own 64 digits as zeros), so that any byte that changed on disk is
noticed before a value is used. The digest guards against accidents; it is no signature.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from relagent.errors import RelagentError
from relagent.runs.files import reason, remove_leftovers, write_atomically

FORMAT = 1
"""Number of this file layout; raised when older programs could not read it."""

_KEY = "relagent"  # one metadata key only: safetensors writes several in a random order
_BLANK = b"0" * 64
_NAME = re.compile(r"checkpoint-(\d{12,})\.safetensors")


class CheckpointError(RelagentError):
    """A checkpoint that cannot be written, found or read."""


class CheckpointWriteError(CheckpointError):
    """Nothing was written; whatever was there before is untouched."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"cannot write {path}: {problem}; what was saved earlier is untouched")


class CheckpointDamagedError(CheckpointError):
    """A file that is not, or no longer, what was saved."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"cannot use {path}: {problem}")


class CheckpointNotFoundError(CheckpointError):
    """A folder without any checkpoint."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"no checkpoint in {directory}: a run has one after its first save; go on with its "
            "training by --resume, or give another run"
        )


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at one step."""

    step: int
    """Environment steps (or updates) done when it was saved."""
    tensors: dict[str, Tensor]
    """On the CPU."""
    data: dict[str, Any]
    """The JSON part."""
    path: Path
    """The file it came from."""
    skipped: tuple[str, ...] = ()
    """One line for each newer checkpoint that could not be used; show it to the user."""


def save_file(path: Path | str, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
    """Write tensors and JSON as one file.

    The same content gives the same bytes.

    Args:
        path: the file; its folder is made where it is missing.
        tensors: any shapes, dtypes and devices; views and shared memory are written out in full.
        data: a JSON object with finite numbers (:func:`relagent.runs.packing.pack` makes one).

    Raises:
        CheckpointWriteError: no space, no permission, or ``data`` is no JSON.
    """
    path = Path(path)
    try:
        note = json.dumps(
            {"sha256": _BLANK.decode(), "format": FORMAT, "data": data}, allow_nan=False
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointWriteError(path, f"the data is no JSON ({error}), pack() it") from error
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    content = bytearray(safetensors.torch.save(copies, metadata={_KEY: note}))
    digest = hashlib.sha256(content).hexdigest().encode()
    # The metadata opens the header and the digest opens the metadata: the first is the right one.
    at = content.index(_BLANK)
    content[at : at + len(digest)] = digest
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, bytes(content))
    except OSError as error:
        problem = f"{reason(error)}, free some space or choose another folder"
        raise CheckpointWriteError(path, problem) from error


def load_file(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_file` wrote, after checking that every byte is what it was.

    Returns:
        The tensors, on the CPU, and the JSON object.

    Raises:
        CheckpointDamagedError: not such a file, a damaged one, one of a newer format, or one that
            cannot be read.
    """
    path = Path(path)
    try:
        content = bytearray(path.read_bytes())
        end = 8 + int.from_bytes(content[:8], "little")
        note = json.loads(json.loads(content[8:end])["__metadata__"][_KEY])
        digest = note["sha256"].encode()
        at = content.index(digest, 0, end)
        content[at : at + len(digest)] = _BLANK
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise CheckpointDamagedError(path, "its digest does not match, some bytes changed")
        if note["format"] != FORMAT:
            problem = (
                f"its format is {note['format']}, this version reads {FORMAT}; update relagent"
            )
            raise CheckpointDamagedError(path, problem)
        data = note["data"]
        if not isinstance(data, dict):
            raise TypeError("data")
        return safetensors.torch.load(bytes(content)), data
    except OSError as error:
        raise CheckpointDamagedError(path, f"{reason(error)}; check the path") from error
    except CheckpointDamagedError:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        SafetensorError,
    ) as error:
        problem = "it is damaged, or no file that relagent saved"
        raise CheckpointDamagedError(path, problem) from error


def checkpoints(directory: Path | str) -> list[Path]:
    """The checkpoint files in a folder, oldest (fewest steps) first."""
    found = Path(directory).glob("checkpoint-*.safetensors")
    return sorted((path for path in found if step_of(path) >= 0), key=step_of)


def step_of(path: Path) -> int:
    """The step in a checkpoint file's name; -1 for any other name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def save_checkpoint(
    directory: Path | str,
    step: int,
    tensors: Mapping[str, Tensor],
    data: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Save a checkpoint and, once it is safely there, remove all but the newest ``keep``.

    Checkpoints of later steps are left alone and not counted.

    Returns:
        ``directory/checkpoint-<step>.safetensors``, the step with twelve digits.

    Raises:
        CheckpointWriteError: see :func:`save_file`; the earlier checkpoints are untouched.
    """
    path = Path(directory) / f"checkpoint-{step:012d}.safetensors"
    save_file(path, tensors, {"step": step, "data": data})
    with contextlib.suppress(OSError):  # what cannot be removed costs space, no more
        remove_leftovers(path.parent)
        for old in [p for p in checkpoints(directory) if step_of(p) <= step][:-keep]:
            old.unlink()
    return path


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Load one checkpoint file, or the newest usable one of a folder (:func:`newest`).

    Raises:
        CheckpointDamagedError: the file, or every file of the folder, cannot be used.
        CheckpointNotFoundError: the folder holds no checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        return newest(path)
    tensors, content = load_file(path)
    step, data = content.get("step"), content.get("data")
    if type(step) is not int or not isinstance(data, dict) or len(content) != 2:
        raise CheckpointDamagedError(
            path, "it was saved by relagent, but is no checkpoint of a run"
        )
    return Checkpoint(step, tensors, data, path)


def newest(directory: Path | str) -> Checkpoint:
    """Load the newest checkpoint of a folder that can be used.

    Returns:
        The checkpoint; its ``skipped`` says in one line each why newer ones were passed over.

    Raises:
        CheckpointNotFoundError: there is none.
        CheckpointDamagedError: there are some, and none can be used.
    """
    skipped: list[str] = []
    for path in reversed(checkpoints(directory)):
        try:
            return replace(load_checkpoint(path), skipped=tuple(skipped))
        except CheckpointDamagedError as error:
            skipped.append(str(error))
    if not skipped:
        raise CheckpointNotFoundError(Path(directory))
    raise CheckpointDamagedError(Path(directory), f"no usable checkpoint: {'; '.join(skipped)}")
