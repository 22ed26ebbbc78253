"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new.

    The bytes go to a hidden file beside ``path``, reach the disk, and take its name; the folder is
    flushed too, so that the new name survives a power cut.

    Raises:
        OSError: what the system said (no space, no permission, ...). ``path`` is then as it was,
            and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_or_empty(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file or it holds none, as after a crash."""
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`write_atomically` leaves in a folder when its process is killed."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """What the system said, without the file name that the caller's message has already."""
    return error.strerror or str(error)
