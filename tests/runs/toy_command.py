"""A training command in small: what a real one does with settings, run folder and signals."""

import sys
import time
from dataclasses import dataclass

import torch

from relagent.runs.cli import ArgumentParser, GracefulStop, main_guard
from relagent.runs.config import (
    Config,
    ConfigError,
    add_arguments,
    from_arguments,
    given_arguments,
    option,
)
from relagent.runs.directory import RunDirectory
from relagent.runs.packing import pack, unpack
from relagent.runs.provenance import provenance
from relagent.runs.random_states import random_states, restore_random_states, seed_everything
from relagent.runs.resuming import config_for_resume


@dataclass(frozen=True)
class ToyConfig(Config):
    steps: int = option(50, "Steps.")
    seed: int = option(0, "Seed.")
    pause: float = option(0.0, "Seconds that a step takes.", role="machine")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ConfigError("steps", self.steps, "it must be at least 1")


def main() -> int:
    parser = ArgumentParser(prog="toy")
    parser.add_argument("--run-dir", default="toy-run")
    parser.add_argument("--resume")
    add_arguments(parser, ToyConfig)
    arguments = parser.parse_args()
    if arguments.resume:
        run = RunDirectory.open_for_resume(arguments.resume)
        given = given_arguments(ToyConfig, arguments)
        config = config_for_resume(run.read_config(ToyConfig), given)
    else:
        config = from_arguments(ToyConfig, arguments)
        run = RunDirectory.create(arguments.run_dir, config, provenance())

    seed_everything(config.seed)
    # Gradient descent with momentum, by hand: torch.optim takes seconds to import.
    weight = torch.randn(4)
    velocity = torch.zeros(4)
    step = 0
    if arguments.resume:
        found = run.load_checkpoint()
        for line in found.skipped:
            print(f"warning: {line}", file=sys.stderr)
        state = unpack(found.tensors, found.data)
        weight, velocity = state["weight"], state["velocity"]
        restore_random_states(state["random"])
        step = found.step
        run.rewind(step, provenance())

    with run, GracefulStop() as stop:
        while step < config.steps and not stop.requested:
            x = torch.randn(8, 4)
            error = x @ weight
            velocity = 0.9 * velocity - 0.01 * (x.T @ error)
            weight = weight + velocity
            step += 1
            run.log_metrics(step, {"loss": error.square().mean()})
            if step % 10 == 0 or step == config.steps:
                state = {
                    "weight": weight,
                    "velocity": velocity,
                    "random": random_states(),
                }
                run.save_checkpoint(step, *pack(state))
            time.sleep(config.pause)
    if stop.requested:
        print(f"go on with: toy --resume {run.path}")
    return stop.exit_code


if __name__ == "__main__":
    sys.exit(main_guard(main))
