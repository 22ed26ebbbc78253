"""Each CPU kernel against ``nn.LSTM`` of the same size, and against its own definition.

    python benchmarks/kernels.py

Forward + backward over a whole sequence, and one acting step, in float32. All candidates of a table
take turns within every round, so that whatever else the machine does hits them alike; medians are
printed with their ratio to ``nn.LSTM``. Wall time counts what a user waits; CPU time (of all
threads) says more on a machine that others use too.

``nn.LSTM`` runs in a process of its own, with OpenMP as torch sets it up by default: relagent's
setting (threads sleep while they wait) slows its many small parallel steps.
"""

from __future__ import annotations

import os
import sys

if "--peer" in sys.argv:
    import torch  # before relagent, whose setting then comes too late
import relagent  # isort: skip  # first otherwise: it tells OpenMP not to spin before torch starts it

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from relagent.memories import AnyState, Memory, kernels, make_memory

KAPPA = {"nu": 5, "rho": 5}
MEMORIES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "rel": KAPPA,
    "mem": {},
    "rel-rnn": KAPPA,
    "mem-rnn": {},
}
FEATURES = 64
PEER = "nn.LSTM"
Call = Callable[[], None]


class Times(NamedTuple):
    """Median seconds of a call."""

    wall: float
    cpu: float


def train(memory: Memory[Any], x: Tensor, state: AnyState) -> None:
    torch.autograd.backward(memory.unroll(x, state)[0].sum())


def act(memory: Memory[Any], x: Tensor, state: AnyState, starts: Tensor) -> None:
    with torch.no_grad():
        memory.unroll(x, state, starts)


class Peer:
    """nn.LSTM in its own process; calling it makes one pass there and waits for its times."""

    def __init__(self, n: int, steps: int, rows: int, training: bool, threads: int) -> None:
        plain = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--peer", *map(str, (n, steps, rows, training, threads))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=plain,
        )

    def __call__(self, repeats: int) -> Times:
        """Make ``repeats`` passes."""
        assert self.process.stdin and self.process.stdout
        print(repeats, file=self.process.stdin, flush=True)
        wall, cpu = map(float, self.process.stdout.readline().split())
        time.sleep(0.05)  # its threads may spin on for a moment
        return Times(wall, cpu)


def serve_peer(n: int, steps: int, rows: int, training: bool, threads: int) -> None:
    """Be the peer's process: one pass for every line that comes in."""
    torch.set_num_threads(threads)
    x = torch.randn(steps, rows, FEATURES, requires_grad=training)
    lstm = nn.LSTM(FEATURES, n)
    state = (torch.zeros(1, rows, n), torch.zeros(1, rows, n))

    def call() -> None:
        with torch.set_grad_enabled(training):
            y = lstm(x, state)[0]
        if training:
            torch.autograd.backward(y.sum())

    for line in sys.stdin:
        print(*timed(call, int(line)), flush=True)


def timed(call: Call, repeats: int) -> Times:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Times(wall / repeats, cpu / repeats)


def by_definition(call: Call) -> None:
    with kernels.disable():
        call()


def sequence_calls(n: int, steps: int, rows: int, definition: bool) -> dict[str, Call]:
    """Return forward + backward of every kernel and, if asked, of its definition."""
    x = torch.randn(steps, rows, FEATURES, requires_grad=True)
    calls: dict[str, Call] = {}
    for name, options in MEMORIES.items():
        memory = make_memory(name, FEATURES, n, **options)
        calls[name] = partial(train, memory, x, memory.initial_state(rows))
        if definition:
            calls[f"{name} (definition)"] = partial(by_definition, calls[name])
    return calls


def step_calls(n: int, rows: int) -> dict[str, Call]:
    """Return one acting step, 20 steps into an episode."""
    x = torch.randn(21, rows, FEATURES)
    starts = torch.zeros(1, rows, dtype=torch.bool)
    calls: dict[str, Call] = {}
    for name, options in MEMORIES.items():
        memory = make_memory(name, FEATURES, n, **options)
        with torch.no_grad():
            _, state = memory.unroll(x[1:], memory.initial_state(rows))
        calls[name] = partial(act, memory, x[:1], state, starts)
        calls[f"{name} (definition)"] = partial(by_definition, calls[name])
    return calls


def medians(peer: Peer, calls: dict[str, Call], rounds: int, repeats: int) -> dict[str, Times]:
    """Time each call; in every round all of them take their turn."""
    measures: dict[str, Callable[[int], Times]] = {
        PEER: peer,
        **{name: partial(timed, call) for name, call in calls.items()},
    }
    for measure in measures.values():
        measure(1)
    times: dict[str, list[Times]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            times[name].append(measure(repeats))
    peer.process.kill()
    return {
        name: Times(*(statistics.median(column) for column in zip(*rows, strict=True)))
        for name, rows in times.items()
    }


def show(title: str, result: dict[str, Times]) -> None:
    """Print one table."""
    print(f"\n{title}")
    print(f"{'':22}{'wall ms':>10}{'× peer':>8}{'CPU ms':>10}{'× peer':>8}{'× definition':>14}")
    peer = result[PEER]
    for name, found in result.items():
        slow = result.get(f"{name} (definition)")
        line = f"{name:22}{found.wall * 1e3:10.2f}{found.wall / peer.wall:8.2f}"
        line += f"{found.cpu * 1e3:10.2f}{found.cpu / peer.cpu:8.2f}"
        print(line + (f"{found.cpu / slow.cpu:14.3f}" if slow else ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the CPU kernels against nn.LSTM.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        n, steps, rows, training, threads = options.peer
        serve_peer(int(n), int(steps), int(rows), training == "True", int(threads))
        return
    torch.set_num_threads(options.threads)
    print(f"relagent {relagent.__version__}, torch {torch.__version__}, {options.threads} threads")
    for n, steps, rows in ((64, 128, 64), (128, 128, 64), (64, 128, 4), (64, 250, 64)):
        definition = rows == 4  # the definitions take long; MemLSTM's also much memory
        calls = sequence_calls(n, steps, rows, definition)
        title = f"forward + backward, n = {n}, T = {steps}, B = {rows}, ν = ρ = 5"
        peer = Peer(n, steps, rows, True, options.threads)
        show(title, medians(peer, calls, options.rounds, repeats=3))
    peer = Peer(64, 1, 64, False, options.threads)
    title = "one acting step, n = 64, B = 64, ν = ρ = 5"
    show(title, medians(peer, step_calls(64, 64), 30, 10))


if __name__ == "__main__":
    main()
