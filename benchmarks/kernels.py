"""Each CPU kernel against ``nn.LSTM`` of the same size, and against its own definition.

    python benchmarks/kernels.py

Forward + backward over a whole sequence, and one acting step, in float32. All candidates of a table
take turns within every round, so that whatever else the machine does hits them alike; medians are
printed with their ratio to ``nn.LSTM``. Wall time counts what a user waits; CPU time (of all
threads) says more on a machine that others use too.
"""

from __future__ import annotations

import relagent  # isort: skip  # first: it tells OpenMP not to spin before torch starts it

import argparse
import statistics
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


def train_peer(peer: nn.LSTM, x: Tensor) -> None:
    torch.autograd.backward(peer(x)[0].sum())


def act_peer(peer: nn.LSTM, x: Tensor, state: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        peer(x, state)


def by_definition(call: Call) -> None:
    with kernels.disable():
        call()


def sequence_calls(n: int, steps: int, rows: int, definition: bool) -> dict[str, Call]:
    """Return forward + backward of nn.LSTM, of every kernel and, if asked, definition."""
    x = torch.randn(steps, rows, FEATURES, requires_grad=True)
    calls: dict[str, Call] = {PEER: partial(train_peer, nn.LSTM(FEATURES, n), x)}
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
    zeros = torch.zeros(1, rows, n)
    calls: dict[str, Call] = {PEER: partial(act_peer, nn.LSTM(FEATURES, n), x[:1], (zeros, zeros))}
    for name, options in MEMORIES.items():
        memory = make_memory(name, FEATURES, n, **options)
        with torch.no_grad():
            _, state = memory.unroll(x[1:], memory.initial_state(rows))
        calls[name] = partial(act, memory, x[:1], state, starts)
        calls[f"{name} (definition)"] = partial(by_definition, calls[name])
    return calls


def medians(calls: dict[str, Call], rounds: int, repeats: int) -> dict[str, Times]:
    """Time each call; in every round all of them take their turn."""
    for call in calls.values():
        call()
    times: dict[str, list[Times]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                call()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            times[name].append(Times(wall / repeats, cpu / repeats))
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
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"relagent {relagent.__version__}, torch {torch.__version__}, {options.threads} threads")
    for n, steps, rows in ((64, 128, 64), (128, 128, 64), (64, 128, 4), (64, 250, 64)):
        definition = rows == 4  # the definitions take long; MemLSTM's also much memory
        calls = sequence_calls(n, steps, rows, definition)
        title = f"forward + backward, n = {n}, T = {steps}, B = {rows}, ν = ρ = 5"
        show(title, medians(calls, options.rounds, repeats=1))
    show("one acting step, n = 64, B = 64, ν = ρ = 5", medians(step_calls(64, 64), 30, 10))


if __name__ == "__main__":
    main()
