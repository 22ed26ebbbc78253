"""One-line errors, exit codes and a graceful stop."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from relagent.errors import RelagentError
from relagent.runs.config import FOLDER_RULE

USAGE = 2
"""Exit code of a request that cannot be met."""

# What the user's machine refuses, as against what the program got wrong.
_REFUSALS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, with an error of one line and no guessing of shortened flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what is unknown at once: argparse lets a command's parent do it, by its help."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print the error and a hint on one line, and exit with code 2."""
        self.exit(USAGE, f"error: {_one_line(message)} (see {self.prog} --help)\n")


def count(text: str) -> int:
    """A number on the command line that is at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"it must be a whole number of at least 1, not {text!r}")
    return number


def folder(text: str) -> Path:
    """A folder on the command line, which must have a name."""
    if not text:
        raise argparse.ArgumentTypeError(FOLDER_RULE)
    return Path(text)


def main_guard(function: Callable[[], int | None]) -> int:
    """Run a command's main, and turn what a user can cause into one line: ``error: ...``.

    Use as ``sys.exit(main_guard(main))``. Everything else keeps its traceback.

    Returns:
        The exit code: what ``function`` returned (None is 0), 2 after such an error, 130 after an
        interrupt that nobody took.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # Greek letters on a terminal that has none
    try:
        return function() or 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has left (`| head`); Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except RelagentError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        message = "this machine has not enough memory for that: ask for smaller sizes"
    print(f"error: {_one_line(message)}", file=sys.stderr)
    return USAGE


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: Python's, a GPU's or that of torch's allocator for CPUs."""
    words = ("can't allocate memory", "Storage size calculation overflowed")
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(phrase in str(error) for phrase in words)
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


class GracefulStop:
    """Within it, Ctrl-C (SIGINT) and SIGTERM ask for a stop, which the work polls.

    ::

        with GracefulStop() as stop:
            while not stop.requested:
                ...
        return stop.exit_code

    A second signal stops at once, by :class:`SystemExit`. Outside the main thread, where Python
    takes no signals, it does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._signal: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """0 without a signal, 130 after SIGINT, 143 after SIGTERM."""
        return 0 if self._signal is None else 128 + self._signal

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler or signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self.__exit__()
            raise SystemExit(128 + number)
        self._signal = number
        # Not print(): the signal may have come in the middle of one.
        os.write(2, b"\nstopping and saving; once more to stop at once\n")
