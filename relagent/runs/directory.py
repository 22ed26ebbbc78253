"""The folder of a run: settings, provenance, metrics, checkpoints, and who is writing to it.

::

    run/
      config.json         the settings; a folder with this file is a run
      provenance.json     what made it, and what resumed it
      metrics.jsonl       one JSON object a row, each with its "step"
      checkpoints/        see relagent.runs.checkpoint
      lock                held by the writing process; the system lets go of it when that dies
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from torch import Tensor

from relagent.errors import RelagentError
from relagent.runs import checkpoint
from relagent.runs.config import Config, ConfigT, from_json, to_json
from relagent.runs.files import reason, write_atomically, writing


class RunError(RelagentError):
    """A run directory that cannot be used as asked."""


class RunNotFoundError(RunError):
    """No run where one was expected."""

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            missing = "the folder has no config.json"
        else:
            missing = "it is a file" if path.exists() else "there is no such folder"
        super().__init__(f"no run at {path}: {missing}; give the folder that training printed")


class RunExistsError(RunError):
    """A new run where one is already."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds a run already; continue it with --resume "
            f"{shlex.quote(str(path))} or choose another folder"
        )


class RunPathError(RunError):
    """A new run where a file is."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} cannot be a folder, a file stands there; choose another path")


class RunInUseError(RunError):
    """A run that a living process is writing to."""

    def __init__(self, path: Path, pid: str) -> None:
        super().__init__(
            f"{path} is in use by process {pid or '(unknown)'}; wait for it, stop it, "
            "or choose another folder"
        )


class RunDamagedError(RunError):
    """A file of a run that is not what was written."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"cannot use {path}: {problem}; restore it, or start a new run")


