"""The policy as its users see it: predict, states, options."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from relagent.memories import MEMORIES, Memory, MemoryOptionError
from relagent.rl import MemoryPPO
from relagent.rl.policy import PolicyInputError, PolicyOptionError, flatten_time

from .worlds import ACTIONS, OBSERVATIONS, every_memory_in, small_model, toys, weights, world

every_memory = pytest.mark.parametrize("memory", MEMORIES)


def observations(name: str, steps: int, batch: int) -> list[Any]:
    """Observations [B, ...] of some steps of a world, played at random."""
    env = world(name, batch)
    env.seed(3)
    env.action_space.seed(3)
    seen = [env.reset()]
    for _ in range(steps - 1):
        actions = np.array([env.action_space.sample() for _ in range(batch)])
        seen.append(env.step(actions)[0])
    return seen


def row(observation: Any, i: int) -> Any:
    if isinstance(observation, dict):
        return {key: value[i] for key, value in observation.items()}
    return observation[i]


@pytest.mark.parametrize("name", ["grid", *OBSERVATIONS])
def test_one_observation_is_a_batch_of_one_without_its_axis(name: str) -> None:
    model = small_model(world(name), "rel", double=True)
    (batch,) = observations(name, 1, 3)
    actions, states = model.predict(batch, deterministic=True)
    assert actions.shape == (3,)
    assert states is not None
    for i in range(3):
        action, state = model.predict(row(batch, i), deterministic=True)
        assert action.shape == () and action == actions[i]
        assert state is not None
        for part, parts in zip(state, states, strict=True):
            assert np.abs(part[0] - parts[i]).max() <= 1e-12


@every_memory_in("box", "grid")
def test_carrying_the_state_is_an_unroll(memory: str, name: str) -> None:
    """predict, step by step with its returned state, equals the sequence in one go."""
    model = small_model(world(name), memory, double=True)
    policy = model.policy
    seen = observations(name, 9, 4)
    starts = np.random.default_rng(5).random((9, 4)) < 0.3

    tensors = [policy.obs_to_tensor(observation)[0] for observation in seen]
    stacked: Any = (
        {key: torch.stack([t[key] for t in tensors]) for key in tensors[0]}  # type: ignore[index]  # all are dictionaries
        if isinstance(tensors[0], dict)
        else torch.stack(tensors)  # type: ignore[arg-type]  # none is a dictionary
    )
    with torch.no_grad():
        features = policy.encode(flatten_time(stacked)).view(9, 4, -1)
        outputs, final = policy.memory.unroll(
            features, policy.initial_state(4), torch.as_tensor(starts)
        )
        latent = outputs.flatten(0, 1)
        # Weights that like every action somewhere, as those of a trained policy do.
        torch.nn.init.normal_(policy.action_net.weight)
        policy.action_net.bias.sub_(policy.action_net(policy.actor_layers(latent)).mean(dim=0))
        expected = policy.distribution(latent).get_actions(deterministic=True)

    state: tuple[np.ndarray, ...] | None = None
    actions = []
    for observation, start in zip(seen, starts, strict=True):
        action, state = model.predict(observation, state, start, deterministic=True)
        actions.append(action)

    assert state is not None and len(state) == len(final)
    for part, tensor in zip(state, final, strict=True):
        assert part.shape == tensor.shape and part.dtype == tensor.numpy().dtype
        assert np.abs(part.astype(float) - tensor.numpy()).max(initial=0) <= 1e-10
    assert np.array_equal(np.stack(actions), expected.view(9, 4).numpy())
    assert len(np.unique(actions)) > 1, "one action only: the test shows too little"


@every_memory
def test_an_episode_start_empties_the_memory(memory: str) -> None:
    """Row by row: what a new episode is told of the last one is nothing, not even a NaN."""
    model = small_model(toys(), memory, double=True)
    *history, now = observations("box", 8, 4)
    state: tuple[np.ndarray, ...] | None = None
    for observation in history:
        _, state = model.predict(observation, state, np.zeros(4, bool), deterministic=True)
    assert state is not None
    spoilt = tuple(part.copy() for part in state)
    for part in spoilt:
        if part.dtype.kind == "f":
            part[:2] = np.nan
    starts = np.array([True, True, False, False])

    _, after = model.predict(now, spoilt, starts, deterministic=True)
    _, fresh = model.predict(now, None, np.ones(4, bool), deterministic=True)
    _, carried = model.predict(now, state, np.zeros(4, bool), deterministic=True)

    assert after is not None and fresh is not None and carried is not None
    reset_rows = latent(model, now, after, spoilt, starts)
    assert torch.equal(reset_rows[:2], latent(model, now, fresh, None, np.ones(4, bool))[:2])
    assert (
        reset_rows[2:] - latent(model, now, carried, state, np.zeros(4, bool))[2:]
    ).abs().max() <= 1e-12
    assert reset_rows.isfinite().all()


def latent(
    model: MemoryPPO,
    observation: np.ndarray,
    after: tuple[np.ndarray, ...],
    before: tuple[np.ndarray, ...] | None,
    starts: np.ndarray,
) -> Tensor:
    """The memory's output for what ``predict`` was given; its next state must be ``after``."""
    policy = model.policy
    memory: Any = policy.initial_state(len(observation))
    if before is not None:
        memory = type(memory)(*map(torch.as_tensor, before))
    with torch.no_grad():
        output, state = policy.remember(
            torch.as_tensor(observation), memory, torch.as_tensor(starts)
        )
    assert all(np.array_equal(new, part.numpy()) for new, part in zip(after, state, strict=True))
    return output


