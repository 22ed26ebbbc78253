"""Time and peak memory of one forward + backward pass over ever longer sequences.

    python benchmarks/memory_scaling.py                  # T = 100 ... 8000, tens of minutes
    python benchmarks/memory_scaling.py --steps 100 200 400 --output results/scaling

Every point is a process of its own, so that its peak is its own: the resident set after the pass,
at its highest, minus the highest before it. n = 128, batch 16, float32; the time is the best
of up to five passes, as many as begin within five seconds, after one of ten steps that compiles.
Results go to ``<output>.csv``, ``<output>.md`` and
``<output>.png`` (log-log, with the slopes of linear and quadratic growth).

``sab-like`` is a recurrent network that attends to the top k of all its earlier states, as Sparse
Attentive Backtracking does (Ke et al. 2018): scores of all states, weights for k. ``attention`` is
causal ``nn.MultiheadAttention`` with 4 heads over the whole sequence.
"""

from __future__ import annotations

import relagent  # isort: skip  # first: it tells OpenMP not to spin

import csv
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numba
import torch
from torch import Tensor, nn

from relagent.errors import RelagentError
from relagent.memories import make_memory
from relagent.runs.cli import ArgumentParser, count, main_guard
from relagent.runs.machine import machine, peak_resident

FEATURES, SIZE, BATCH = 64, 128, 16
STEPS = (100, 200, 400, 800, 1600, 3200, 8000)
TOP_K = 10
HEADS = 4


class Point(NamedTuple):
    """One measurement."""

    system: str
    steps: int
    seconds: float
    megabytes: float


class SabLike(nn.Module):
    """LSTM cell + additive attention to the TOP_K best-scored of all earlier states."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES, SIZE)
        self.query = nn.Linear(SIZE, SIZE, bias=False)
        self.key = nn.Linear(SIZE, SIZE, bias=False)
        self.energy = nn.Parameter(torch.randn(SIZE) / SIZE**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, F] -> [T, B, H]."""
        h = c = x.new_zeros(x.shape[1], SIZE)
        states: list[Tensor] = []
        keys: list[Tensor] = []
        outputs = []
        for x_t in x:
            h, c = self.cell(x_t, (h, c))
            states.append(h)
            keys.append(self.key(h))
            energies = torch.tanh(self.query(h) + torch.stack(keys)) @ self.energy
            best = energies.topk(min(TOP_K, len(states)), dim=0)
            weights = best.values.softmax(dim=0).unsqueeze(2)
            chosen = torch.stack(states).gather(0, best.indices.unsqueeze(2).expand(-1, -1, SIZE))
            h = h + (weights * chosen).sum(dim=0)
            outputs.append(h)
        return torch.stack(outputs)


class CausalAttention(nn.Module):
    """A linear layer in front of causal multi-head self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Linear(FEATURES, SIZE)
        self.attention = nn.MultiheadAttention(SIZE, HEADS)

    def forward(self, x: Tensor) -> Tensor:
        """[T, B, F] -> [T, B, H]."""
        embedded = self.input(x)
        mask = nn.Transformer.generate_square_subsequent_mask(len(x))
        output: Tensor = self.attention(
            embedded, embedded, embedded, attn_mask=mask, is_causal=True, need_weights=False
        )[0]
        return output


def _memory(name: str) -> Callable[[Tensor], Tensor]:
    memory = make_memory(name, FEATURES, SIZE)
    state = memory.initial_state(BATCH)
    return lambda x: memory.unroll(x, state)[0]


SYSTEMS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "lstm": lambda: _memory("lstm"),
    "rel": lambda: _memory("rel"),
    "mem": lambda: _memory("mem"),
    "sab-like": SabLike,
    "attention": CausalAttention,
}


def measure(system: str, steps: int, seconds: float) -> Point:
    """Measure in this process."""
    forward = SYSTEMS[system]()

    def once(length: int) -> float:
        x = torch.randn(length, BATCH, FEATURES)
        begin = time.perf_counter()
        torch.autograd.backward(forward(x).square().mean())
        return time.perf_counter() - begin

    once(10)  # compiles, starts threads, loads libraries
    before = peak_resident()
    times = [once(steps)]
    megabytes = (peak_resident() - before) / 1e6
    while sum(times) < seconds and len(times) < 5:
        times.append(once(steps))
    return Point(system, steps, min(times), megabytes)


OUT_OF_MEMORY = ("not enough memory", "out of memory", "allocate memory", "bad_alloc")
"""What the last line of an error says where memory ran out."""


def in_a_process(system: str, steps: int, limit: float, gigabytes: float) -> Point | None:
    """Measure in a fresh process; ``None`` where it ran out of time or memory.

    Raises:
        RelagentError: it failed for another reason.
    """
    command = [sys.executable, __file__, "--point", system, str(steps)]
    command += ["--gigabytes", str(gigabytes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        print(f"{system:12}{steps:8}  left out: more than {limit:g} s", flush=True)
        return None
    except subprocess.CalledProcessError as error:
        *_, last = error.stderr.splitlines() or [""]
        if error.returncode > 0 and not any(words in last for words in OUT_OF_MEMORY):
            raise RelagentError(f"{system} at T = {steps} failed: {last}") from error
        print(f"{system:12}{steps:8}  left out: no more than {gigabytes:g} GB", flush=True)
        return None
    return Point(*json.loads(done.stdout.splitlines()[-1]))


def plot(points: list[Point], path: Path) -> None:
    """Draw time and memory over T, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, field, label in (
        (axes[0], "seconds", "forward + backward (s)"),
        (axes[1], "megabytes", "peak memory of the pass (MB)"),
    ):
        for system in SYSTEMS:
            mine = [point for point in points if point.system == system]
            if not mine:
                continue
            axis.loglog(
                [point.steps for point in mine],
                [max(getattr(point, field), 1e-3) for point in mine],
                marker="o",
                label=system,
            )
        low = min(point.steps for point in points)
        high = max(point.steps for point in points)
        floor = min(max(getattr(point, field), 1e-3) for point in points)
        for power, style in ((1, ":"), (2, "--")):
            axis.loglog(
                [low, high],
                [floor, floor * (high / low) ** power],
                style,
                color="gray",
                label=f"slope {power}",
            )
        axis.set(xlabel="T (steps)", ylabel=label)
        axis.grid(alpha=0.3, which="both")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"n = {SIZE}, batch {BATCH}, {torch.get_num_threads()} CPU threads")
    figure.savefig(path, dpi=150)


