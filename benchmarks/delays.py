"""How long a delay each memory learns to bridge by reinforcement, and in how many steps.

    python benchmarks/delays.py                          # 36 runs, about an hour on one core
    python benchmarks/delays.py --memories rel exp-rnn --seeds 1 --output delays

In the worlds ``relagent/Cue50-v0``, ... a cue is asked for so many steps later, and nothing else is
asked. Agents are trained as by ``train_rl.py``, but with rollouts of 256 steps, so that a gradient
can reach from the answer to the cue, and with a step size that falls to 0.

Each run is an ordinary run directory under ``runs/delays``, or what ``--output`` is called; what
was interrupted goes on where it was, and what is in ``<output>.json`` already is not run again.
Results go to ``<output>.json`` (curves, settings and versions of every run), ``<output>.md`` and
``<output>.png``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path
from statistics import median
from typing import Any

import relagent  # noqa: F401  # isort: skip  # first: it tells OpenMP not to spin
from matplotlib.figure import Figure

from relagent.analysis.episode import play_episode
from relagent.analysis.measures import gradient_paths
from relagent.envs.cue import DELAYS
from relagent.errors import RelagentError
from relagent.memories import MEMORIES
from relagent.picture import COLOURS, png
from relagent.rl.train import TrainConfig, make_model, resume, train
from relagent.runs.cli import ArgumentParser, GracefulStop, count, main_guard
from relagent.runs.config import flag_of, to_json
from relagent.runs.directory import RunDirectory
from relagent.runs.files import read_or_empty, write_atomically
from relagent.study.draw import legend, tidy
from relagent.study.work import train_from_wherever, training_provenance
from relagent.table import NOTHING, markdown

LEARNED = 0.9
"""Mean reward of the last 100 training episodes; guessing has 0.5."""

Record = dict[str, Any]


def settings(delay: int, memory: str, seed: int, **options: Any) -> TrainConfig:
    return TrainConfig(
        env=f"relagent/Cue{delay}-v0",
        memory=memory,
        seed=seed,
        n_steps=256,
        learning_rate_end=0.0,
        device="cpu",
        **options,
    )


def measure(config: TrainConfig, path: Path, stop: Callable[[], bool]) -> Record | None:
    """Train, or go on; return what is to be known of the run, ``None`` where it was stopped."""

    def go_on(step: int) -> bool:
        return step >= config.steps or resume(path, stop=stop)

    if (path / "config.json").is_file():
        made = RunDirectory.open(path).read_config(TrainConfig)
        if replace(made, device=config.device) != config:
            raise RelagentError(f"{path} was made with other settings: choose another --runs")
    if not train_from_wherever(path, lambda: train(config, path, stop), go_on):
        return None
    run = RunDirectory.open(path)
    rows = [row for row in run.read_metrics() if "rollout/ep_rew_mean" in row]
    return {
        "config": to_json(config),
        "first_gradient": first_gradient(config),
        "steps": [row["step"] for row in rows],
        "reward": [round(row["rollout/ep_rew_mean"], 4) for row in rows],
        "provenance": training_provenance(path),
    }


def first_gradient(config: TrainConfig) -> float:
    """‖∇ log π(answer)‖ at the hidden state that saw the cue, before the first update."""
    model, worlds = make_model(replace(config, n_envs=1))
    episode = play_episode(model.policy, config.env, 0)
    worlds.close()
    paths = gradient_paths(episode.policy.memory, episode.features, episode.last_choice)
    return float(f"{paths.total[0, 0]:.3g}")


def learned_at(record: Record) -> int | None:
    """Environment steps until the agent had learned, ``None`` where it did not."""
    reached = zip(record["steps"], record["reward"], strict=True)
    return next((step for step, reward in reached if reward >= LEARNED), None)


def table(records: Sequence[Record], cell: Callable[[Sequence[Record]], str]) -> str:
    """Worlds down, memories across; a cell is of the seeds of one memory in one world."""
    memories, worlds = _names(records, "memory"), _names(records, "env")
    rows = [
        [world, *(cell(_of(records, world, memory)) for memory in memories)] for world in worlds
    ]
    return markdown(["world", *memories], rows)


def steps_of(runs: Sequence[Record]) -> str:
    """Steps until learned: the median over seeds, and how many of them learned at all."""
    steps = sorted(step for run in runs if (step := learned_at(run)) is not None)
    # Of an even number, the later of the two in the middle: a run that did not learn is later
    # than all.
    middle = f"{steps[len(runs) // 2]:,}" if len(steps) > len(runs) // 2 else NOTHING
    return f"{middle} ({len(steps)} of {len(runs)})"


def gradient_of(runs: Sequence[Record]) -> str:
    """The first gradient: the median over seeds."""
    return f"{median(run['first_gradient'] for run in runs):.2g}"


def figure(records: Sequence[Record]) -> bytes:
    """Draw the reward against the steps: the median over seeds, and every seed thinly."""
    memories, worlds = _names(records, "memory"), _names(records, "env")
    drawn = Figure(figsize=(1 + 3.6 * len(worlds), 3.6), layout="constrained")
    panels = drawn.subplots(1, len(worlds), sharey=True, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for axes, world in zip(panels, worlds, strict=True):
        for memory, colour in zip(memories, cycle(COLOURS), strict=False):
            runs = _of(records, world, memory)
            for run in runs:
                axes.plot(run["steps"], run["reward"], color=colour, alpha=0.25, linewidth=0.8)
            if runs:
                rewards = zip(*(run["reward"] for run in runs), strict=True)
                (handles[memory],) = axes.plot(
                    runs[0]["steps"], list(map(median, rewards)), color=colour, linewidth=2
                )
        axes.axhline(0.5, color="0.6", linestyle=":", linewidth=1)
        axes.set_title(world)
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:,.0f}k" if steps else "0")
        tidy(axes)
    panels[0].set_ylabel("mean reward of the last 100 episodes")
    legend(drawn, handles)
    return png(drawn)


def page(records: Sequence[Record], picture: str, command: str) -> str:
    some = records[0]
    made = some["provenance"]
    versions = ", ".join(
        f"{name} {made['training']['versions'][name]}" for name in ("python", "torch", "gymnasium")
    )
    return (
        f"# Environment steps until a delay is bridged\n\n![learning curves]({picture})\n\n"
        f"Steps until the mean reward of the last 100 training episodes is {LEARNED} (guessing has "
        "0.5): the median over seeds (of an even number the later of the middle two), and how "
        "many of them came that far within "
        f"{some['config']['steps']:,} steps. Thick lines: the median of the rewards.\n\n"
        f"{table(records, steps_of)}\n"
        "Before the first update, the norm of the gradient of the answer's log-probability at the "
        "hidden state that saw the cue, the median over seeds:\n\n"
        f"{table(records, gradient_of)}\n"
        f"`{command}`; {versions}, on {made['machine']['processor']}. Settings "
        "and versions of every run are in the JSON file beside this page.\n"
    )


def _names(records: Sequence[Record], setting: str) -> list[str]:
    return list(dict.fromkeys(record["config"][setting] for record in records))


def _of(records: Sequence[Record], world: str, memory: str) -> list[Record]:
    return [
        record
        for record in records
        if (record["config"]["env"], record["config"]["memory"]) == (world, memory)
    ]


def main() -> int:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delays", type=int, nargs="+", choices=DELAYS, default=[50, 100, 200])
    parser.add_argument(
        "--memories", nargs="+", choices=MEMORIES, default=["rel", "mem", "lstm", "gru"]
    )
    parser.add_argument("--seeds", type=count, default=3)
    parser.add_argument("--steps", type=count, default=400_000)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--runs", type=Path, help="default: runs/ and the output's name")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/delays"))
    options: argparse.Namespace = parser.parse_args()

    folder = options.runs or Path("runs") / options.output.name
    kept = Path(f"{options.output}.json")
    runs: dict[str, Record] = read_or_empty(kept).get("runs", {})
    if kept.exists() and not runs:
        raise RelagentError(f"{kept} holds no runs: remove it, or choose another --output")
    records: list[Record] = []
    with GracefulStop() as stop:
        for delay, memory, seed in product(options.delays, options.memories, range(options.seeds)):
            name = f"{delay}-{memory}-s{seed}"
            config = settings(
                delay, memory, seed, steps=options.steps, learning_rate=options.learning_rate
            )
            if name in runs and runs[name].get("config") != to_json(config):
                raise RelagentError(
                    f"{kept} holds {name} of other settings: choose another --output"
                )
            if name not in runs:
                record = measure(config, folder / name, lambda: stop.requested)
                if record is None:
                    return stop.exit_code
                runs[name] = record
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(kept, _plain(runs))
            records.append(runs[name])
    picture = Path(f"{options.output}.png")
    write_atomically(picture, figure(records))
    text = page(records, picture.name, _command(parser, options))
    write_atomically(Path(f"{options.output}.md"), text.encode())
    print(table(records, steps_of))
    return 0


def _command(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """The command that measures the same, whatever folder it was done in."""
    words = ["python benchmarks/delays.py"]
    for name, value in vars(options).items():
        if name != "runs" and value != parser.get_default(name):
            values = value if isinstance(value, list) else [value]
            words.append(f"{flag_of(name)} {' '.join(map(str, values))}")
    return " ".join(words)


def _plain(runs: Mapping[str, Record]) -> bytes:
    lines = (f"{json.dumps(name)}: {json.dumps(run)}" for name, run in sorted(runs.items()))
    return ('{"runs": {\n' + ",\n".join(lines) + "\n}}\n").encode()


if __name__ == "__main__":
    sys.exit(main_guard(main))
