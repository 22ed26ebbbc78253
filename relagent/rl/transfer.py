"""Score trained runs, unchanged, on the world they know and on larger ones.

Runs that differ only in their seed make one row of the table. How episodes are played is in
:mod:`relagent.rl.play`, what becomes of the scores in :mod:`relagent.rl.report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from relagent.envs import (
    canonical_id,
    episode_limit,
    evaluation_seeds,
    ladder_of,
    make_env,
    pair_of,
    python_backend,
)
from relagent.errors import RelagentError
from relagent.rl.checkpoint import LoadedPolicy, load_policy
from relagent.rl.encoder import is_grid_space
from relagent.rl.episodes import MAX_STEPS, Job, Result
from relagent.rl.play import Episodes, Precision, check_world, play_all
from relagent.rl.report import Report, Row
from relagent.rl.train import TrainConfig
from relagent.runs.config import Config, ConfigError, check_folder, option, to_json
from relagent.runs.device import computing_device
from relagent.runs.files import output_folder
from relagent.runs.machine import available_cores
from relagent.runs.provenance import provenance


class TransferError(RelagentError):
    """Runs that cannot be reported together as asked."""


@dataclass(frozen=True)
class TransferConfig(Config):
    """How trained agents are scored."""

    episodes: int = option(
        1000, "Episodes in each world, once with sampled and once with greedy actions."
    )
    ladder: bool = option(False, "Play every size of the world's family.")
    worlds: tuple[str, ...] = option(
        (), "Play this world too (repeatable).", flag="--env", repeat=True
    )
    max_steps: int = option(
        MAX_STEPS, "Where an episode is cut off in a world without a time limit of its own."
    )
    workers: int | None = option(None, "Processes; none takes one for each core.")
    out: str | None = option(
        None,
        "Folder of the report; one that is there is replaced. None takes RUN/transfer (or "
        "transfer-2 and so on, where there is a report already) of the one run.",
    )
    device: str = option("cpu", "Where the agent computes: auto, cpu or cuda.")
    precision: Precision = option(
        "float64",
        "Number format of the agent; float32 is faster for mem in long episodes, but then "
        "the number of processes can change an action by rounding.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("episodes", "max_steps", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(name, value, "it must be at least 1")
        check_folder("out", self.out)
        evaluation_seeds(self.episodes)  # there are no more
        computing_device(self.device)


@dataclass
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        settings: what they share.
        runs: the runs by seed.
        label: the memory's name, with whatever else tells the group from the others.
    """

    settings: dict[str, Any]
    runs: dict[int, tuple[Path, LoadedPolicy]] = field(default_factory=dict)
    label: str = ""

    @property
    def config(self) -> TrainConfig:
        """The settings of the first run."""
        return next(iter(self.runs.values()))[1].config


def evaluate(
    runs: Sequence[Path], config: TransferConfig, progress: Console | None = None
) -> tuple[Report, Path]:
    """Play all runs in all their worlds and write the report.

    Args:
        runs: run directories.
        config: how.
        progress: where a progress bar goes.

    Returns:
        The report and the folder that it was written to.

    Raises:
        TransferError: a run given twice, or several runs and no folder for their report.
        WorldMismatchError, UnknownEnvironmentError: a world that an agent cannot act in.
        WriteError: the folder cannot be written to; found out before anything is played.
        RelagentError: a run that cannot be loaded.
    """
    groups = group_runs(runs)
    folder = _folder(runs, config)
    with output_folder(folder):
        report = _score(groups, config, progress)
        report.write(folder)
    return report, folder


def _score(groups: Sequence[Group], config: TransferConfig, progress: Console | None) -> Report:
    """Play all runs in all their worlds."""
    notes: list[str] = []
    places = [(group, world) for group in groups for world in worlds_of(group, config, notes)]
    for group, world in places:
        for _, loaded in group.runs.values():
            check_world(loaded.policy, world)
    endless = [
        world for world in dict.fromkeys(world for _, world in places) if not _has_time_limit(world)
    ]
    notes += [
        f"{world} has no time limit: episodes are cut off after {config.max_steps:,} steps; choose "
        "otherwise with --max-steps."
        for world in endless
    ]
    if config.max_steps != MAX_STEPS and not endless:
        notes.append("--max-steps changed nothing: every world here has a time limit of its own.")

    jobs = [
        Job(loaded.policy, world, config.episodes, deterministic, config.max_steps)
        for group, world in places
        for deterministic in (False, True)
        for _, loaded in group.runs.values()
    ]
    played = iter(_play(jobs, config, progress))
    rows = []
    for group, world in places:
        for actions in ("sampled", "greedy"):
            episodes = {seed: next(played) for seed in group.runs}
            rows.append(_row(group, world, actions, episodes))
    return Report(
        rows=tuple(rows),
        notes=tuple(dict.fromkeys(notes)),  # groups in one world lack the same
        # Neither the folder nor the number of processes has any part in the scores.
        config={k: v for k, v in to_json(config).items() if k not in ("out", "workers")},
        provenance=provenance(
            device=str(computing_device(config.device)),
            backend=", ".join(dict.fromkeys(row.played_on for row in rows)),
        ),
        runs=tuple(
            {
                "run": path.resolve().name,
                "checkpoint": loaded.checkpoint.name,
                "steps": loaded.steps,
                "backend": loaded.backend,
                "config": to_json(loaded.config),
            }
            for group in groups
            for path, loaded in group.runs.values()
        ),
    )


# What may differ between runs of one row: it does not change what is learned, or it is compared
# by what came of it (the steps really trained, the backend really used). Where the step size is
# annealed, the steps that were planned count as well.
_IGNORED = ("seed", "steps", "backend", "device", "threads")


