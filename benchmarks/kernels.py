"""Each kernel against ``nn.LSTM`` of the same size, and against its own definition.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --device cuda
    python benchmarks/kernels.py --device cuda --widths 256 512 1024   # where definitions overtake

Forward + backward over a whole sequence, and one acting step, in float32. All candidates of a table
take turns within every round, so that whatever else the machine does hits them alike; medians are
printed with their ratio to ``nn.LSTM``. Wall time counts what a user waits; CPU time (of all
threads) says more on a machine that others use too.

On the CPU, ``nn.LSTM`` runs in a process of its own, with OpenMP as torch sets it up by default:
relagent's setting (threads sleep while they wait) slows its many small parallel steps. On a GPU it
is cuDNN's; nothing is rounded to TF32, and the clock stops when the GPU has finished.
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

from relagent.errors import RelagentError
from relagent.memories import AnyState, Memory, RelLSTM, kernels, make_memory
from relagent.runs.cli import ArgumentParser, count, main_guard

KAPPA = {"nu": 5, "rho": 5}
MEMORIES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {},
    "goru": {},
    "orth-rnn": {},
    "rel": KAPPA,
    "mem": {},
    "rel-rnn": KAPPA,
    "mem-rnn": {},
    "sab": {},
}
FEATURES = 64
PEER = "nn.LSTM"
Call = Callable[[], None]


class Times(NamedTuple):
    """Median seconds of a call."""

    wall: float
    cpu: float


Measure = Callable[[int], Times]
"""Makes so many calls and says what one took."""


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


def peer_call(n: int, steps: int, rows: int, training: bool, device: str) -> Call:
    """Return one pass of nn.LSTM."""
    x = torch.randn(steps, rows, FEATURES, requires_grad=training, device=device)
    lstm = nn.LSTM(FEATURES, n, device=device)
    state = (torch.zeros(1, rows, n, device=device), torch.zeros(1, rows, n, device=device))

    def call() -> None:
        with torch.set_grad_enabled(training):
            y = lstm(x, state)[0]
        if training:
            torch.autograd.backward(y.sum())

    return call


def serve_peer(n: int, steps: int, rows: int, training: bool, threads: int) -> None:
    """Be the peer's process: one pass for every line that comes in."""
    torch.set_num_threads(threads)
    call = peer_call(n, steps, rows, training, "cpu")
    for line in sys.stdin:
        print(*timed(call, int(line)), flush=True)


def finish() -> None:
    """Wait for the GPU, if it is in use: it works on after a call has returned."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(call: Call, repeats: int) -> Times:
    finish()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    finish()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Times(wall / repeats, cpu / repeats)


def by_definition(call: Call) -> None:
    with kernels.disable():
        call()


def having_kernels(n: int, device: str) -> dict[str, Memory[Any]]:
    """Return the memories that there is a kernel for."""
    memories = {
        name: make_memory(name, FEATURES, n, **options).to(device)
        for name, options in MEMORIES.items()
    }
    somewhere = torch.zeros(1, device=device)
    return {
        name: memory
        for name, memory in memories.items()
        if kernels.select(type(memory), somewhere) is not None
    }


def use_kernels_at_any_width() -> None:
    """Have a GPU's kernels run also where the definition is faster."""
    from relagent.memories.kernels import cuda

    cuda.MOST_WEIGHTS.update(dict.fromkeys(cuda.MOST_WEIGHTS, sys.maxsize))


def sequence_calls(n: int, steps: int, rows: int, definition: bool, device: str) -> dict[str, Call]:
    """Return forward + backward of every kernel and, if asked, of its definition."""
    x = torch.randn(steps, rows, FEATURES, requires_grad=True, device=device)
    calls: dict[str, Call] = {}
    for name, memory in having_kernels(n, device).items():
        calls[name] = partial(train, memory, x, memory.initial_state(rows))
        if definition:
            calls[f"{name} (definition)"] = partial(by_definition, calls[name])
    return calls


def step_calls(n: int, rows: int, device: str) -> dict[str, Call]:
    """Return one acting step, 20 steps into an episode."""
    x = torch.randn(21, rows, FEATURES, device=device)
    starts = torch.zeros(1, rows, dtype=torch.bool, device=device)
    calls: dict[str, Call] = {}
    for name, memory in having_kernels(n, device).items():
        with torch.no_grad():
            _, state = memory.unroll(x[1:], memory.initial_state(rows))
        calls[name] = partial(act, memory, x[:1], state, starts)
        calls[f"{name} (definition)"] = partial(by_definition, calls[name])
    return calls


def medians(peer: Measure, calls: dict[str, Call], rounds: int, repeats: int) -> dict[str, Times]:
    """Time each call; in every round all of them take their turn."""
    measures: dict[str, Measure] = {
        PEER: peer,
        **{name: partial(timed, call) for name, call in calls.items()},
    }
    for measure in measures.values():
        measure(1)
    times: dict[str, list[Times]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            times[name].append(measure(repeats))
    if isinstance(peer, Peer):
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


def check_device(device: str) -> None:
    """Refuse a device on which nothing can be timed."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RelagentError(
            "torch finds no GPU here: run it on a machine with one, or without --device"
        )
    if kernels.select(RelLSTM, torch.zeros(1, device=device)) is None:
        if os.environ.get("RELAGENT_KERNELS") == "0":
            raise RelagentError("RELAGENT_KERNELS=0 switches the kernels off: unset it")
        compiler = "triton" if device == "cuda" else "numba"
        raise RelagentError(f"there are no kernels for {device} here: install {compiler}")


def main() -> int:
    """Read the command line and measure."""
    parser = ArgumentParser(description="Time the kernels against nn.LSTM.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument(
        "--widths", type=count, nargs="+", help="only these, by kernels even where they do not pay"
    )
    parser.add_argument("--peer", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        n, steps, rows, training, threads = options.peer
        serve_peer(int(n), int(steps), int(rows), training == "True", int(threads))
        return 0
    device, gpu = options.device, options.device == "cuda"
    check_device(device)
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    where = torch.cuda.get_device_name() if gpu else f"{options.threads} threads"
    print(f"relagent {relagent.__version__}, torch {torch.__version__}, {where}")

    def peer(n: int, steps: int, rows: int, training: bool) -> Measure:
        if gpu:
            return partial(timed, peer_call(n, steps, rows, training, device))
        return Peer(n, steps, rows, training, options.threads)

    sizes = [(64, 128, 64), (128, 128, 64), (64, 128, 4), (64, 250, 64)]
    if gpu:
        sizes.append((64, 128, 512))
    if options.widths:
        sizes = [(n, 128, 64) for n in options.widths]
        if gpu:
            use_kernels_at_any_width()
    for n, steps, rows in sizes:
        # On a CPU the definitions take long; MemLSTM's also much memory.
        definition = bool(options.widths) or (rows <= 64 if gpu else rows == 4)
        calls = sequence_calls(n, steps, rows, definition, device)
        title = f"forward + backward, n = {n}, T = {steps}, B = {rows}, ν = ρ = 5"
        result = medians(peer(n, steps, rows, True), calls, options.rounds, repeats=3)
        show(title, result)
    if not options.widths:
        title = "one acting step, n = 64, B = 64, ν = ρ = 5"
        show(title, medians(peer(64, 1, 64, False), step_calls(64, 64, device), 30, 10))
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
