from __future__ import annotations

from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  # registers its ids
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs.empty import EmptyEnv
from minigrid.wrappers import ImgObsWrapper
from stable_baselines3.common.preprocessing import is_image_space

from relagent.envs import (
    IMAGE_HIGH,
    MISSION_LENGTH,
    NO_ACTION,
    PADDING,
    PARTS,
    UNKNOWN_WORD,
    VOCABULARY_SIZE,
    WORDS,
    GridObservation,
    ObservationPartsError,
    UnsupportedSpaceError,
    default_parts,
    detokenize,
    make_env,
    observation_space,
    tokenize,
)

GRID_IDS = sorted(i for i in gym.registry if i.startswith(("MiniGrid-", "BabyAI-")))


def _missions(env_id: str) -> set[str]:
    env: Any = gym.make(env_id, disable_env_checker=True)
    space = env.observation_space["mission"]
    missions = {space.sample() for _ in range(30)}
    if "WFC" not in env_id:  # its layouts need a package that is not required here
        missions |= {env.reset(seed=seed)[0]["mission"] for seed in range(8)}
    return missions


@pytest.mark.parametrize("group", range(8))
def test_the_vocabulary_covers_every_registered_mission(group: int) -> None:
    for env_id in GRID_IDS[group::8]:
        for mission in _missions(env_id):
            assert UNKNOWN_WORD not in tokenize(mission), (env_id, mission)


def test_the_longest_mission_of_the_grammar_fits() -> None:
    put = "put the yellow ball in front of you next to the purple box in front of you"
    longest = f"{put} and {put} after you {put} and {put}"
    assert len(longest.split()) == MISSION_LENGTH
    assert detokenize(tokenize(longest)) == longest


def test_the_vocabulary_keeps_its_order() -> None:
    # Trained weights depend on these ids: words may only be appended.
    assert len(WORDS) == len(set(WORDS)) >= 54
    assert len(WORDS) + 2 <= VOCABULARY_SIZE
    assert WORDS[:54] == tuple(sorted(WORDS[:54]))
    assert tokenize("a your")[:3].tolist() == [2, 55, PADDING]


@given(st.lists(st.sampled_from(WORDS), max_size=MISSION_LENGTH))
def test_tokens_round_trip(words: list[str]) -> None:
    tokens = tokenize(" ".join(words))
    assert tokens.shape == (MISSION_LENGTH,)
    assert detokenize(tokens) == " ".join(words)
    assert observation_space(["mission"])["mission"].contains(tokens)


def test_case_and_punctuation_do_not_matter_and_unknown_words_show() -> None:
    assert np.array_equal(
        tokenize("Go to the door, then open"), tokenize("go to the door then open")
    )
    with pytest.warns(UserWarning, match=r"words that no MiniGrid world has \(portal\)"):
        tokens = tokenize("open the portal")
    assert detokenize(tokens) == "open the <unknown>"


def test_tokens_cannot_be_spoilt_for_others() -> None:
    with pytest.raises(ValueError, match="read-only"):
        tokenize("go to the door")[0] = 9


def test_the_image_has_the_codes_of_minigrid_and_is_no_picture() -> None:
    assert IMAGE_HIGH[:2] == (max(OBJECT_TO_IDX.values()), max(COLOR_TO_IDX.values()))
    image = observation_space()["image"]
    assert image.shape == (7, 7, 3)
    assert not is_image_space(image)


@pytest.mark.parametrize(
    ("env_id", "mission"),
    [
        ("MiniGrid-DoorKey-5x5-v0", False),
        ("MiniGrid-MemoryS7-v0", False),
        ("MiniGrid-GoToDoor-5x5-v0", True),
        ("BabyAI-GoToLocal-v0", True),
    ],
)
def test_the_mission_is_left_out_where_it_never_varies(env_id: str, mission: bool) -> None:
    assert ("mission" in default_parts(env_id)) == mission
    assert set(default_parts(env_id)) | {"mission"} == set(PARTS)


