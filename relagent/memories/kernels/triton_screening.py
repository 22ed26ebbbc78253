"""Relevancy screening of a block of rows, on a GPU.

See :class:`~relagent.memories.relevancy.RelevancyMemory` for the rule, and
:mod:`~relagent.memories.kernels.triton_parts` for what a name stands for.
"""

from __future__ import annotations

import triton.language as tl

from relagent.memories.kernels.triton_parts import jit


@jit
def screen(
    old: tl.tensor,
    places: tl.tensor,
    scores: tl.tensor,
    newest: tl.tensor,
    started: tl.tensor,
    mine: tl.tensor,
    RHO: tl.constexpr,
    KAPPA: tl.constexpr,
    K: tl.constexpr,
) -> None:
    """Relevancy screening: the newest state enters, the oldest of S leaves.

    Args:
        old: list of κ places before this step.
        places: is written.
        scores: list of κ numbers, is updated.
        newest: the place of the state that enters.
        started: [ROWS] where everything is forgotten first.
        mine: [ROWS] which rows are this program's own.
        RHO: ρ.
        KAPPA: κ.
        K: κ or the next power of 2.
    """
    slot = tl.arange(0, K)
    source = tl.where(slot < RHO, slot, slot + 1)  # S moves on by one
    kept = (source < KAPPA)[None, :] & (~started)[:, None]
    place = tl.load(old[:, None] + source[None, :], mask=kept, other=-1)
    score = tl.load(scores[:, None] + source[None, :], mask=kept, other=0)
    if RHO > 0:
        leaver = tl.load(old + RHO, mask=~started, other=-1)
        leaver_score = tl.load(scores + RHO, mask=~started, other=0)
        rival = tl.where(place >= 0, score, float("-inf"))
        rival = tl.where((slot < RHO)[None, :], rival, float("inf"))
        lowest = tl.min(rival, axis=1)
        weakest = tl.argmin(rival, axis=1, tie_break_left=True)
        admitted = (leaver >= 0) & (leaver_score > lowest)
        here = admitted[:, None] & (slot[None, :] == weakest[:, None])
        place = tl.where(here, leaver[:, None], place)
        score = tl.where(here, leaver_score[:, None], score)
    enters = (slot == KAPPA - 1)[None, :]
    place = tl.where(enters, newest, place)
    tl.debug_barrier()
    inside = mine[:, None] & (slot < KAPPA)[None, :]
    tl.store(places[:, None] + slot[None, :], place, mask=inside)
    tl.store(scores[:, None] + slot[None, :], score, mask=inside)
