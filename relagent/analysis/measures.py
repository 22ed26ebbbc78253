"""What a trained memory attends to, how deep its past lies, and which gradient attention carries.

Everything here is measured along given sequences, row by row of their batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relagent.analysis.gradients import hidden_gradients, vector_norms
from relagent.analysis.sparse import attention_pattern, depth_matrix
from relagent.memories import Attention, Memory, MemoryOptionError


def look_back(memory: Memory[Any], x: Tensor) -> Attention | None:
    """Return what a memory looked at along x [T, B, F]; ``None`` where it cannot tell."""
    try:
        with torch.no_grad():
            return memory.trace(x)[2]
    except MemoryOptionError:
        return None


def attention_entropy(look: Attention) -> Tensor:
    """Return -Σ_i α_i ln α_i [T, B] in nats; ln κ is the most that κ states allow."""
    entropies: Tensor = torch.special.entr(look.weights).sum(dim=2)
    return entropies


def attended_age(look: Attention) -> Tensor:
    """Return Σ_i α_i (t - i) [T, B]: how many steps back attention looks on average."""
    return (look.weights * look.ages.clamp(min=0)).sum(dim=2)


def remembered(look: Attention) -> Tensor:
    """Return the number of states that attention runs over [T, B]: κ_t."""
    return (look.ages >= 0).sum(dim=2)


def last_step_depths(look: Attention, row: int = 0, *, noticed: bool = False) -> NDArray[np.int64]:
    """Return the dependency depth of the last s_T on every h_t, as in Theorem 2.

    Args:
        look: of one episode.
        row: which row of the batch.
        noticed: leave out of the attended sets what gets less than an equal share 1/κ_t, as if it
            were not remembered; otherwise all that is remembered counts.

    Returns:
        [T]. Without attention it would be T - t.
    """
    if noticed:
        share = 1 / remembered(look).clamp(min=1)[..., None]
        enough = look.weights >= share * (1 - 1e-6)  # equal shares are noticed, all of them
        look = look._replace(ages=torch.where(enough, look.ages, -1))
    depths: NDArray[np.int64] = depth_matrix(attention_pattern(look, row))[-1]
    return depths


class Paths(NamedTuple):
    """Norms of a gradient ∇_{h_t} L = R_t + A_t, and of its two parts, each [T, B].

    R_t is the sum over all paths from h_t that run through the recurrence alone, A_t that over all
    others: those that pass through attention at least once.
    """

    total: Tensor
    recurrence: Tensor
    attention: Tensor

    @property
    def share(self) -> Tensor:
        """‖A_t‖ / (‖A_t‖ + ‖R_t‖): 0 without attention, 1 where the recurrence brings nothing."""
        both = self.attention + self.recurrence
        return torch.where(both > 0, self.attention / both, 0)


def attends(memory: Memory[Any]) -> bool:
    """Whether a memory has attention that gradients can come through."""
    return getattr(memory, "attention", None) is not None


def gradient_paths(memory: Memory[Any], x: Tensor, loss: Callable[[Tensor], Tensor]) -> Paths:
    """Split ∇_{h_t} L by whether it came through attention.

    R_t is the gradient with every context c_t held fixed; no weight α and no remembered state
    passes anything on then. A_t is what is missing.

    Args:
        memory: any memory; without attention A_t is 0.
        x: [T, B, F].
        loss: from the outputs [T, B, H] to a scalar.
    """
    total = hidden_gradients(memory, x, loss)
    if not attends(memory):
        norms = vector_norms(total)
        return Paths(norms, norms, torch.zeros_like(norms))
    with _contexts_fixed(cast(Any, memory).attention):
        recurrence = hidden_gradients(memory, x, loss)
    return Paths(*map(vector_norms, (total, recurrence, total - recurrence)))


@contextmanager
def _contexts_fixed(attention: nn.Module) -> Iterator[None]:
    """Within it, the context that attention returns is a constant."""

    def fix(_module: nn.Module, _inputs: Any, made: Any) -> Any:
        # The context alone, or with the weights behind it.
        return (made[0].detach(), *made[1:]) if isinstance(made, tuple) else made.detach()

    hook = attention.register_forward_hook(fix)
    try:
        yield
    finally:
        hook.remove()