class RunDirectory:
    """A run on disk; made by :meth:`create`, :meth:`open_for_resume` or :meth:`open`.

    The first two lock it until :meth:`close` (or the end of a ``with``, or of the process).
    """

    def __init__(self, path: Path, lock: IO[str] | None = None) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._lock = lock

    @classmethod
    def create(cls, path: Path | str, config: Config, provenance: Mapping[str, Any]) -> Self:
        """Start a run in a folder, which is made where it is missing.

        Raises:
            RunExistsError: it holds a run already.
            RunPathError: a file is in its place, or in that of a folder above.
            RunInUseError: a living process writes to it.
            WriteError: no permission or no space.
        """
        path = Path(path)
        with writing(path):
            try:
                path.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise RunPathError(path) from None
            run = cls(path, _lock(path))
            try:
                if (path / "config.json").exists() or checkpoint.checkpoints(run.checkpoints):
                    raise RunExistsError(path)
                run.checkpoints.mkdir(exist_ok=True)
                run._write("provenance.json", {**provenance, "resumed": []})
                write_atomically(run.path / "metrics.jsonl", b"")
                run._write("config.json", to_json(config))  # last: now it is a run
            except BaseException:
                run.close()
                raise
        return run

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read a run, which may be one that is still being written.

        Raises:
            RunNotFoundError: there is none.
        """
        if not (Path(path) / "config.json").is_file():
            raise RunNotFoundError(Path(path))
        return cls(Path(path))

    @classmethod
    def open_for_resume(cls, path: Path | str) -> Self:
        """Take a run over; then :meth:`load_checkpoint` and :meth:`rewind`.

        Raises:
            RunNotFoundError: there is none.
            RunInUseError: a living process writes to it.
            WriteError: no permission or no space.
        """
        run = cls.open(path)
        with writing(run.path):
            run._lock = _lock(run.path)
        return run

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_settings(self) -> dict[str, Any]:
        """The settings as they were written, of whatever kind the run is.

        Raises:
            RunDamagedError: they cannot be read, or are no JSON object.
        """
        return self._read("config.json")

    def read_config(self, config_class: type[ConfigT]) -> ConfigT:
        """The settings of the run.

        Raises:
            RunDamagedError: they cannot be read, or are not those of ``config_class``.
        """
        try:
            return from_json(config_class, self.read_settings())
        except RunDamagedError:
            raise
        except RelagentError as error:
            raise RunDamagedError(self.path / "config.json", str(error)) from error

    def read_provenance(self) -> dict[str, Any]:
        """What made the run; under ``resumed``, what continued it.

        Raises:
            RunDamagedError: it cannot be read.
        """
        return self._read("provenance.json")

    def save_checkpoint(
        self, step: int, tensors: Mapping[str, Tensor], data: Mapping[str, Any]
    ) -> Path:
        """See :func:`relagent.runs.checkpoint.save_checkpoint`; the metrics reach the disk first.

        Raises:
            CheckpointWriteError: nothing was saved; what was there is untouched.
            WriteError: the metrics cannot reach the disk.
        """
        with writing(self._metrics), self._metrics.open("ab") as file:
            os.fsync(file.fileno())
        return checkpoint.save_checkpoint(self.checkpoints, step, tensors, data)

    @property
    def saved(self) -> bool:
        """Whether there is any checkpoint; a run that was killed early has none."""
        return bool(checkpoint.checkpoints(self.checkpoints))

    def load_checkpoint(self) -> checkpoint.Checkpoint:
        """See :func:`relagent.runs.checkpoint.newest`.

        Raises:
            CheckpointNotFoundError: the run ended before its first save.
            CheckpointDamagedError: no checkpoint can be used.
        """
        return checkpoint.newest(self.checkpoints)

    def log_metrics(self, step: int, values: Mapping[str, Any]) -> None:
        """Append a row; it has reached the system when this returns.

        Args:
            step: environment steps (or updates) done.
            values: numbers, texts or None; NaN and infinities are written as null.

        Raises:
            WriteError: the row was not written; the file is as before.
        """
        row = {"step": step} | {name: _plain(value) for name, value in values.items()}
        with writing(self._metrics):
            size = self._metrics.stat().st_size if self._metrics.exists() else 0
            try:
                with self._metrics.open("ab") as file:
                    file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            except OSError:
                with suppress(OSError):
                    os.truncate(self._metrics, size)
                raise

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows so far; one that was cut short by a crash is left out."""
        return [row for _, row in self._rows()]

    def rewind(self, step: int, provenance: Mapping[str, Any] | None = None) -> None:
        """Forget what came after a step, a resumed run writes it again; and note who resumes.

        Rows of later steps, and rows cut short, are dropped. Later checkpoints (those that could
        not be used) are set aside under another name.

        Raises:
            RunDamagedError: the provenance cannot be read.
            WriteError: no permission or no space.
        """
        with writing(self.path):
            if provenance is not None:
                known = self.read_provenance()
                before = known.get("resumed", [])
                if not isinstance(before, list):
                    raise RunDamagedError(self.path / "provenance.json", "resumed is no list")
                resumed = [*before, dict(provenance)]
                self._write("provenance.json", {**known, "resumed": resumed})
            kept = b"".join(line for line, row in self._rows() if row["step"] <= step)
            write_atomically(self._metrics, kept)
            for path in checkpoint.checkpoints(self.checkpoints):
                if checkpoint.step_of(path) > step:
                    path.rename(path.with_name(f"{path.name}.unused"))

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def _rows(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Whole rows, as written and as read."""
        if not self._metrics.exists():
            return
        for line in self._metrics.read_bytes().splitlines(keepends=True):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n") and isinstance(row, dict) and type(row.get("step")) is int:
                yield line, row

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            data = json.loads(path.read_bytes())
        except OSError as error:
            raise RunDamagedError(path, reason(error)) from error
        except (ValueError, RecursionError) as error:
            raise RunDamagedError(path, "it is no JSON") from error
        if not isinstance(data, dict):
            raise RunDamagedError(path, "it is no JSON object")
        return data

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        write_atomically(self.path / name, json.dumps(data, indent=2).encode() + b"\n")


def default_run_path(env: str, memory: str, seed: int) -> Path:
    """``runs/{env}-{memory}-s{seed}-{UTC time}``, with dashes for what a name cannot hold."""
    time = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{env}-{memory}-s{seed}-{time}"
    return Path("runs") / "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _lock(path: Path) -> IO[str]:
    """Lock the folder for as long as the returned file is open."""
    file = (path / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except BlockingIOError:
        file.seek(0)
        pid = file.read(20).strip()
        file.close()
        raise RunInUseError(path, pid) from None
    except BaseException:
        file.close()
        raise
    return file


def _plain(value: Any) -> int | float | str | None:
    if value is None or isinstance(value, int | str):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