@pytest.mark.parametrize("parts", [[], ["image", "image"], ["sound"], "sound"])
def test_wrong_parts_are_named(parts: list[str] | str) -> None:
    with pytest.raises(ObservationPartsError, match="choose one or more of image, direction"):
        observation_space(parts)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped")
@pytest.mark.parametrize("env_id", ["MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToLocal-v0"])
def test_grid_observation_is_a_correct_gymnasium_environment(env_id: str) -> None:
    env = GridObservation(gym.make(env_id, disable_env_checker=True))
    check_env(env, skip_render_check=True)


@settings(max_examples=20, deadline=None)
@given(
    parts=st.lists(st.sampled_from(PARTS), min_size=1, unique=True),
    actions=st.lists(st.integers(0, 6), min_size=1, max_size=20),
    seed=st.integers(0, 2**31 - 1),
)
def test_parts_are_minigrids_own(parts: list[str], actions: list[int], seed: int) -> None:
    env_id = "MiniGrid-Fetch-5x5-N2-v0"
    env = make_env(env_id, parts)
    plain = gym.make(env_id, disable_env_checker=True)
    seen, _ = env.reset(seed=seed)
    raw, _ = plain.reset(seed=seed)
    last = NO_ACTION
    for action in [*actions, None]:
        assert set(seen) == set(parts)
        assert env.observation_space.contains(seen)
        expected = {
            "image": raw["image"],
            "direction": raw["direction"],
            "previous_action": last,
            "mission": tokenize(raw["mission"]),
        }
        for part in parts:
            assert np.array_equal(seen[part], expected[part])
        if action is None:
            break
        seen, reward, terminated, truncated, info = env.step(action)
        raw, raw_reward, raw_terminated, raw_truncated, _ = plain.step(action)
        assert reward == raw_reward
        assert (terminated, truncated) == (raw_terminated, raw_truncated and not raw_terminated)
        last = action
        if terminated or truncated:
            assert info["is_success"] == (float(reward) > 0)
            break
        assert "is_success" not in info


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (lambda: EmptyEnv(agent_view_size=5), r"EmptyEnv sees \(5, 5, 3\).*agent_view_size at 7"),
        (lambda: ImgObsWrapper(EmptyEnv()), r"EmptyEnv sees Box.*wrappers away"),
        (lambda: ActionsEnv(spaces.Discrete(9)), r"takes actions Discrete\(9\).*at most 7"),
        (lambda: ActionsEnv(spaces.MultiDiscrete([2, 2])), r"only Discrete ones"),
    ],
)
def test_worlds_unlike_the_registered_ones_are_named(world: Any, words: str) -> None:
    with pytest.raises(UnsupportedSpaceError, match=words) as caught:
        GridObservation(world())
    assert "\n" not in str(caught.value)


class ActionsEnv(EmptyEnv):
    def __init__(self, actions: spaces.Space[Any]) -> None:
        super().__init__()
        self.action_space: Any = actions


@pytest.mark.parametrize("cell", [(11, 0, 0), (5, 6, 0), (4, 0, 4)])
def test_a_cell_that_minigrid_does_not_have_is_named(cell: tuple[int, int, int]) -> None:
    """Its number would be another cell's, or none."""

    class Odd(EmptyEnv):
        def gen_obs(self) -> Any:
            seen = super().gen_obs()
            seen["image"][3, 3] = cell
            return seen

    with pytest.raises(UnsupportedSpaceError, match=r"Odd shows cells with .* codes above"):
        GridObservation(Odd()).reset(seed=0)


def test_an_episode_starts_without_a_previous_action() -> None:
    env = make_env("MiniGrid-DoorKey-5x5-v0")
    env.reset(seed=0)
    assert env.step(1)[0]["previous_action"] == 1
    assert env.reset()[0]["previous_action"] == NO_ACTION
