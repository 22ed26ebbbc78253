"""Whether kernels learn as the definitions do: environment steps until a world is solved.

    python benchmarks/learning.py                        # DoorKey-5x5, rel, three seeds each

Trains with ``train_rl.py``'s defaults until the mean reward of the last 100 episodes reaches
``--solved``, and prints the environment steps that took. Rounding differs between the two ways, and
soon so do the episodes: compare the numbers over seeds, not seed by seed.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from contextlib import nullcontext

import relagent  # noqa: F401  # isort: skip  # first: it tells OpenMP not to spin
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from relagent.memories import kernels
from relagent.rl.train import TrainConfig, make_model
from relagent.runs.cli import ArgumentParser, count, main_guard
from relagent.runs.machine import machine_words


class Solved(BaseCallback):
    """Stops at the first update whose recent episodes are good enough."""

    def __init__(self, reward: float) -> None:
        super().__init__()
        self.reward = reward
        self.steps: int | None = None

    def _on_step(self) -> bool:
        return self.steps is None

    def _on_rollout_end(self) -> None:
        episodes = self.model.ep_info_buffer
        if not episodes or len(episodes) < (episodes.maxlen or 0):
            return
        if statistics.fmean(episode["r"] for episode in episodes) >= self.reward:
            self.steps = self.num_timesteps


def steps_to_solve(config: TrainConfig, reward: float, definition: bool) -> int | None:
    """Train; return the steps, ``None`` where ``config.steps`` were not enough."""
    with kernels.disable() if definition else nullcontext():
        model, worlds = make_model(config)
        model.set_logger(Logger(None, []))
        solved = Solved(reward)
        model.learn(config.steps, solved)
        worlds.close()
    return solved.steps


def main() -> int:
    """Read the command line, train and print the table."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="MiniGrid-DoorKey-5x5-v0")
    parser.add_argument("--memory", default="rel")
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--steps", type=count, default=1_000_000, help="at most")
    parser.add_argument("--solved", type=float, default=0.95)
    arguments = parser.parse_args()

    print(f"{arguments.env}, {arguments.memory}: steps to a mean reward of {arguments.solved}")
    print(f"{machine_words()}\n")
    print("| seed | kernels | definition |")
    print("|---:|---:|---:|")
    columns: tuple[list[float], list[float]] = ([], [])
    for seed in range(arguments.seeds):
        cells = []
        for definition, column in enumerate(columns):
            config = TrainConfig(
                env=arguments.env,
                memory=arguments.memory,
                seed=seed,
                steps=arguments.steps,
                device="cpu",
            )
            begin = time.perf_counter()
            steps = steps_to_solve(config, arguments.solved, bool(definition))
            seconds = time.perf_counter() - begin
            column.append(math.inf if steps is None else steps)
            cells.append(f"{steps:,} ({seconds:.0f} s)" if steps else "not solved")
        print(f"| {seed} | {cells[0]} | {cells[1]} |", flush=True)
    medians = [
        f"{middle:,.0f}" if math.isfinite(middle := statistics.median(column)) else "-"
        for column in columns
    ]
    print(f"| median | {medians[0]} | {medians[1]} |")
    return 0


if __name__ == "__main__":
    sys.exit(main_guard(main))
