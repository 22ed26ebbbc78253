"""The cells of Table 4's grid: what each is called, how it is made, and which come first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from relagent.envs import PAIRS, Pair
from relagent.rl.play import Precision
from relagent.rl.train import TrainConfig, read_train_config
from relagent.runs.config import names_of, to_json
from relagent.runs.directory import RunDirectory
from relagent.study.task import Task, TaskError, check_settings
from relagent.study.transfer.protocol import Protocol, protocol_from_json
from relagent.study.transfer.results import read_result

ACTIONS = ("sampled", "greedy")

# What may differ between two tries of one task: where it is computed.
_ANYWHERE = names_of(TrainConfig, "machine")


@dataclass(frozen=True)
class TransferTask(Task):
    """An agent that is trained in one world and played in others.

    Attributes:
        protocol: how it is trained.
        pair: where it is trained and played.
        memory: its memory's name.
        seed: its seed.
        root: folder of the run directories.
        results: folder of the results.
        steps: training steps instead of the protocol's.
        episodes: in each world, once with sampled and once with greedy actions.
        precision: number format of the playing agent.
        device: where training computes.
    """

    kind: ClassVar[str] = "transfer"
    unit: ClassVar[str] = "steps"
    figure: ClassVar[str] = "reward"
    scoring: ClassVar[str] = "playing"

    protocol: Protocol
    pair: Pair
    memory: str
    seed: int
    root: Path = Path("runs/table4")
    results: Path = Path("results/table4")
    steps: int | None = None
    episodes: int = 1000
    precision: Precision = "float64"
    device: str = "cpu"

    @property
    def name(self) -> str:
        """``ours-doorkey-rel-s0``."""
        return f"{self.protocol.name}-{self.pair.name}-{self.memory}-s{self.seed}"

    @property
    def run(self) -> Path:
        """The run directory, the same at each try."""
        return self.root / self.protocol.name / f"{self.pair.name}-{self.memory}-s{self.seed}"

    @property
    def policy(self) -> Path | None:
        """Where the policy is kept beside the results: of rel's first seed, whatever it scored."""
        keep = self.memory == "rel" and self.seed == 0
        return self.results / "policies" / self.name if keep else None

    @property
    def config(self) -> TrainConfig:
        """The settings of training."""
        return self.protocol.config(
            self.pair, self.memory, self.seed, steps=self.steps, device=self.device
        )

    @property
    def evaluation(self) -> dict[str, Any]:
        """How the run is scored."""
        return {"episodes": self.episodes, "precision": self.precision}

    @property
    def games(self) -> list[tuple[str, str]]:
        """World and kind of actions, in the order of playing."""
        return [(world, actions) for world in self.pair.ladder for actions in ACTIONS]

    def finished(self) -> bool:
        """See :meth:`Task.finished`."""
        if not self.result.exists():
            return False
        result = read_result(self.result)
        wanted = to_json(self.config) | self.evaluation
        check_settings(self.result, {**result.config, **result.evaluation}, wanted, _ANYWHERE)
        return True

    def check_run(self) -> None:
        """See :meth:`Task.check_run`."""
        if (self.run / "config.json").is_file():
            known = to_json(read_train_config(RunDirectory.open(self.run)))
            check_settings(self.run, known, to_json(self.config), _ANYWHERE)

    def do(self, stop: Callable[[], bool]) -> bool:
        """See :meth:`Task.do`."""
        from relagent.study.transfer.run import run_task

        return run_task(self, stop)

    @property
    def total(self) -> int:
        """See :attr:`Task.total`."""
        return self.config.steps

    def read_figure(self, row: Mapping[str, Any]) -> float | None:
        """The mean reward of the last 100 training episodes."""
        return row.get("rollout/ep_rew_mean")

    @property
    def scores(self) -> list[Path]:
        """See :attr:`Task.scores`: one for each world and kind of actions."""
        return [played_path(self, *game) for game in self.games]

    def outcome(self) -> tuple[int, float | None]:
        """See :meth:`Task.outcome`; the figure is the score in the training world."""
        result = read_result(self.result)
        score = result.world(self.pair.train_id)
        return result.steps, None if score is None else score.reward

    def to_json(self) -> dict[str, Any]:
        """The task as plain values, for another machine."""
        return {
            "protocol": [self.protocol.name, self.protocol.to_json(), self.protocol.file],
            "pair": self.pair.name,
            "memory": self.memory,
            "seed": self.seed,
            "root": str(self.root),
            "results": str(self.results),
            "steps": self.steps,
            "episodes": self.episodes,
            "precision": self.precision,
            "device": self.device,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TransferTask:
        """The task that :meth:`to_json` described."""
        return cls(
            **{
                **data,
                "protocol": protocol_from_json(*data["protocol"]),
                "pair": pair_named(data["pair"]),
                "root": Path(data["root"]),
                "results": Path(data["results"]),
            }
        )


def pair_named(name: str) -> Pair:
    """The pair of that name, in any case.

    Raises:
        TaskError: there is none.
    """
    for pair in PAIRS:
        if pair.name == name.lower():
            return pair
    raise TaskError(f"no pair {name!r}: choose among {', '.join(pair.name for pair in PAIRS)}")


def in_order(tasks: Iterable[TransferTask]) -> list[TransferTask]:
    """Sort tasks so that those that matter most come first, should time not be enough for all."""
    pairs, memories = [pair.name for pair in PAIRS], ["rel", "mem", "lstm", "none"]

    def place(task: TransferTask) -> tuple[int, int, int, int, str]:
        memory = memories.index(task.memory) if task.memory in memories else len(memories)
        return _stage(task), task.seed, memory, pairs.index(task.pair.name), task.name

    return sorted(tasks, key=place)


def _stage(task: TransferTask) -> int:
    first, paper = task.seed < 3, task.protocol.name == "paper"
    match task.memory:
        case "rel" if not paper:
            return 0 if first else 2
        case "mem" | "lstm" if first and not paper:
            return 1
        case "rel" | "mem" if first:
            return 3
        case "none" if first and not paper:
            return 4
    return 5


def played_path(task: TransferTask, world: str, actions: str) -> Path:
    """Where the score in one world is kept until the task is finished."""
    return task.run / "played" / f"{world}-{actions}.json"


def task_words(task: TransferTask) -> list[str]:
    """The command line of a task, without the folders."""
    protocol = task.protocol.file or task.protocol.name
    words = ["python", "-m", "relagent.study", "task", "--protocol", protocol]
    words += ["--pair", task.pair.name, "--memory", task.memory, "--seed", str(task.seed)]
    if task.steps is not None:
        words += ["--steps", str(task.steps)]
    for name in ("episodes", "precision", "device"):
        if getattr(task, name) != getattr(TransferTask, name):
            words += [f"--{name}", str(getattr(task, name))]
    return words
