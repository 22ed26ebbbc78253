"""How well a model does, without changing anything of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.nn.utils import parametrize

from relagent.memories import AnyState, detach_state
from relagent.tasks.base import Batch, Score, Task, count_correct, cross_entropy
from relagent.tasks.config import TaskConfig
from relagent.tasks.model import SequenceModel


def evaluate(
    model: SequenceModel,
    task: Task,
    split: str,
    config: TaskConfig,
    number: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Score | None:
    """Score a model on a part of the data.

    Args:
        model: what is scored.
        task: says what on.
        split: ``validation`` or ``test``.
        config: batch size and seed.
        number: of the evaluation; drawn data differ from number to number.
        stop: polled between batches.

    Returns:
        The score; ``None`` if asked to stop.
    """
    batches = task.evaluation_batches(split, config.batch_size, config.seed, number)
    return score(model, batches, stop)


def score(
    model: SequenceModel, batches: Iterable[Batch], stop: Callable[[], bool] | None = None
) -> Score | None:
    """Score a model on batches; the loss is the mean over all steps, by their weight.

    Args:
        model: what is scored.
        batches: at least one.
        stop: polled between batches.

    Returns:
        The score; ``None`` if asked to stop.
    """
    device = next(model.parameters()).device
    loss = weight = 0.0
    correct = scored = 0
    state: AnyState | None = None
    with torch.no_grad(), parametrize.cached():
        for batch in batches:
            if stop is not None and stop():
                return None
            batch = batch.to(device)
            logits, state = model(batch.x, state if batch.continues else None)
            state = detach_state(model.memory.forget(state))
            total = float(batch.weight.sum())
            loss += float(cross_entropy(logits, batch)) * total
            weight += total
            right, asked = count_correct(logits, batch)
            correct += right
            scored += asked
    return Score(loss / weight, correct, scored)
