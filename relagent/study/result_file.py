"""Reading a result file, of whatever study: one JSON object, which says its format."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sized
from pathlib import Path
from typing import Any, TypeVar

from relagent.errors import RelagentError

ResultT = TypeVar("ResultT")


class ResultError(RelagentError):
    """A result file that is not what a task wrote, or something that it cannot hold."""


def read_result_file(
    path: Path, file_format: int, parse: Callable[[dict[str, Any]], ResultT]
) -> ResultT:
    """Read one result file.

    Args:
        path: the file.
        file_format: the format that ``parse`` understands.
        parse: makes the result of the file's object.

    Raises:
        ResultError: it cannot be read, or is none.
    """
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != file_format:
            raise ResultError(
                f"{path} has format {data['format']}, this version reads {file_format}: update "
                "relagent"
            )
        return parse(data)
    except ResultError:
        raise
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RelagentError
    ) as error:  # fmt: skip
        raise ResultError(
            f"{path} is no result of a task ({type(error).__name__}: {error}): remove it, and the "
            "task will be done again"
        ) from error


def read_folder(
    folder: Path, read: Callable[[Path], ResultT], run_of: Callable[[ResultT], Hashable]
) -> list[ResultT]:
    """Read all result files of a study (``folder/runs/*.json``), sorted by name.

    Args:
        folder: of the study.
        read: reads one file.
        run_of: what no two results may share.

    Raises:
        ResultError: one cannot be read, or two are of one run, which would count twice.
    """
    found: dict[Hashable, Path] = {}
    results = []
    for path in sorted((folder / "runs").glob("*.json")):
        result = read(path)
        other = found.setdefault(run_of(result), path)
        if other != path:
            raise ResultError(f"{other} and {path} are results of one run: remove one of them")
        results.append(result)
    return results


def require(data: Mapping[str, Any], *names: str) -> None:
    """Check that names are there.

    Raises:
        ValueError: one is not.
    """
    missing = [name for name in names if name not in data]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")


def require_curves(curves: Mapping[str, Sized], *names: str) -> None:
    """Check that curves are there and equally long.

    Raises:
        ValueError: they are not.
    """
    require(curves, *names)
    if len({len(curve) for curve in curves.values()}) > 1:
        raise ValueError("its curves are not equally long")
