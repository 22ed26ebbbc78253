"""The encoder of grid views: the same row by row, conditioned by the mission, trained in full."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import Tensor

from relagent.envs import IMAGE_HIGH, PARTS, observation_space, tokenize
from relagent.rl.encoder import EncoderError, GridEncoder, default_encoder, is_grid_space
from relagent.rl.grids import GridIndex, KnownGrids

MISSIONS = ("go to the red door", "go to the green door", "get a ball", "red the door to go")


def views(n: int, distinct: int, parts: tuple[str, ...], seed: int = 0) -> dict[str, Tensor]:
    """N observations with at most ``distinct`` different images."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, np.array(IMAGE_HIGH) + 1, (distinct, 7, 7, 3)).astype(np.uint8)
    every = {
        "image": images[rng.integers(distinct, size=n)],
        "direction": rng.integers(4, size=n),
        "previous_action": rng.integers(8, size=n),
        "mission": np.stack([tokenize(MISSIONS[i]) for i in rng.integers(len(MISSIONS), size=n)]),
    }
    return {part: torch.as_tensor(every[part]) for part in parts}


def encoder(parts: tuple[str, ...] = PARTS) -> GridEncoder:
    torch.manual_seed(0)
    space = observation_space(parts)
    return GridEncoder(space, features_dim=12, channels=6, cell_size=4, mission_size=5).double()


