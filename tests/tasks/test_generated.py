"""Copy and denoise against their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relagent.tasks.base import Batch, GeneratedTask, Stream, cross_entropy, generator
from relagent.tasks.copy import Copy, memoryless_loss
from relagent.tasks.denoise import Denoise

TASKS = [Copy, Denoise]
sizes = {"T": st.integers(1, 60), "rows": st.integers(1, 5), "seed": st.integers(0, 2**32)}


def draw(task: GeneratedTask, rows: int, seed: int = 0) -> Batch:
    return task.batch(torch.Generator().manual_seed(seed), rows)


def symbols_of(batch: Batch) -> torch.Tensor:
    """The inputs as numbers [T, B]; each must be one-hot."""
    assert set(batch.x.unique().tolist()) == {0.0, 1.0}
    assert (batch.x.sum(dim=2) == 1).all()
    return batch.x.argmax(dim=2)


@given(**sizes)
@settings(max_examples=30, deadline=None)
def test_copy_is_ten_symbols_blanks_a_marker_and_ten_blanks(T: int, rows: int, seed: int) -> None:
    batch = draw(Copy(T), rows, seed)
    assert batch.x.shape == (T + 20, rows, 10)
    inputs = symbols_of(batch)
    assert ((inputs[:10] >= 1) & (inputs[:10] <= 8)).all()
    assert (inputs[10 : 10 + T - 1] == 0).all()
    assert (inputs[9 + T] == 9).all()
    assert (inputs[-10:] == 0).all()
    assert len(inputs) == 10 + (T - 1) + 1 + 10


@given(**sizes)
@settings(max_examples=30, deadline=None)
def test_denoise_strews_ten_symbols_over_the_first_steps(T: int, rows: int, seed: int) -> None:
    batch = draw(Denoise(T), rows, seed)
    assert batch.x.shape == (T + 20, rows, 11)
    inputs = symbols_of(batch)
    assert ((inputs[: T + 9] > 0).sum(dim=0) == 10).all()
    assert (inputs[: T + 9] <= 8).all()
    assert (inputs[T + 9] == 10).all()
    assert (inputs[-10:] == 0).all()
    for row in range(rows):  # the order in which they came
        column = inputs[: T + 9, row]
        assert column[column > 0].tolist() == batch.targets[-10:, row].tolist()


@pytest.mark.parametrize("kind", TASKS)
@given(**sizes)
@settings(max_examples=20, deadline=None)
def test_blanks_are_due_until_the_ten_symbols(
    kind: type[GeneratedTask], T: int, rows: int, seed: int
) -> None:
    batch = draw(kind(T), rows, seed)
    assert (batch.targets[:-10] == 0).all()
    assert ((batch.targets[-10:] >= 1) & (batch.targets[-10:] <= 8)).all()
    assert batch.targets.max() < kind.n_classes
    assert (batch.weight == 1).all()
    assert not batch.scored[:-10].any()
    assert batch.scored[-10:].all()
    if kind is Copy:
        assert torch.equal(batch.targets[-10:], symbols_of(batch)[:10])


def test_a_copy_sequence_by_hand() -> None:
    batch = draw(Copy(2), 1)
    s = batch.targets[-10:, 0].tolist()
    assert symbols_of(batch)[:, 0].tolist() == [*s, 0, 9, *[0] * 10]
    assert batch.targets[:, 0].tolist() == [*[0] * 12, *s]


@pytest.mark.parametrize("kind", TASKS)
def test_symbols_and_places_are_drawn_evenly(kind: type[GeneratedTask]) -> None:
    batch = draw(kind(11), 4000)
    counts = torch.bincount(batch.targets[-10:].flatten(), minlength=9)[1:9]
    assert (counts - 5000).abs().max() < 5 * math.sqrt(5000)  # five standard deviations
    if kind is Denoise:  # each of 20 steps holds one of 10 symbols with probability 1/2
        places = (symbols_of(batch)[:20] > 0).sum(dim=1)
        assert (places - 2000).abs().max() < 5 * math.sqrt(1000)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(
    ("T", "loss"),
    [(100, 0.1733), (200, 0.0945), (300, 0.0650), (500, 0.0400), (1000, 0.0204), (2000, 0.0103)],
)
def test_memoryless_loss(kind: type[Copy] | type[Denoise], T: int, loss: float) -> None:
    task = kind(T)
    assert memoryless_loss(T) == pytest.approx(loss, abs=5.1e-5)
    # What a model that knows the time, and nothing else, has: sure blanks, then even odds.
    batch = draw(task, 3)
    logits = torch.full((T + 20, 3, task.n_classes), -1e4, dtype=torch.float64)
    logits[:-10, :, 0] = 0
    logits[-10:, :, 1:9] = 0
    assert cross_entropy(logits, batch).item() == pytest.approx(memoryless_loss(T), rel=1e-6)


@pytest.mark.parametrize("kind", TASKS)
def test_a_batch_is_a_function_of_seed_and_number(kind: type[GeneratedTask]) -> None:
    task, torch_before = kind(20), torch.get_rng_state()
    one, other = task.training_batch(7, 4, seed=1), kind(20).training_batch(7, 4, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
    assert torch.equal(torch.get_rng_state(), torch_before)
    for number, seed in ((8, 1), (7, 2)):
        assert not torch.equal(task.training_batch(number, 4, seed).targets, one.targets)


@pytest.mark.parametrize("kind", TASKS)
def test_evaluations_are_fresh_and_as_many_as_asked(kind: type[GeneratedTask]) -> None:
    task = kind(20, n_evaluation_batches=3)
    batches = list(task.evaluation_batches("validation", 4, seed=0, number=100))
    assert len(batches) == 3
    later = list(task.evaluation_batches("validation", 4, seed=0, number=200))
    drawn = [batch.targets for batch in (*batches, *later, task.training_batch(100, 4, 0))]
    assert len({tuple(targets.flatten().tolist()) for targets in drawn}) == len(drawn)


def test_streams_differ_in_each_part_of_their_name() -> None:
    names = [(s, stream, n) for s in (0, 1) for stream in Stream for n in (0, 1)]
    assert len({torch.rand(1, generator=generator(*name)).item() for name in names}) == len(names)
