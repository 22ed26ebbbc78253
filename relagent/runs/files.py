"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from relagent.errors import RelagentError


class WriteError(RelagentError):
    """A file or folder that cannot be written to; what was there is untouched."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"cannot write {path}: {problem}; mend that, or choose another folder")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new.

    The bytes go to a hidden file beside ``path``, reach the disk, and take its name; the folder is
    flushed too, so that the new name survives a power cut.

    Raises:
        OSError: what the system said (no space, no permission, ...). ``path`` is then as it was,
            and nothing is left beside it.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden file beside ``path``, of the same kind, to write to within.

    At the end it takes the name of ``path``; if anything is raised within, it is removed.
    """
    temporary = path.with_name(f".tmp.{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def read_or_empty(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file or it holds none, as after a crash."""
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`replacing` leaves in a folder when its process is killed."""
    for temporary in folder.glob(".tmp.*"):
        temporary.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """What the system said, without the file name that the caller's message has already."""
    return error.strerror or str(error)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell what the system refuses within as a line about ``path``.

    Raises:
        WriteError: an OSError was raised within.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(path, reason(error)) from error


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Make the folder that a long computation will write to, before it begins.

    If the computation fails, a folder that was made for it and is still empty goes again.

    Raises:
        WriteError: it cannot be made, or nothing can be written to it.
    """
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(folder, "no permission")
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # something is in it
                folder.rmdir()
        raise
