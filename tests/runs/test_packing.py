"""Any nested state survives packing, and nothing else gets in."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from relagent.runs.checkpoint import load_file, save_file
from relagent.runs.packing import PackError, UnpackError, pack, unpack
from relagent.runs.random_states import RandomStateError, random_states, restore_random_states


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure, order, dtype, shape and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return bool(
            a.dtype == b.dtype
            and a.shape == b.shape
            and a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()
        )
    if isinstance(a, np.ndarray | np.generic):
        return bool((a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()))
    if isinstance(a, dict):
        return same(list(a), list(b)) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return str(a) == str(b)  # tells -0.0 from 0.0, and knows one NaN
    return bool(a == b)


def through_json(tree: Any) -> Any:
    tensors, data = pack(tree)
    return unpack(tensors, json.loads(json.dumps(data, allow_nan=False)))


arrays = hnp.arrays(
    st.sampled_from(
        [np.float32, np.float64, np.int64, np.uint32, np.uint8, np.bool_, np.complex64]
    ),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
keys = st.text(max_size=4) | st.integers() | st.booleans() | st.none() | st.just("$tuple")
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(max_size=8)
    | arrays
    | arrays.map(torch.from_numpy)
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(trees)
def test_round_trip(tree: Any) -> None:
    assert same(through_json(tree), tree)


def test_round_trip_of_the_odd_ones() -> None:
    tree: dict[str, Any] = {
        "huge": -(10**5000),  # longer than Python converts to decimal digits
        "scalars": (np.float64(0.1), np.int32(7), np.bool_(True)),
        "special": [math.nan, math.inf, -math.inf, -0.0],
        "$tensor": "only a key",
        "bfloat16": torch.ones(3, 2, dtype=torch.bfloat16).T,
    }
    back = through_json(tree)
    bfloat16, expected = back.pop("bfloat16"), tree.pop("bfloat16")
    assert same(back, tree)
    assert bfloat16.dtype == torch.bfloat16
    assert torch.equal(bfloat16, expected)


def test_keys_that_collide_keep_their_own_tensors(tmp_path: Path) -> None:
    tree = {
        "a/b": torch.zeros(1),
        "a": {"b": torch.ones(1)},
        "__metadata__": torch.full((1,), 2.0),
        1: torch.full((1,), 3.0),
        "1": torch.full((1,), 4.0),
    }
    tensors, data = pack(tree)
    assert len(tensors) == 5
    save_file(tmp_path / "x.safetensors", tensors, data)
    assert same(unpack(*load_file(tmp_path / "x.safetensors")), tree)


@pytest.mark.parametrize(
    "value", [object(), lambda: 0, {1, 2}, b"x", torch.float32, np.array(["a"]), np.array([None])]
)
def test_what_json_cannot_hold_is_named(value: object) -> None:
    with pytest.raises(PackError, match=r"cannot pack policy/0: ") as caught:
        pack({"policy": [value]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {"$tensor": "absent"},
        {"$pickle": "gASVFAAAAA=="},
        {"$tuple": [], "more": 1},
        {"$int": "zz"},
        {"$dict": [[[], 1]]},
        {"$dict": 5},
        {"$tensor": []},
    ],
)
def test_strange_json_is_refused(data: Any) -> None:
    with pytest.raises(UnpackError, match="not what pack"):
        unpack({}, data)


def draw(generator: np.random.Generator) -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.standard_normal()),  # noqa: NPY002 (the global stream is what is tested)
        float(torch.rand(())),
        float(torch.randn(3).sum()),
        float(generator.standard_normal()),
        float(generator.integers(1 << 31, dtype=np.uint32)),
    ]


def test_random_streams_go_on_where_they_were(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    draw(generator)  # gauss and standard_normal now hold a spare value, which must be kept too
    state = {"global": random_states(), "own": generator.bit_generator.state}
    save_file(tmp_path / "x", *pack(state))
    expected = draw(generator)
    draw(generator)
    back = unpack(*load_file(tmp_path / "x"))
    restore_random_states(back["global"])
    generator.bit_generator.state = back["own"]
    assert draw(generator) == expected


@pytest.mark.parametrize("name", ["python", "numpy", "torch", "cuda"])
def test_random_states_that_do_not_fit(name: str) -> None:
    before = random_states()
    with pytest.raises(RandomStateError, match="do not fit"):
        restore_random_states({key: value for key, value in before.items() if key != name})
    with pytest.raises(RandomStateError, match="do not fit"):
        restore_random_states({**before, name: 5})
    restore_random_states(before)


def test_an_optimiser_continues_bit_for_bit(tmp_path: Path) -> None:
    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        groups: list[dict[str, Any]] = [
            {"params": [model.weight]},
            {"params": [model.bias], "lr": 1e-2},
        ]
        return model, torch.optim.Adam(groups, lr=1e-3, betas=(0.8, 0.99))

    def train(model: torch.nn.Module, optimiser: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimiser.zero_grad()
            model(torch.full((1, 3), float(step))).square().sum().backward()
            optimiser.step()

    model, optimiser = build()
    train(model, optimiser, range(3))
    tree = {"model": dict(model.state_dict()), "optimiser": optimiser.state_dict()}
    save_file(tmp_path / "x", *pack(tree))
    train(model, optimiser, range(3, 6))

    other, other_optimiser = build()
    back = unpack(*load_file(tmp_path / "x"))
    other.load_state_dict(back["model"])
    other_optimiser.load_state_dict(back["optimiser"])
    train(other, other_optimiser, range(3, 6))
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert same(other_optimiser.state_dict(), optimiser.state_dict())