NOISE = 1.1
"""Two systems are alike where neither takes more than this times the other."""


def clearly_less(points: list[Point], field: str) -> int | None:
    """Return the first T from which rel takes less than mem / ``NOISE`` at every measured one.

    ``None`` where it does not at the last.
    """
    taken = {
        name: {p.steps: getattr(p, field) for p in points if p.system == name}
        for name in ("rel", "mem")
    }
    first = None
    for T in sorted(taken["rel"].keys() & taken["mem"].keys(), reverse=True):
        if taken["rel"][T] * NOISE >= taken["mem"][T]:
            break
        first = T
    return first


def write_table(points: list[Point], path: Path) -> None:
    """Write the measurements as a page: a table, where rel takes less, and what they ran on."""
    systems = [name for name in SYSTEMS if any(point.system == name for point in points)]
    found = {(point.system, point.steps): point for point in points}
    lines = [
        f"# One pass over T steps: n = {SIZE}, batch {BATCH}, float32",
        "",
        f"![time and memory over T]({path.with_suffix('.png').name})",
        "",
        "Forward + backward: seconds / peak memory in MB; blank where time or memory ran out.",
        "",
        "| T | " + " | ".join(systems) + " |",
        "|---:|" + "---:|" * len(systems),
    ]
    for T in sorted({point.steps for point in points}):
        cells = [
            f"{found[name, T].seconds:.3g} / {found[name, T].megabytes:,.0f}"
            if (name, T) in found
            else ""
            for name in systems
        ]
        lines.append(f"| {T} | " + " | ".join(cells) + " |")
    lines.append("")
    both = [T for T in sorted({p.steps for p in points}) if {("rel", T), ("mem", T)} <= set(found)]
    for field, word in (("seconds", "time"), ("megabytes", "memory")) if both else ():
        at = clearly_less(points, field)
        if at is None:
            lines.append(
                f"rel takes no less {word} than mem, to within a tenth, at T = {both[-1]:,}."
            )
        else:
            where = "at every measured T" if at == both[0] else f"from T = {at:,} on"
            lines.append(f"rel takes less {word} than mem, by more than a tenth, {where}.")
    made = machine()
    lines += [
        "",
        f"`python benchmarks/memory_scaling.py {' '.join(sys.argv[1:])}`; relagent "
        f"{relagent.__version__}, torch {torch.__version__}, numba {numba.__version__}, "
        f"{torch.get_num_threads()} threads on {made['processor']}, {made['cores']} cores, "
        f"{made['memory_gib']} GiB.",
        "",
    ]
    path.write_text("\n".join(lines))


def main() -> int:
    """Read the command line and measure."""
    parser = ArgumentParser(description="Time and peak memory over sequence length.")
    parser.add_argument("--steps", type=count, nargs="+", default=list(STEPS))
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--output", type=Path, default=Path("memory_scaling"))
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one point")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="memory for one point")
    parser.add_argument("--point", nargs=2, metavar=("SYSTEM", "T"), help="one point, as JSON")
    options = parser.parse_args()
    if options.point:
        bound = int(options.gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))  # fail alone, not with the machine
        print(json.dumps(measure(options.point[0], int(options.point[1]), seconds=5.0)))
        return 0

    points = []
    given_up: set[str] = set()
    print(f"{'system':12}{'T':>8}{'seconds':>12}{'MB':>10}", flush=True)
    for steps in sorted(options.steps):
        for system in options.systems:
            if system in given_up:
                continue
            point = in_a_process(system, steps, options.limit, options.gigabytes)
            if point is None:
                given_up.add(system)
                continue
            points.append(point)
            print(f"{system:12}{steps:8}{point.seconds:12.4f}{point.megabytes:10.1f}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point._fields)
        writer.writerows(points)
    if points:
        plot(points, options.output.with_suffix(".png"))
        write_table(points, options.output.with_suffix(".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