def test_predict_changes_no_array_that_it_was_given() -> None:
    model = small_model(toys(), "rel")
    seen = observations("box", 3, 4)
    _, state = model.predict(seen[0])
    assert state is not None
    copies = [part.copy() for part in state]
    model.predict(seen[1], state, np.ones(4, bool))
    model.predict(seen[2], state)
    assert all(np.array_equal(part, copy) for part, copy in zip(state, copies, strict=True))


def test_deterministic_actions_are_the_most_probable() -> None:
    model = small_model(toys(), "lstm")
    (batch,) = observations("box", 1, 50)
    policy = model.policy
    greedy = policy.predict(batch, deterministic=True)[0]
    with torch.no_grad():
        output, _ = policy.remember(
            torch.as_tensor(batch), policy.initial_state(50), torch.ones(50).bool()
        )
        distribution: Any = policy.distribution(output).distribution
    assert np.array_equal(greedy, distribution.probs.argmax(dim=1).numpy())
    sampled = [policy.predict(batch)[0] for _ in range(3)]
    assert len(np.unique(sampled)) == 3


@every_memory
def test_gradient_reaches_every_parameter_of_the_policy(memory: str) -> None:
    model = small_model(world("grid"), memory, double=True)
    model.learn(12 * 4)
    assert model.rollout is not None
    batch = model.rollout.take(torch.arange(4))
    model.policy.zero_grad()
    values, log_prob, entropy = model.policy.evaluate_actions(
        batch.observations, batch.actions, batch.start_state, batch.episode_starts
    )
    assert entropy is not None
    torch.autograd.backward(values.square().sum() + log_prob.sum() + entropy.sum())
    for name, parameter in model.policy.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


# Parts of one's own.


class DecayState(NamedTuple):
    trace: Tensor


class Decay(Memory[DecayState]):
    """A memory that a user could write: a fading sum of its inputs."""

    def __init__(self, input_size: int, hidden_size: int, *, decay: float = 0.5) -> None:
        super().__init__(input_size, hidden_size)
        self.decay = decay
        self.layer = nn.Linear(input_size, hidden_size)

    def initial_state(self, batch: int) -> DecayState:
        return DecayState(self.zeros(batch, self.hidden_size))

    def step(self, x: Tensor, state: DecayState) -> tuple[Tensor, DecayState]:
        trace = self.decay * state.trace + self.layer(x)
        return trace, DecayState(trace)


class Doubled(BaseFeaturesExtractor):
    """An encoder that a user could write."""

    def __init__(self, observation_space: spaces.Space[Any], factor: float = 2.0) -> None:
        super().__init__(observation_space, features_dim=3)
        self.factor = factor

    def forward(self, observations: Tensor) -> Tensor:
        return self.factor * observations


