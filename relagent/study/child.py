"""The process that does one task: ``python -m relagent.study.child``, as a study starts it.

It reads its task as JSON on its standard input, which stays open: the end of the input is the end
of the study, at which it saves and ends too.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from signal import SIGTERM

from relagent.runs.cli import GracefulStop, main_guard
from relagent.study.task import task_from_json


def main() -> int:
    """Do the task."""
    with GracefulStop() as stop:
        task = task_from_json(json.loads(sys.stdin.buffer.readline()))
        threading.Thread(target=_watch, daemon=True).start()
        return 0 if task.do(lambda: stop.requested) else stop.exit_code


def _watch() -> None:
    # Not sys.stdin: a thread that waits in it would hold its lock when the program ends.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), SIGTERM)


if __name__ == "__main__":
    sys.exit(main_guard(main))
