"""Peak memory of one forward and backward pass, each measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
from contextlib import nullcontext

import torch

from relagent.errors import RelagentError
from relagent.memories import kernels
from relagent.runs.machine import peak_resident
from relagent.tasks.base import Batch, cross_entropy
from relagent.tasks.config import TaskConfig
from relagent.tasks.run import make_model


class PeakError(RelagentError):
    """A pass whose peak could not be measured."""


def peak_megabytes(config: TaskConfig, *, definition: bool = False) -> float:
    """Return how much the resident set grew, at its highest, in a pass over one training batch.

    A short pass goes before, which loads and compiles what is needed once. Libraries, weights and
    the batch itself are not counted; buffers that a kernel keeps are.

    Args:
        config: the task (copy or denoise), its T and its batch; the model is a new one.
        definition: compute by the memory's definition, which keeps what automatic differentiation
            asks for, where a kernel may keep less.

    Raises:
        PeakError: the process died, which most often means that memory was short.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(there, config, definition), daemon=True)
    process.start()
    there.close()
    try:
        megabytes = float(here.recv())
    except EOFError as error:
        process.join()
        raise PeakError(
            f"the pass of {config.memory} ended with code {process.exitcode}: maybe memory was "
            "short, try fewer steps"
        ) from error
    process.join()
    return megabytes


def _measure(
    parent: multiprocessing.connection.Connection, config: TaskConfig, definition: bool
) -> None:
    torch.set_num_threads(1)
    with kernels.disable() if definition else nullcontext():
        parent.send(_growth(config))


def _growth(config: TaskConfig) -> float:
    task = config.make_task()
    model = make_model(config, task)
    batch = task.training_batch(0, config.batch_size, config.seed)
    x, targets, weight, scored = (tensor[-12:] for tensor in batch[:4])
    short = Batch(x, targets, weight, scored)
    torch.autograd.backward(cross_entropy(model(short.x)[0], short))
    before = peak_resident()
    torch.autograd.backward(cross_entropy(model(batch.x)[0], batch))
    return (peak_resident() - before) / 1e6
