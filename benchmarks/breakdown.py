"""Where the time of training goes: environment, encoder, memory, heads, optimiser, rest.

    python benchmarks/breakdown.py --env MiniGrid-DoorKey-5x5-v0 --memory rel
    python benchmarks/breakdown.py --threads 2

CPU time of this process, so that other processes matter little. The backward pass is divided by
when gradients arrive: at the memory's outputs the heads are done, at its inputs the memory.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import relagent  # noqa: F401  # isort: skip  # first: it tells OpenMP not to spin
from stable_baselines3.common.logger import Logger

from relagent.rl import MemoryPPO
from relagent.rl.train import TrainConfig, make_model
from relagent.runs.cli import ArgumentParser, count, main_guard
from relagent.runs.machine import machine_words

STAGES = ("environment", "encoder", "memory", "heads", "optimiser", "rest")


class Clock:
    """CPU seconds by phase (acting, learning) and stage."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.phase = "acting"
        self._in: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is done inside; what is nested inside that counts for the outermost."""
        if self._in is not None:
            yield
            return
        self._in, begun = name, time.process_time()
        try:
            yield
        finally:
            self.seconds[self.phase, name] += time.process_time() - begun
            self._in = None

    @contextmanager
    def whole(self, phase: str) -> Iterator[None]:
        """Count a phase; what no stage claims is the rest."""
        self.phase, begun = phase, time.process_time()
        before = self._claimed(phase)
        yield
        took = time.process_time() - begun
        self.seconds[phase, "rest"] += took - (self._claimed(phase) - before)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, counted as a stage."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return call

    def _claimed(self, phase: str) -> float:
        return sum(self.seconds[phase, name] for name in STAGES[:-1])


class Backward:
    """Divides the backward pass between heads, memory and encoder."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.now = "heads"
        self.since = 0.0

    def begin(self) -> None:
        """Call right before it."""
        self.now, self.since = "heads", time.process_time()

    def then(self, following: str) -> None:
        """Call when a gradient arrives where ``following`` begins, and at the end."""
        now = time.process_time()
        self.clock.seconds[self.clock.phase, self.now] += now - self.since
        self.now, self.since = following, now


@contextmanager
def watched(model: MemoryPPO, clock: Clock) -> Iterator[None]:
    """Let the clock look on."""
    policy: Any = model.policy
    environment: Any = model.env
    backward = Backward(clock)
    kind: Any = type(policy.memory)
    unroll, loss_of = kind.unroll, model._loss

    def watched_unroll(memory: Any, x: Any, *others: Any) -> Any:
        if x.requires_grad:
            x.register_hook(lambda _: backward.then("encoder"))
        with clock.stage("memory"):
            outputs, state = unroll(memory, x, *others)
        if outputs.requires_grad:
            outputs.register_hook(lambda _: backward.then("memory"))
        return outputs, state

    def watched_loss(*arguments: Any) -> Any:
        loss: Any
        loss, statistics = loss_of(*arguments)
        run = loss.backward

        def watched_backward() -> None:
            backward.begin()
            run()
            backward.then("heads")

        loss.backward = watched_backward
        return loss, statistics

    environment.step = clock.timed("environment", environment.step)
    policy.encode = clock.timed("encoder", policy.encode)
    policy.distribution = clock.timed("heads", policy.distribution)
    policy.values = clock.timed("heads", policy.values)
    policy.optimizer.step = clock.timed("optimiser", policy.optimizer.step)
    setattr(model, "_loss", watched_loss)  # noqa: B010  # it is a method
    for name, phase in (("collect_rollouts", "acting"), ("train", "learning")):
        setattr(model, name, _phase(clock, phase, getattr(model, name)))
    # Of the class: what was replaced on a memory itself is not computed by a kernel.
    kind.unroll = watched_unroll
    try:
        yield
    finally:
        kind.unroll = unroll


def _phase(clock: Clock, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        with clock.whole(phase):
            return function(*arguments, **options)

    return call


def main() -> int:
    """Read the command line, train and print where its time went."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="MiniGrid-DoorKey-5x5-v0")
    parser.add_argument("--memory", default="rel")
    parser.add_argument("--threads", type=count, default=1)
    parser.add_argument("--updates", type=count, default=10)
    arguments = parser.parse_args()

    config = TrainConfig(
        env=arguments.env, memory=arguments.memory, device="cpu", threads=arguments.threads
    )
    model, _ = make_model(config)
    model.set_logger(Logger(None, []))
    per_update = model.n_steps * model.n_envs
    model.learn(3 * per_update)
    clock = Clock()
    with watched(model, clock):
        model.learn(arguments.updates * per_update, reset_num_timesteps=False)

    steps = arguments.updates * per_update
    each = {key: seconds / steps * 1e6 for key, seconds in clock.seconds.items()}
    whole = sum(each.values())
    print(
        f"{config.env}, {config.memory}, {arguments.threads} threads, {steps:,} steps: "
        f"{1e6 / whole:,.0f} steps a CPU second, {machine_words()}\n"
    )
    print("| CPU µs a step | acting | learning | both | share |")
    print("|---|---:|---:|---:|---:|")
    for stage in (*STAGES, "all"):
        acting, learning = (
            sum(each.get((phase, name), 0.0) for name in STAGES if stage in (name, "all"))
            for phase in ("acting", "learning")
        )
        both = acting + learning
        print(f"| {stage} | {acting:.1f} | {learning:.1f} | {both:.1f} | {both / whole:.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