def group_runs(paths: Sequence[Path]) -> list[Group]:
    """Load runs and put together those that differ only in their seed.

    Raises:
        TransferError: two runs of the same settings and seed.
        RelagentError: a run that cannot be loaded.
    """
    groups: list[Group] = []
    for path in paths:
        loaded = load_policy(path)
        settings = {k: v for k, v in to_json(loaded.config).items() if k not in _IGNORED}
        settings |= {
            "env": canonical_id(loaded.config.env),
            "steps": loaded.steps,
            "backend": loaded.backend,
        }
        if loaded.config.learning_rate_end is not None:  # at these steps it had got that far
            settings["annealed_over"] = loaded.config.steps
        group = next((g for g in groups if g.settings == settings), None)
        if group is None:
            group = Group(settings)
            groups.append(group)
        seed = loaded.config.seed
        if seed in group.runs:
            raise TransferError(
                f"{path} and {group.runs[seed][0]} have the same settings and the same seed "
                f"{seed}: give each run once"
            )
        group.runs[seed] = path, loaded
    for group in groups:
        group.runs = dict(sorted(group.runs.items()))
        group.label = _label(group, groups)
    return groups


def _label(group: Group, groups: Sequence[Group]) -> str:
    """``rel``, or ``rel nu=10`` beside another group of rel."""
    env, memory = group.settings["env"], group.settings["memory"]
    rivals = [
        other.settings
        for other in groups
        if other.settings["env"] == env and other.settings["memory"] == memory
    ]
    differing = [
        f"{name}={value}"
        for name, value in group.settings.items()
        # Steps and backends have columns of their own.
        if name not in ("steps", "backend") and any(other.get(name) != value for other in rivals)
    ]
    return " ".join([memory, *differing])


def worlds_of(group: Group, config: TransferConfig, notes: list[str]) -> tuple[str, ...]:
    """The worlds that a group is played in, smallest first; ``notes`` is told what is missing."""
    env = group.config.env
    pair, ladder = pair_of(env), ladder_of(env)
    if pair is None:
        worlds = ladder
        if config.ladder and len(ladder) == 1:
            notes.append(f"{env} is of no family with other sizes: --ladder adds none.")
        if not config.worlds:
            notes.append(
                f"{env} has no test world in the paper: it is played alone; name others with --env."
            )
    elif config.ladder:
        worlds = ladder
    else:
        worlds = (env, pair.test_id)
    chosen: dict[str, str] = {}  # each once, in whatever spelling
    for world in (*worlds, *config.worlds):
        # A module must stay: processes that play import it to know its worlds.
        name = canonical_id(world)
        chosen.setdefault(name, name if pair_of(world) is not None else world)
    # Worlds of other families stand behind, in the order in which they were asked for.
    place = {world: number for number, world in enumerate(ladder)}
    return tuple(sorted(chosen.values(), key=lambda world: place.get(world, len(ladder))))


def _has_time_limit(env_id: str) -> bool:
    env = make_env(env_id)
    env.close()
    return episode_limit(env) is not None


def _folder(runs: Sequence[Path], config: TransferConfig) -> Path:
    """The report's folder."""
    if config.out is None and len(runs) != 1:
        raise TransferError("several runs make one report: say with --out where to write it")
    if config.out is not None:
        return Path(config.out)
    folder, number = Path(runs[0]) / "transfer", 1
    while (folder / "transfer.json").exists():
        number += 1
        folder = folder.with_name(f"transfer-{number}")
    return folder


def _play(jobs: Sequence[Job], config: TransferConfig, console: Console | None) -> list[Episodes]:
    """Play all jobs behind a progress bar."""
    workers = config.workers or available_cores()
    if console is not None:
        total = sum(job.episodes for job in jobs)
        console.print(f"playing {total:,} episodes in {workers} processes", highlight=False)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=console is None,
    )
    with bar:
        task = bar.add_task("starting", total=sum(job.episodes for job in jobs))

        def advance(result: Result) -> None:
            job = jobs[result.job]
            actions = "greedy" if job.deterministic else "sampled"
            bar.update(task, advance=1, description=f"{job.env_id} {actions}")

        return play_all(
            jobs,
            workers=workers,
            precision=config.precision,
            device=str(computing_device(config.device)),
            on_result=advance,
        )


def _row(group: Group, world: str, actions: str, episodes: dict[int, Episodes]) -> Row:
    config = group.config
    told = any(e.successes is not None for e in episodes.values())
    # An agent whose episodes were all cut off is silent, and without success, where others speak.
    silent = np.zeros(next(iter(episodes.values())).rewards.shape, dtype=bool)
    successes = [silent if e.successes is None else e.successes for e in episodes.values()]
    return Row(
        train=group.settings["env"],
        world=world,
        memory=group.label,
        actions=actions,
        paper=paper_number(config.env, world, config.memory),
        seeds=tuple(episodes),
        steps=group.settings["steps"],
        trained_on=group.settings["backend"],
        played_on=python_backend(_plays_grids(group)),
        rewards=np.stack([e.rewards for e in episodes.values()]),
        lengths=np.stack([e.lengths for e in episodes.values()]),
        successes=np.stack(successes) if told else None,
    )


def paper_number(train: str, world: str, memory: str) -> float | None:
    """Average reward in Table 4 of Kerg et al. (2020), where it has this training and world."""
    pair = pair_of(train)
    if pair is None or canonical_id(train) != pair.train_id or memory not in pair.paper:
        return None
    on_train, on_test = pair.paper[memory]
    return {pair.train_id: on_train, pair.test_id: on_test}.get(canonical_id(world))


def _plays_grids(group: Group) -> bool:
    _, loaded = next(iter(group.runs.values()))
    return is_grid_space(loaded.policy.observation_space)
