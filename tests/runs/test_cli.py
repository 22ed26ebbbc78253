"""What a user causes is one line and an exit code; what a bug causes keeps its traceback."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
import torch

from relagent.errors import RelagentError
from relagent.runs.cli import ArgumentParser, GracefulStop, main_guard


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RelagentError("nu is -1;\n  it must be at least 1"), "nu is -1; it must be at least 1"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (MemoryError(), "ask for smaller sizes"),
        (RuntimeError("[enforce fail] can't allocate memory: 8 bytes"), "ask for smaller sizes"),
        (RuntimeError("Storage size calculation overflowed"), "ask for smaller sizes"),
        (torch.OutOfMemoryError("CUDA out of memory"), "ask for smaller sizes"),
    ],
)
def test_one_line_and_exit_code_2(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_guard(raising(error)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.endswith(f"{line}\n")
    assert captured.err.count("\n") == 1


def test_bugs_keep_their_traceback() -> None:
    bad = OSError(errno.EBADF, "bad")
    for bug in (ValueError("x"), bad, ZeroDivisionError(), RuntimeError("x")):
        with pytest.raises(type(bug)):
            main_guard(raising(bug))


def test_exit_codes() -> None:
    assert main_guard(lambda: None) == 0
    assert main_guard(lambda: 143) == 143
    assert main_guard(raising(KeyboardInterrupt())) == 130


def test_a_reader_that_left_is_no_error() -> None:
    code = """
import sys
from relagent.runs.cli import main_guard
def main():
    while True:
        print("row")
sys.exit(main_guard(main))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(20) == 141
        assert child.stderr.read() == b""


@pytest.mark.parametrize("words", [["--nu", "x"], ["--n", "3"], ["--other\nline"], []])
def test_a_wrong_flag_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(prog="train_rl.py")
    parser.add_argument("--nu", type=int, required=True)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.endswith("(see train_rl.py --help)\n")
    assert line.count("\n") == 1


def test_an_unknown_flag_of_a_command_is_answered_by_its_own_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = ArgumentParser(prog="study")
    parser.add_subparsers().add_parser("copy").add_argument("--T")
    with pytest.raises(SystemExit):
        parser.parse_args(["copy", "--T", "3", "--epochs", "3"])
    line = capsys.readouterr().err
    assert line == "error: unrecognized arguments: --epochs 3 (see study copy --help)\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_and_the_second_insists(
    number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(n) for n in GracefulStop.SIGNALS]
    with GracefulStop() as stop:
        assert (stop.requested, stop.exit_code) == (False, 0)
        os.kill(os.getpid(), number)
        assert (stop.requested, stop.exit_code) == (True, code)
        assert "once more to stop at once" in capfd.readouterr().err
        with pytest.raises(SystemExit) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.code == 143
        assert [signal.getsignal(n) for n in GracefulStop.SIGNALS] == before
    assert [signal.getsignal(n) for n in GracefulStop.SIGNALS] == before


def test_handlers_come_back_without_a_signal() -> None:
    before = [signal.getsignal(n) for n in GracefulStop.SIGNALS]
    with GracefulStop():
        assert [signal.getsignal(n) for n in GracefulStop.SIGNALS] != before
    assert [signal.getsignal(n) for n in GracefulStop.SIGNALS] == before


def test_outside_the_main_thread_it_does_nothing() -> None:
    codes: list[int] = []

    def work() -> None:
        with GracefulStop() as stop:
            codes.append(stop.exit_code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert codes == [0]
