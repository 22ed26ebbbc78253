"""The model around a memory, what goes over to the next window, and the default settings."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from relagent.memories import LSTM, MEMORIES, MemoryOptionError, make_memory
from relagent.rl.train import TrainConfig
from relagent.runs.config import ConfigError
from relagent.tasks.base import Batch, Score, count_correct, cross_entropy
from relagent.tasks.config import OPTIONS, settings_of
from relagent.tasks.copy import Copy
from relagent.tasks.defaults import TASKS, default_config
from relagent.tasks.model import (
    SequenceModel,
    orthogonality_error,
    parameter_groups,
)
from relagent.tasks.run import make_model


@pytest.mark.parametrize(
    ("memory", "count"),
    [
        ("orth-rnn", 19_081),
        ("exp-rnn", 10_697),
        ("lstm", 72_329),
        ("mem", 105_225),
        ("rel", 105_225),
        ("goru", 38_601),
        # The paper's code counts 51,977: it has modReLU's 128 thresholds also where it uses tanh.
        ("mem-rnn", 51_977 - 128),
        ("rel-rnn", 51_977 - 128),
    ],
)
def test_parameter_counts_on_copy(memory: str, count: int) -> None:
    model = make_model(default_config("copy", memory), Copy(100))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@given(data=st.data(), T=st.integers(1, 4), B=st.integers(1, 3), C=st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_loss_and_accuracy_by_hand(data: st.DataObject, T: int, B: int, C: int) -> None:
    draws = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn(T, B, C, generator=draws, dtype=torch.float64)
    targets = torch.randint(0, C, (T, B), generator=draws)
    weight = torch.rand(T, B, generator=draws, dtype=torch.float64) + 0.1
    scored = torch.rand(T, B, generator=draws) < 0.5
    batch = Batch(torch.zeros(T, B, 1), targets, weight, scored)
    loss, correct = 0.0, 0
    for t in range(T):
        for b in range(B):
            p = logits[t, b].exp() / logits[t, b].exp().sum()
            loss -= float(weight[t, b] * p[targets[t, b]].log())
            correct += int(scored[t, b] and p.argmax() == targets[t, b])
    assert cross_entropy(logits, batch).item() == pytest.approx(loss / float(weight.sum()))
    assert count_correct(logits, batch) == (correct, int(scored.sum()))


def test_scores() -> None:
    assert Score(loss=2.0794415, correct=3, scored=4).accuracy == 0.75
    assert Score(loss=2.0794415, correct=3, scored=4).bpc == pytest.approx(3)
    assert Score(0.0, 4, 4).perfect
    assert not Score(0.0, 3, 4).perfect


def test_symbols_are_embedded() -> None:
    model = SequenceModel(make_memory("lstm", 5, 6), n_classes=3, n_symbols=4)
    assert model.embedding is not None
    x = torch.tensor([[0, 3], [2, 1]])
    y, _ = model.memory.unroll(model.embedding.weight[x], model.memory.initial_state(2))
    logits, _ = model(x)
    assert torch.equal(logits, y @ model.head.weight.T + model.head.bias)


def test_the_rotation_has_a_learning_rate_of_its_own() -> None:
    model = SequenceModel(make_memory("exp-rnn", 3, 6), 4)
    others, rotation = parameter_groups(model, 1e-2, 1e-3)
    assert (others["lr"], rotation["lr"]) == (1e-2, 1e-3)
    assert [parameter.numel() for parameter in rotation["params"]] == [6 * 5 // 2]
    grouped = {id(parameter) for group in (others, rotation) for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in model.parameters()}
    plain = SequenceModel(make_memory("lstm", 3, 6), 4)
    assert len(parameter_groups(plain, 1e-2, None)) == 1


def test_orthogonality_is_measured() -> None:
    memory = make_memory("exp-rnn", 3, 8)
    error = orthogonality_error(memory)
    assert error is not None
    assert error < 1e-6
    assert orthogonality_error(make_memory("orth-rnn", 3, 8)) is None


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("memory", MEMORIES)
def test_every_pair_has_settings(task: str, memory: str) -> None:
    config = default_config(task, memory)
    taken = settings_of(memory)
    assert {name for name in OPTIONS if getattr(config, name) is not None} == taken
    made = make_memory(memory, 3, 4, **config.memory_options)
    if "nu" in taken:
        assert (made.nu, made.rho) == (config.nu, config.rho)  # type: ignore[union-attr, unused-ignore]


@pytest.mark.parametrize(
    ("task", "memory", "settings"),
    [  # tables 6 to 9 of the paper
        ("copy", "orth-rnn", (2e-4, "rmsprop", "modrelu", None, None, None)),
        ("copy", "lstm", (2e-4, "adam", None, None, None, None)),
        ("copy", "rel-rnn", (2e-4, "adam", "tanh", 10, 10, None)),
        ("denoise", "goru", (1e-3, "rmsprop", None, None, None, None)),
        ("denoise", "rel-rnn", (2e-4, "rmsprop", "modrelu", 10, 10, None)),
        ("mnist", "exp-rnn", (1e-4, "adam", "modrelu", None, None, 1e-5)),
        ("mnist", "rel-rnn", (3e-4, "adam", "modrelu", 10, 10, None)),
        ("ptb", "exp-rnn", (3e-3, "adam", "tanh", None, None, 3e-4)),
        ("ptb", "orth-rnn", (1e-3, "adam", "tanh", None, None, None)),
        ("ptb", "rel-rnn", (3e-4, "adam", "tanh", 10, 5, None)),
    ],
)
def test_settings_of_the_paper(task: str, memory: str, settings: tuple[object, ...]) -> None:
    config = default_config(task, memory)
    names = ("learning_rate", "optimizer", "nonlinearity", "nu", "rho", "orthogonal_learning_rate")
    assert tuple(getattr(config, name) for name in names) == settings


@pytest.mark.parametrize(
    ("task", "memory", "like", "learning_rate"),
    [
        ("copy", "mem-rnn", "rel-rnn", 2e-4),
        ("copy", "rel", "lstm", 1e-3),
        ("denoise", "rel", "lstm", 1e-3),
        ("copy", "mem", "rel", 1e-3),
        ("denoise", "mem-rnn", "rel-rnn", 2e-4),
        ("denoise", "mem", "rel", 1e-3),
        ("ptb", "mem", "rel-rnn", 3e-4),
        ("copy", "sab", "lstm", 2e-4),
    ],
)
def test_settings_that_the_paper_leaves_open(
    task: str, memory: str, like: str, learning_rate: float
) -> None:
    config, other = default_config(task, memory), default_config(task, like)
    assert config.learning_rate == learning_rate
    assert config.optimizer == other.optimizer
    if None not in (config.nu, other.nu):
        assert (config.nu, config.rho) == (other.nu, other.rho)


@pytest.mark.parametrize("task", TASKS)
def test_a_memory_of_ones_own_starts_from_the_lstms_line(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(LSTM):
        """Registered by its one line."""

    monkeypatch.setitem(MEMORIES, "own", Own)
    own, lstm = default_config(task, "own"), default_config(task, "lstm")
    assert (own.learning_rate, own.optimizer) == (lstm.learning_rate, lstm.optimizer)


def test_a_memory_of_ones_own_has_the_settings_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Own(LSTM):
        """Would remember some states."""

        def __init__(self, input_size: int, hidden_size: int, *, nu: int) -> None:
            super().__init__(input_size, hidden_size)

    monkeypatch.setitem(MEMORIES, "own", Own)
    assert default_config("copy", "own", nu=3).memory_options == {"nu": 3}
    assert TrainConfig(env="any", memory="own", nu=3, rho=4).memory_options == {"nu": 3}


@pytest.mark.parametrize(
    ("task", "memory", "settings", "combine"),
    [
        ("copy", "rel-rnn", {}, "sum"),
        ("denoise", "rel-rnn", {}, "mean"),
        ("denoise", "mem-rnn", {}, "mean"),
        ("denoise", "rel-rnn", {"nonlinearity": "tanh"}, "sum"),
        ("denoise", "rel-rnn", {"combine": "sum"}, "sum"),
        ("copy", "rel-rnn", {"nonlinearity": "relu"}, "mean"),
        ("denoise", "rel", {}, "sum"),
        ("denoise", "lstm", {}, None),
        ("mnist", "rel", {}, "mean"),
        ("mnist", "mem", {"group": 1, "permuted": True}, "mean"),
        ("mnist", "rel", {"group": 7}, "sum"),
        ("mnist", "rel-rnn", {"group": 7, "nonlinearity": "tanh"}, "sum"),
    ],
)
def test_states_are_averaged_where_they_have_no_bound_or_cross_single_pixels(
    task: str, memory: str, settings: dict[str, Any], combine: str | None
) -> None:
    assert default_config(task, memory, **settings).combine == combine


def test_impossible_settings() -> None:
    with pytest.raises(ConfigError, match="nu is 3; lstm takes none"):
        default_config("copy", "lstm", nu=3)
    with pytest.raises(ConfigError, match="nu is None; rel needs one"):
        default_config("copy", "rel", nu=None)
    with pytest.raises(ConfigError, match="T is 0; it must be at least 1"):
        default_config("copy", "rel", T=0)
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        default_config("copy", "rel", learning_rate=-1.0)
    with pytest.raises(MemoryOptionError, match="did you mean rel-rnn"):
        default_config("copy", "relrnn")