def test_a_memory_and_an_encoder_of_ones_own() -> None:
    model = small_model(
        toys(),
        policy_kwargs={
            "memory": Decay,
            "memory_kwargs": {"decay": 0.25},
            "features_extractor_class": Doubled,
            "features_extractor_kwargs": {"factor": 4.0},
        },
    )
    memory, encoder = model.policy.memory, model.policy.features_extractor
    assert isinstance(memory, Decay) and memory.decay == 0.25
    assert isinstance(encoder, Doubled) and encoder.factor == 4.0
    before = weights(model)["memory.layer.weight"]
    model.learn(2 * 12 * 4)
    assert not torch.equal(before, weights(model)["memory.layer.weight"])

    ones = np.ones((1, 3), np.float32)
    _, state = model.predict(ones)
    assert state is not None
    expected = memory.layer(4 * torch.ones(1, 3)).detach().numpy()
    assert np.allclose(state[0], expected, atol=1e-6)
    _, state = model.predict(ones, state)
    assert state is not None and np.allclose(state[0], 1.25 * expected, atol=1e-6)


def test_a_policy_is_named_after_its_memory() -> None:
    for name, memory in (
        ("RelLstmPolicy", "rel"),
        ("MemLstmPolicy", "mem"),
        ("LstmPolicy", "lstm"),
        ("GruPolicy", "gru"),
        ("NoMemoryPolicy", "none"),
    ):
        model = MemoryPPO(name, toys(1), device="cpu")
        assert type(model.policy.memory) is MEMORIES[memory]


def test_heads_without_layers_and_with_several() -> None:
    for net_arch in ((), (6, 5)):
        model = small_model(toys(), "lstm", policy_kwargs={"net_arch": net_arch})
        before = weights(model)
        model.learn(12 * 4)
        after = weights(model)
        assert any(name.startswith("critic_layers") for name in after) == bool(net_arch)
        assert not torch.equal(before["value_net.weight"], after["value_net.weight"])


def test_another_optimiser() -> None:
    model = small_model(
        toys(),
        policy_kwargs={
            "optimizer_class": torch.optim.RMSprop,
            "optimizer_kwargs": {"alpha": 0.9},
        },
        learning_rate=lambda progress: 1e-3 * progress,
    )
    assert isinstance(model.policy.optimizer, torch.optim.RMSprop)
    model.learn(2 * 12 * 4)
    (group,) = model.policy.optimizer.param_groups
    assert group["alpha"] == 0.9 and group["lr"] == 0.0


# Errors of users.


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"memory": "rell"}, MemoryOptionError, ["'rell'", "did you mean rel?", "lstm"]),
        ({"memory": "rel", "memory_kwargs": {"nu": 0}}, MemoryOptionError, ["nu=0", "at least 1"]),
        ({"memory": "lstm", "memory_kwargs": {"nu": 5}}, MemoryOptionError, ["'lstm'", "nu"]),
        ({"hidden_size": 0}, MemoryOptionError, ["hidden_size=0", "at least 1"]),
        ({"net_arch": {"pi": [64], "vf": [64]}}, PolicyOptionError, ["net_arch={'pi'", "[64, 64]"]),
        ({"net_arch": [0]}, PolicyOptionError, ["net_arch=[0]"]),
        ({"net_arch": 64}, PolicyOptionError, ["net_arch=64"]),
    ],
)
def test_wrong_options_get_one_clear_line(
    options: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        small_model(toys(), policy_kwargs={"memory_kwargs": {}, **options})
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize("action", ACTIONS)
def test_a_policy_that_was_trained_can_be_copied(action: str) -> None:
    model = small_model(toys(2, "box", action), "none")
    model.learn(12 * 2)
    copied = copy.deepcopy(model.policy)
    assert all(map(torch.equal, copied.parameters(), model.policy.parameters()))
    first = model.policy.distribution(torch.zeros(1, 8))
    mode = first.mode().clone()
    model.policy.distribution(torch.ones(5, 8))
    assert torch.equal(first.mode(), mode)


def test_what_cannot_be_acted_on_is_named() -> None:
    model = small_model(toys(), "none")
    observation: Any = np.zeros((4, 3), np.float32)
    with pytest.raises(PolicyInputError, match=r"pass the observation alone"):
        model.predict((observation[0], {}))  # type: ignore[arg-type]  # the mistake
    with pytest.raises(PolicyInputError, match=r"episode_start has 3 values for 4 observations"):
        model.predict(observation, None, np.ones(3, bool))
    single, _ = model.predict(observation[0], None, np.array(True))
    assert single.shape == ()


def test_state_dependent_exploration_is_refused() -> None:
    with pytest.raises(PolicyOptionError, match=r"^use_sde=True: .* leave it False$"):
        small_model(toys(2, "box", "box"), use_sde=True)
