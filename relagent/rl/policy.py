"""Encoder, memory, actor and critic: the policy of :class:`~relagent.rl.ppo.MemoryPPO`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution, make_proba_distribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from relagent.errors import RelagentError
from relagent.memories import AnyState, Attention, Memory, kernels, make_memory
from relagent.memories.state import map_state
from relagent.rl.categorical import lean
from relagent.rl.encoder import GridEncoder, default_encoder
from relagent.rl.grids import KnownGrids

Observation = np.ndarray | dict[str, np.ndarray]


@dataclass(frozen=True)
class Recall:
    """What a policy need not find out twice during a rollout, as its weights stay the same.

    Attributes:
        grids: the distinct grids, and what they were encoded to; ``None`` for other observations.
        layouts: the memory's weights as its kernel reads them.
    """

    grids: KnownGrids | None
    layouts: dict[Any, Any] = field(default_factory=dict)

    def number(self, observations: Any) -> Any:
        """Return observations [N, ...] with the numbers of their grids."""
        return observations if self.grids is None else self.grids.number(observations)


class PolicyOptionError(RelagentError):
    """A policy option that cannot work."""


class PolicyInputError(RelagentError):
    """Something that a policy cannot act on."""


class MemoryPolicy(BasePolicy):
    """An actor-critic with a memory between the encoder and the two heads.

    ::

        observation -> encoder -> memory -> actor  -> action
                                         -> critic -> value

    Args:
        observation_space: Box, Discrete or Dict.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        lr_schedule: learning rate against the remaining progress (1 to 0).
        memory: the name of a registered memory, or a :class:`~relagent.memories.Memory` class; by
            default the one that the policy is named after.
        memory_kwargs: options of the memory, such as ``dict(nu=5, rho=5)``.
        hidden_size: H, the size of the memory's output.
        net_arch: sizes of the tanh layers of each head.
        features_extractor_class: the encoder; by default chosen by the observation space.
        features_extractor_kwargs: options of the encoder.
        normalize_images: divide true pictures by 255.
        optimizer_class: by default Adam.
        optimizer_kwargs: options of the optimiser besides the learning rate.

    Raises:
        PolicyOptionError: state-dependent exploration was asked for, layers of no size, or options
            of the memory without names.
        MemoryOptionError: an unknown memory or impossible options.
    """

    default_memory: ClassVar[str] = "rel"

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        memory: str | type[Memory[Any]] | None = None,
        memory_kwargs: dict[str, Any] | None = None,
        hidden_size: int = 64,
        net_arch: Sequence[int] = (64,),
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
    ) -> None:
        if use_sde:
            raise PolicyOptionError(
                "use_sde=True: state-dependent exploration is not offered with memories: leave it "
                "False"
            )
        if not (
            isinstance(net_arch, list | tuple)
            and all(isinstance(width, int | np.integer) and width > 0 for width in net_arch)
        ):
            raise PolicyOptionError(
                f"net_arch={net_arch!r} cannot work: give the sizes of the layers that the actor "
                "and the critic have each, such as [64, 64]"
            )
        if optimizer_class is torch.optim.Adam:
            # One kernel for all of the many small parameters: four times faster.
            others = ("foreach", "differentiable")  # which exclude it
            chosen = optimizer_kwargs or {}
            optimizer_kwargs = {"fused": not any(map(chosen.get, others)), **chosen}
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class or default_encoder(observation_space),
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.features_extractor = self.make_features_extractor()
        features = self.features_extractor.features_dim
        if memory_kwargs is not None and not isinstance(memory_kwargs, dict):
            raise PolicyOptionError(
                f"memory_kwargs={memory_kwargs!r} cannot work: give options by name, such as "
                "dict(nu=5, rho=5)"
            )
        self.memory: Memory[Any] = make_memory(
            self.default_memory if memory is None else memory,
            features,
            hidden_size,
            **(memory_kwargs or {}),
        )
        self.actor_layers = _head(hidden_size, net_arch)
        self.critic_layers = _head(hidden_size, net_arch)
        width = net_arch[-1] if net_arch else hidden_size
        self.action_dist = lean(make_proba_distribution(action_space))
        self._make_action_net(width)
        self.value_net = nn.Linear(width, 1)
        nn.init.orthogonal_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        self.optimizer = cast(Any, self.optimizer_class)(
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )

    def _make_action_net(self, width: int) -> None:
        if isinstance(self.action_space, spaces.Box):
            # The mean is computed, the log standard deviation is a free parameter.
            net, self.log_std = cast(Any, self.action_dist).proba_distribution_net(latent_dim=width)
        else:
            net = cast(Any, self.action_dist).proba_distribution_net(latent_dim=width)
        self.action_net: nn.Linear = net
        # A policy that starts near uniform explores.
        nn.init.orthogonal_(self.action_net.weight, gain=0.01)
        nn.init.zeros_(self.action_net.bias)

    def save(self, path: str) -> None:
        """Not offered: a policy is saved with its model."""
        raise PolicyOptionError("a policy is saved with its model: call model.save(path)")

    @classmethod
    def load(cls, path: str, device: torch.device | str = "auto") -> Self:
        """Not offered: a policy is loaded with its model."""
        raise PolicyOptionError("a policy is loaded with its model: MemoryPPO.load(path).policy")

    def initial_state(self, batch: int) -> AnyState:
        """Return the empty memory of ``batch`` environments."""
        return cast(AnyState, self.memory.initial_state(batch))

    def new_recall(self) -> Recall:
        """Return what is known before a rollout: nothing."""
        on_cpu = self.device.type == "cpu"
        grids = on_cpu and isinstance(self.features_extractor, GridEncoder)
        return Recall(KnownGrids() if grids else None)

    @contextmanager
    def acting(self, recall: Recall) -> Iterator[None]:
        """Inside, there is no gradient, and what is known of the weights still holds."""
        with torch.no_grad(), self.telling_apart(recall), kernels.constant_weights(recall.layouts):
            yield

    @contextmanager
    def telling_apart(self, recall: Recall) -> Iterator[None]:
        """Inside, numbered observations are told apart by their numbers."""
        if recall.grids is not None and isinstance(self.features_extractor, GridEncoder):
            with self.features_extractor.recalling(recall.grids):
                yield
        else:
            yield

    def encode(self, observations: PyTorchObs) -> Tensor:
        """Encode N observations: [N, ...] -> features [N, F]."""
        if isinstance(self.features_extractor, GridEncoder):
            return cast(Tensor, self.features_extractor(observations))
        prepared = preprocess_obs(
            observations, self.observation_space, normalize_images=self.normalize_images
        )
        # That is single precision, and the policy need not be.
        dtype = self.value_net.weight.dtype
        return cast(
            Tensor,
            self.features_extractor(
                {key: value.to(dtype) for key, value in prepared.items()}
                if isinstance(prepared, dict)
                else prepared.to(dtype)
            ),
        )

    def remember(
        self, observations: PyTorchObs, state: AnyState, episode_starts: Tensor
    ) -> tuple[Tensor, AnyState]:
        """Read one observation of each environment into its memory.

        Args:
            observations: [B, ...].
            state: the memories before this step.
            episode_starts: [B], true where the memory is to be emptied first.

        Returns:
            The memory's output [B, H] and the next state.
        """
        features = self.encode(observations).unsqueeze(0)  # [B, F] -> [1, B, F]
        outputs, state = self.memory.unroll(features, state, episode_starts.unsqueeze(0))
        return outputs.squeeze(0), state

    def distribution(self, latent: Tensor) -> Distribution:
        """Return the distribution over actions for outputs of the memory [N, H]."""
        latent = self.action_net(self.actor_layers(latent))
        # A new one: what hung on the policy's own would keep its graph, which cannot be copied.
        distribution = cast(Any, copy(self.action_dist))
        if isinstance(self.action_space, spaces.Box):
            return cast(Distribution, distribution.proba_distribution(latent, self.log_std))
        return cast(Distribution, distribution.proba_distribution(latent))

    def get_distribution(
        self, observations: PyTorchObs, state: AnyState, episode_starts: Tensor
    ) -> tuple[Distribution, AnyState]:
        """Return the distribution over actions and the next state; arguments as in `remember`."""
        latent, state = self.remember(observations, state, episode_starts)
        return self.distribution(latent), state

    def values(self, latent: Tensor) -> Tensor:
        """Return the values [N] for outputs of the memory [N, H]."""
        return cast(Tensor, self.value_net(self.critic_layers(latent))).squeeze(-1)

    def forward(
        self,
        observations: PyTorchObs,
        state: AnyState,
        episode_starts: Tensor,
        deterministic: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, AnyState]:
        """Act: return actions [B, ...], values [B], log-probabilities [B] and the next state."""
        latent, state = self.remember(observations, state, episode_starts)
        distribution = self.distribution(latent)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.values(latent), distribution.log_prob(actions), state

    def evaluate_actions(
        self, observations: PyTorchObs, actions: Tensor, state: AnyState, episode_starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Replay whole rollouts under the current weights.

        The relevant set is selected again on the way; with unchanged weights this repeats what
        happened while acting.

        Args:
            observations: [T, B, ...].
            actions: [T, B, ...].
            state: the memories before the first step; constants.
            episode_starts: [T, B].

        Returns:
            Values [T, B], log-probabilities [T, B] and entropies [T, B] (``None`` where the
            distribution has no closed form).
        """
        steps, batch = episode_starts.shape
        features = self.encode(flatten_time(observations))
        outputs, _ = self.memory.unroll(features.view(steps, batch, -1), state, episode_starts)
        latent = outputs.flatten(0, 1)  # [T, B, H] -> [T·B, H]
        distribution = self.distribution(latent)
        log_prob = distribution.log_prob(actions.flatten(0, 1))
        entropy = distribution.entropy()
        return (
            self.values(latent).view(steps, batch),
            log_prob.view(steps, batch),
            None if entropy is None else entropy.view(steps, batch),
        )

    def trace(self, observations: PyTorchObs, state: AnyState, episode_starts: Tensor) -> Attention:
        """Replay a rollout and return what an attentive memory looked at.

        Args:
            observations: [T, B, ...].
            state: the memories before the first step.
            episode_starts: [T, B].

        Raises:
            MemoryOptionError: the memory has no attention.
        """
        steps, batch = episode_starts.shape
        with torch.no_grad():
            features = self.encode(flatten_time(observations)).view(steps, batch, -1)
            return self.memory.trace(features, state, episode_starts)[2]

    def predict_values(
        self, observations: PyTorchObs, state: AnyState, episode_starts: Tensor
    ) -> Tensor:
        """Return the values [B] of observations [B, ...], seen next by the given memories."""
        latent, _ = self.remember(observations, state, episode_starts)
        return self.values(latent)

    def to_env(self, actions: Tensor) -> np.ndarray:
        """Return actions [B, ...] as environments take them: of the space's shape, limits, type."""
        space = self.action_space
        array: np.ndarray = actions.cpu().numpy().reshape((-1, *(space.shape or ())))
        if isinstance(space, spaces.Box):
            array = np.clip(array, space.low, space.high)
        return array.astype(space.dtype, copy=False)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Act on a first observation; :meth:`predict` carries the memory on."""
        batch = len(
            next(iter(observation.values())) if isinstance(observation, dict) else observation
        )
        starts = torch.ones(batch, dtype=torch.bool, device=self.device)
        return self(observation, self.initial_state(batch), starts, deterministic)[0]  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    def predict(
        self,
        observation: Observation,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Act on an observation, or a batch of them, and carry the memory on.

        Args:
            observation: one observation, or [B, ...].
            state: what the call before returned; ``None`` starts with empty memories.
            episode_start: [B], true where an episode starts and the memory is emptied.
            deterministic: take the most probable action instead of sampling.

        Returns:
            The action or actions, and the memory as a tuple of arrays.

        Raises:
            PolicyInputError: a tuple instead of an observation, or starts of another number.
            MemoryInputError: a state that is not this memory's, or of another batch.
        """
        if isinstance(cast(Any, observation), tuple):  # what reset() returns
            raise PolicyInputError(
                "the observation is a tuple: pass the observation alone, reset() returns "
                "(observation, info)"
            )
        self.set_training_mode(False)
        tensors, vectorized = self.obs_to_tensor(observation)
        first = next(iter(tensors.values())) if isinstance(tensors, dict) else tensors
        batch = len(first)
        memory: AnyState = (
            self.initial_state(batch)
            if state is None
            else tuple(torch.as_tensor(part, device=self.device) for part in state)
        )
        flags = np.zeros(batch, bool) if episode_start is None else np.asarray(episode_start)
        if flags.size != batch:
            raise PolicyInputError(
                f"episode_start has {flags.size} values for {batch} observations: give one for each"
            )
        starts = torch.as_tensor(flags, device=self.device).bool().view(batch)
        with torch.no_grad():
            tensor, _, _, memory = self(tensors, memory, starts, deterministic)
        actions = self.to_env(tensor)
        if not vectorized:
            actions = actions.squeeze(axis=0)
        return actions, tuple(part.cpu().numpy() for part in map_state(torch.detach, memory))


def _head(size: int, net_arch: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in net_arch:
        linear = nn.Linear(size, width)
        nn.init.orthogonal_(linear.weight, gain=2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
        size = width
    return nn.Sequential(*layers)


def flatten_time(observations: PyTorchObs) -> PyTorchObs:
    """[T, B, ...] -> [T·B, ...]."""
    if isinstance(observations, dict):
        return {key: value.flatten(0, 1) for key, value in observations.items()}
    return observations.flatten(0, 1)


class RelLstmPolicy(MemoryPolicy):
    """LSTM with relevancy screening: attends to the last ν and the ρ most relevant states."""

    default_memory = "rel"


class MemLstmPolicy(MemoryPolicy):
    """LSTM with full attention: attends to every state of the episode."""

    default_memory = "mem"


class LstmPolicy(MemoryPolicy):
    """Plain LSTM."""

    default_memory = "lstm"


class GruPolicy(MemoryPolicy):
    """Plain GRU."""

    default_memory = "gru"


class NoMemoryPolicy(MemoryPolicy):
    """Feed-forward: the control that remembers nothing."""

    default_memory = "none"
