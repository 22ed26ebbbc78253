"""One episode, step by step: the world, what the agent sees, and what its memory looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from minigrid.core.actions import Actions

from relagent.envs import GridObservation
from relagent.errors import RelagentError
from relagent.memories import Attention
from relagent.memories.relevancy import RelevancyMemory
from relagent.rl.play import begin_episode, choose_next
from relagent.rl.policy import MemoryPolicy

Array = np.ndarray[Any, Any]

VIEW_TILE = 32
WORLD_PIXELS = 416


class WatchError(RelagentError):
    """An episode that cannot be shown."""


class Slot(NamedTuple):
    """A remembered step."""

    step: int
    """When the state was made."""
    weight: float
    """Attention to it at this step."""
    relevance: float
    """Attention that it earned so far; with a relevant set, in the short-term buffer alone."""
    relevant: bool
    """Whether it is in the relevant set."""


@dataclass(frozen=True)
class Moment:
    """One step of an episode.

    Attributes:
        step: its number, from 0.
        world: the whole world, uint8 [height, width, 3].
        view: what the agent sees of it, uint8 [7 · VIEW_TILE, 7 · VIEW_TILE, 3].
        mission: the text of its goal.
        action: what it does now.
        reward: what it gets for that.
        slots: what it remembers; none without attention.
        event: what became of the state that left the short-term buffer, in words.
        over: how the episode ended with this step, in words.
    """

    step: int
    world: Array
    view: Array
    mission: str
    action: str
    reward: float
    slots: tuple[Slot, ...]
    event: str
    over: str


def record(
    policy: MemoryPolicy, env_id: str, number: int = 0, *, greedy: bool = False
) -> list[Moment]:
    """Play an evaluation episode and note all that there is to see.

    It is the episode that :func:`relagent.rl.play.play` plays under that number: same layout, same
    choices, in float64.

    Args:
        policy: it is copied and stays as it is.
        env_id: a MiniGrid or BabyAI world that fits it.
        number: of the evaluation episode.
        greedy: take the most probable action instead of sampling.

    Raises:
        WatchError: the world has no picture.
        WorldMismatchError: the world does not fit the policy.
    """
    policy, row = begin_episode(policy, env_id, number)
    if not isinstance(row.env, GridObservation):
        row.env.close()
        raise WatchError(f"{env_id} has no grid to show: choose a MiniGrid or BabyAI world")
    world = cast(Any, row.env.unwrapped)
    state = policy.initial_state(1)
    moments: list[Moment] = []
    known: dict[bytes, Array] = {}  # most pictures come again and again: each is kept once
    over = False
    while not over:
        whole, view = (known.setdefault(p.tobytes(), p) for p in _pictures(world))
        choice = choose_next(policy, row, state, greedy=greedy)
        state, look = choice.state, choice.look
        mission = str(world.mission)
        over = row.step(choice.action)
        step = len(moments)
        moments.append(
            Moment(
                step=step,
                world=whole,
                view=view,
                mission=mission,
                action=Actions(choice.action).name,
                reward=row.gain,
                slots=() if look is None else _slots(policy, look, step),
                event="" if look is None else _event(policy, look, step),
                over=_ending(bool(row.success), row.terminated) if over else "",
            )
        )
    row.env.close()
    return moments


def _pictures(world: Any) -> tuple[Array, Array]:
    tile = max(8, WORLD_PIXELS // max(world.width, world.height))
    whole = world.get_frame(highlight=True, tile_size=tile, agent_pov=False)
    view = world.get_frame(tile_size=VIEW_TILE, agent_pov=True)
    return np.asarray(whole), np.asarray(view)


def _slots(policy: MemoryPolicy, look: Attention, step: int) -> tuple[Slot, ...]:
    rho = policy.memory.rho if isinstance(policy.memory, RelevancyMemory) else 0
    return tuple(
        Slot(step - age, weight, relevance, place < rho)
        for place, (age, weight, relevance) in enumerate(
            zip(
                look.ages[0].tolist(),
                look.weights[0].tolist(),
                look.relevance[0].tolist(),
                strict=True,
            )
        )
        if age >= 0
    )


def _event(policy: MemoryPolicy, look: Attention, step: int) -> str:
    if not isinstance(policy.memory, RelevancyMemory):
        return ""
    # The leaver was the oldest of the buffer: it was made ν steps ago.
    leaver = step - policy.memory.nu
    if leaver < 0:
        return ""
    evicted = int(look.evicted[0])
    if not bool(look.admitted[0]):
        return f"step {leaver} leaves the buffer and is forgotten"
    if evicted < 0:
        return f"step {leaver} leaves the buffer for the relevant set"
    return f"step {leaver} takes the place of step {step - evicted} in the relevant set"


def _ending(success: bool, terminated: bool) -> str:
    if success:
        return "solved"
    return "failed" if terminated else "out of time"
