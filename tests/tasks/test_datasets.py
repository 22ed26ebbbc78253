"""Sequential MNIST and the Penn Treebank, on stand-ins and, where they are, on the real data."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relagent.runs.config import ConfigError
from relagent.tasks.data import DataFileError
from relagent.tasks.mnist import SequentialMNIST
from relagent.tasks.ptb import PennTreebank

from .standins import REAL_DATA, write_mnist, write_ptb


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="module")
def ptb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ptb(tmp_path_factory.mktemp("ptb"))


@pytest.mark.parametrize("group", [1, 2, 4, 16])
def test_pixels_come_in_reading_order(mnist: Path, group: int) -> None:
    task = SequentialMNIST(mnist, group=group)
    batch = task.take("train", torch.tensor([3, 5]))
    assert batch.x.shape == (16 // group, 2, group)
    for column, image in enumerate((3, 5)):
        pixels = task.parts["train"][0][image].float() / 255
        assert torch.equal(batch.x[:, column].flatten(), pixels)
        assert batch.targets[-1, column] == task.parts["train"][1][image]
    # Only the last step is asked for.
    assert batch.weight.sum() == 2
    assert batch.weight[-1].tolist() == [1, 1]
    assert torch.equal(batch.scored, batch.weight.bool())


def test_a_permutation_is_the_same_for_all(mnist: Path) -> None:
    plain, permuted = SequentialMNIST(mnist), SequentialMNIST(mnist, permuted=True)
    rows = torch.arange(4)
    straight, mixed = plain.take("test", rows).x, permuted.take("test", rows).x
    assert not torch.equal(straight, mixed)
    assert torch.equal(straight[permuted.order], mixed)
    assert torch.equal(permuted.order, SequentialMNIST(mnist, permuted=True).order)


def test_parts_of_mnist(mnist: Path) -> None:
    task = SequentialMNIST(mnist)
    sizes = {name: len(labels) for name, (_, labels) in task.parts.items()}
    assert sizes == {"train": 50, "validation": 10, "test": 10}
    seen = [batch.targets[-1] for batch in task.evaluation_batches("validation", 4, 0, 0)]
    assert [len(labels) for labels in seen] == [4, 4, 2]
    assert torch.equal(torch.cat(seen), task.parts["validation"][1])


def test_an_epoch_sees_each_image_once_in_an_order_of_its_own(mnist: Path) -> None:
    task = SequentialMNIST(mnist)
    assert task.epoch_length(10) == 5

    def epoch(number: int) -> torch.Tensor:
        numbers = range(5 * number, 5 * number + 5)
        return torch.cat([task.training_batch(n, 10, 0).x for n in numbers], dim=1)

    def rows(x: torch.Tensor) -> list[tuple[float, ...]]:
        return [tuple(row.flatten().tolist()) for row in x.unbind(dim=1)]

    first, second = rows(epoch(0)), rows(epoch(1))
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 50


def test_impossible_settings_of_mnist(mnist: Path) -> None:
    with pytest.raises(ConfigError, match="group is 3; it must divide 16"):
        SequentialMNIST(mnist, group=3)
    with pytest.raises(ConfigError, match="batch_size is 51; there are 50"):
        SequentialMNIST(mnist).epoch_length(51)


@given(window=st.integers(1, 40), rows=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_windows_follow_one_another(ptb: Path, window: int, rows: int) -> None:
    task = PennTreebank(ptb, window)
    text = task.texts["train"]
    length = len(text) // rows
    n = task.epoch_length(rows)
    batches = [task.training_batch(number, rows, seed=0) for number in range(n)]
    assert [batch.continues for batch in batches] == [False] + [True] * (n - 1)
    pieces = text[: rows * length].view(rows, length).t()
    assert torch.equal(torch.cat([batch.x for batch in batches]), pieces[:-1])
    assert torch.equal(torch.cat([batch.targets for batch in batches]), pieces[1:])
    assert all(len(batch.x) == window for batch in batches[:-1])
    again = task.training_batch(n, rows, seed=0)  # the next epoch
    assert not again.continues
    assert torch.equal(again.x, batches[0].x)


def test_symbols_of_the_stand_in(ptb: Path) -> None:
    task = PennTreebank(ptb)
    assert task.input_size == task.n_classes == len(task.symbols)
    start = [task.symbols[i] for i in task.texts["train"][:25]]
    assert start == [*"the_cat_<unk>_on_N_mats", "<eos>", "h"]
    batch = next(task.evaluation_batches("test", 1, 0, 0))
    assert batch.x.shape == (len(task.texts["test"]) - 1, 1)


def test_impossible_texts(ptb: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each piece needs two"):
        PennTreebank(ptb).epoch_length(10_000)
    write_ptb(tmp_path)
    (tmp_path / "ptb.valid.txt").write_text("q\n")
    with pytest.raises(DataFileError, match="'q' in it never occurs"):
        PennTreebank(tmp_path)


@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason="the real MNIST is not here")
def test_the_real_mnist() -> None:
    task = SequentialMNIST(REAL_DATA / "mnist", group=7)
    sizes = {name: len(labels) for name, (_, labels) in task.parts.items()}
    assert sizes == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert task.training_batch(0, 100, 0).x.shape == (112, 100, 7)
    assert task.parts["train"][1][:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]


@pytest.mark.skipif(not (REAL_DATA / "ptb").is_dir(), reason="the real treebank is not here")
def test_the_real_treebank() -> None:
    task = PennTreebank(REAL_DATA / "ptb")
    assert len(task.symbols) == 50  # 49 characters and <eos>
    start = task.texts["train"][:32]
    assert "".join(task.symbols[i] for i in start) == "aer_banknote_berlitz_calloway_ce"
    first, second = islice((task.training_batch(n, 128, 0) for n in range(2)), 2)
    assert first.x.shape == (150, 128)
    assert torch.equal(first.targets[-1], second.x[0])