@given(
    n=st.integers(1, 12),
    distinct=st.integers(1, 4),
    others=st.sets(st.sampled_from(PARTS[1:])),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_a_batch_is_encoded_row_by_row(n: int, distinct: int, others: set[str], seed: int) -> None:
    parts = tuple(part for part in PARTS if part == "image" or part in others)
    encode, observations = encoder(parts), views(n, distinct, parts, seed)

    together = encode(observations)

    assert together.shape == (n, 12)
    for i in range(n):
        alone = encode({part: values[i : i + 1] for part, values in observations.items()})
        assert (together[i] - alone[0]).abs().max() <= 1e-12


def count_encoded(encode: GridEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of grids of each encoding."""
    encoded: list[int] = []
    original = encode._encode_grids

    def count(grids: GridIndex) -> Tensor:
        encoded.append(len(grids.kind))
        return original(grids)

    monkeypatch.setattr(encode, "_encode_grids", count)
    return encoded


def n_distinct(observations: dict[str, Tensor]) -> int:
    """Pairs of view and mission."""
    keys = [observations[part].flatten(1) for part in ("image", "mission") if part in observations]
    return len({tuple(row) for row in torch.cat(keys, dim=1).tolist()})


@pytest.mark.parametrize("parts", [PARTS, PARTS[:3]])
def test_each_distinct_pair_of_view_and_mission_is_encoded_once(
    parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, observations = encoder(parts), views(40, 3, parts)
    encoded = count_encoded(encode, monkeypatch)
    encode(observations)
    assert encoded == [n_distinct(observations)]
    assert encoded[0] < 40


@given(
    parts=st.sampled_from([PARTS, PARTS[:3], ("image", "mission")]),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_numbered_observations_are_encoded_as_any_others(
    parts: tuple[str, ...], sizes: list[int], seed: int
) -> None:
    encode, known = encoder(parts), KnownGrids()
    everything = views(sum(sizes), 5, parts, seed)
    expected = encode(everything)
    numbered: list[dict[str, Tensor]] = []
    for n in sizes:
        done = sum(len(batch["grid"]) for batch in numbered)
        batch = {part: values[done : done + n] for part, values in everything.items()}
        numbered.append(known.number(batch))
        with torch.no_grad(), encode.recalling(known):
            features = encode(numbered[-1])
        assert (features - expected[done : done + n]).abs().max() <= 1e-12
    together = {part: torch.cat([batch[part] for batch in numbered]) for part in numbered[0]}

    with encode.recalling(known):
        replayed = encode(together)

    assert (replayed - expected).abs().max() <= 1e-12
    weights = torch.rand_like(expected)
    parameters = list(encode.parameters())
    found = torch.autograd.grad((replayed * weights).sum(), parameters)
    right = torch.autograd.grad((expected * weights).sum(), parameters)
    for a, b in zip(found, right, strict=True):
        assert (a - b).abs().max() <= 1e-10


def test_a_known_grid_is_not_encoded_again_without_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode, known = encoder(), KnownGrids()
    encoded = count_encoded(encode, monkeypatch)
    batches = [views(20, 4, PARTS, seed) for seed in (0, 0, 1)]
    for batch in batches:
        with torch.no_grad(), encode.recalling(known):
            encode(known.number(batch))
    every = {part: torch.cat([batch[part] for batch in batches]) for part in PARTS}
    assert sum(encoded) == n_distinct(every)


def test_numbers_mean_nothing_without_the_grids_that_gave_them() -> None:
    encode = encoder()
    observations = views(10, 3, PARTS)
    strange = {**observations, "grid": torch.arange(10)}
    assert torch.equal(encode(strange), encode(observations))


def test_missions_of_large_vocabularies_are_told_apart() -> None:
    """Word ids past 255 must not be cut to the image's eight bits when rows are compared."""
    space = spaces.Dict(
        {
            "image": observation_space(("image",))["image"],
            "mission": spaces.Box(0, 999, (3,), dtype=np.int64),
        }
    )
    torch.manual_seed(0)
    encode = GridEncoder(space).double()
    image = views(1, 1, ("image",))["image"].expand(2, -1, -1, -1)
    words = torch.tensor([[5, 7, 0], [5 + 256, 7, 0]])

    first, second = encode({"image": image, "mission": words})

    assert not torch.equal(first, second)


def conditioned(encode: GridEncoder, image: Tensor, mission: str) -> Tensor:
    """Features before the last nonlinearity: [U, F]."""
    words = torch.tensor(tokenize(mission).tolist())
    return encode._encode(image, words.expand(len(image), -1))


def test_the_mission_conditions_the_view() -> None:
    encode = encoder(("image", "mission"))
    images = torch.cat([views(1, 1, ("image",), seed)["image"] for seed in (0, 1)])
    first, second = (conditioned(encode, images, text) for text in MISSIONS[:2])

    assert (first - second).abs().amax(dim=1).min() > 1e-6
    # More than an addend: the same change of mission changes the two views differently.
    change = first - second
    assert (change[0] - change[1]).abs().max() > 1e-6


def test_word_order_matters_and_padding_does_not() -> None:
    encode = encoder(("image", "mission"))
    image = views(1, 1, ("image",))["image"]
    ordered, shuffled = (conditioned(encode, image, MISSIONS[i]) for i in (0, 3))
    assert (ordered - shuffled).abs().max() > 1e-6

    words = torch.tensor([tokenize(MISSIONS[0]).tolist()])
    used = int((words > 0).sum())
    assert (encode._encode(image, words[:, :used]) - ordered).abs().max() <= 1e-12


def test_an_empty_mission_is_read_without_a_failure() -> None:
    encode = encoder(("image", "mission"))
    image = views(1, 1, ("image",))["image"]
    assert conditioned(encode, image, "").isfinite().all()


def test_gradient_reaches_every_parameter() -> None:
    encode, observations = encoder(), views(30, 12, PARTS)
    encode(observations).square().sum().backward()
    for name, parameter in encode.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def grid_like(**changes: Any) -> spaces.Dict:
    return spaces.Dict(observation_space(("image", "direction")).spaces | changes)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (observation_space(), GridEncoder),
        (observation_space(("image",)), GridEncoder),
        (grid_like(image=spaces.Box(0, 255, (64, 64, 3), dtype=np.uint8)), CombinedExtractor),
        (grid_like(image=spaces.Box(0, 10, (7, 5, 3), dtype=np.uint8)), CombinedExtractor),
        (grid_like(image=spaces.Box(0, 2, (7, 7, 3), dtype=np.uint8)), CombinedExtractor),
        (grid_like(battery=spaces.Box(0, 1, (1,))), CombinedExtractor),
        (spaces.Box(0, 255, (3, 64, 64), dtype=np.uint8), NatureCNN),
        (spaces.Box(-1, 1, (4,)), FlattenExtractor),
        (spaces.Discrete(3), FlattenExtractor),
    ],
)
def test_the_encoder_fits_the_observation(space: spaces.Space[Any], expected: type) -> None:
    """A dictionary with a part that the grid's encoder would ignore is not a grid observation."""
    assert default_encoder(space) is expected
    assert is_grid_space(space) == (expected is GridEncoder)


@pytest.mark.parametrize("alone", [True, False])
def test_pictures_too_small_for_any_encoder_are_named(alone: bool) -> None:
    picture = spaces.Box(0, 255, (3, 20, 20), dtype=np.uint8)
    space = picture if alone else spaces.Dict({"camera": picture, "speed": spaces.Box(0, 1, (1,))})
    with pytest.raises(EncoderError, match=r"pictures of \(3, 20, 20\)"):
        default_encoder(space)
