"""Observation -> features: what the memory reads.

A grid observation (see :mod:`relagent.envs.observations`) is a dictionary of integers: the cells
of the agent's 7 x 7 view as (object, colour, state) codes, and optionally the direction, the
previous action and the mission as word ids. Any other observation goes through stable-baselines3's
own feature extractors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from torch import Tensor, nn

from relagent.rl.distinct import RowCache, distinct_rows


class GridEncoder(BaseFeaturesExtractor):
    """Encode a partial view of a grid world; with a mission, the text conditions the view.

    The embeddings of a cell's object, colour and state codes are added up, as in BabyAI
    (Chevalier-Boisvert et al. 2019); two 3 x 3 convolutions follow, then one that spans what is
    left. A mission is read by a GRU whose last state scales and shifts the channels of the first
    two (FiLM, Perez et al. 2018)::

        channel_k  ->  (1 + γ_k(mission)) · channel_k + β_k(mission)

    Direction and previous action are embedded and added before the last nonlinearity, so that
    each *distinct* pair of view and mission in a batch is encoded only once.

    Args:
        observation_space: a dictionary with ``image`` [V, V, 3] and any of ``direction``,
            ``previous_action`` and ``mission``.
        features_dim: F, the number of features.
        channels: channels of the convolutions.
        cell_size: size of the embedding of a cell.
        mission_size: size of the word embeddings and of the GRU.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        channels: int = 32,
        cell_size: int = 16,
        mission_size: int = 32,
    ) -> None:
        super().__init__(observation_space, features_dim)
        parts = cast(spaces.Dict, observation_space).spaces
        image = cast(spaces.Box, parts["image"])
        codes = image.high.reshape(-1, 3).max(axis=0).astype(int) + 1
        view = image.shape[0]

        self.cells = nn.ModuleList(nn.Embedding(int(n), cell_size) for n in codes)
        self.conv1 = nn.Conv2d(cell_size, channels, kernel_size=3)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3)
        self.spread = nn.Linear(channels * (view - 4) ** 2, features_dim)
        for layer in (self.conv1, self.conv2, self.spread):
            nn.init.orthogonal_(layer.weight, gain=2**0.5)
            nn.init.zeros_(cast(Tensor, layer.bias))

        self.direction = _embedding_of(parts.get("direction"), features_dim)
        self.previous_action = _embedding_of(parts.get("previous_action"), features_dim)
        self.mission: MissionEncoder | None = None
        if "mission" in parts:
            words = int(cast(spaces.Box, parts["mission"]).high.max()) + 1
            self.mission = MissionEncoder(words, mission_size, channels)
        self._known: RowCache | None = None

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Encode N observations.

        Args:
            observations: ``image`` [N, V, V, 3] integers; ``direction`` and ``previous_action``
                [N] integers; ``mission`` [N, L] integers.

        Returns:
            [N, F].
        """
        image = observations["image"].flatten(1)  # [N, V, V, 3] -> [N, V·V·3]
        mission = observations.get("mission") if self.mission is not None else None
        key = image if mission is None else torch.cat([image, mission], dim=1)

        def encode(rows: Tensor) -> Tensor:
            view = observations["image"][rows]
            return self._encode(view, None if mission is None else mission[rows])

        if self._known is not None and not torch.is_grad_enabled():
            features = self._known.get(key, encode)
        else:
            rows, inverse = distinct_rows(key)
            features = encode(rows)[inverse]
        if self.direction is not None:
            features = features + self.direction(observations["direction"].long())
        if self.previous_action is not None:
            features = features + self.previous_action(observations["previous_action"].long())
        return features.relu()

    @contextmanager
    def recalling(self, known: RowCache) -> Iterator[None]:
        """Inside, what was encoded with this cache before is not encoded again.

        The weights must not change as long as the cache is used. It pays where batches come in
        quick succession, as in acting, and only on a CPU.
        """
        self._known = known if self.spread.weight.device.type == "cpu" else None
        try:
            yield
        finally:
            self._known = None

    def _encode(self, view: Tensor, mission: Tensor | None) -> Tensor:
        """Encode distinct views: [U, V, V, 3] (and missions [U, L]) -> [U, F]."""
        codes = view.long()
        cells = sum(embed(codes[..., part]) for part, embed in enumerate(self.cells))
        planes = cast(Tensor, cells).permute(0, 3, 1, 2)  # [U, V, V, E] -> [U, E, V, V]
        if mission is None or self.mission is None:
            planes = self.conv1(planes).relu()
            planes = self.conv2(planes).relu()
        else:
            scale1, shift1, scale2, shift2 = self.mission(mission)
            planes = ((1 + scale1) * self.conv1(planes) + shift1).relu()
            planes = ((1 + scale2) * self.conv2(planes) + shift2).relu()
        return cast(Tensor, self.spread(planes.flatten(1)))


class MissionEncoder(nn.Module):
    """Read a mission and say how it conditions two layers of image channels (FiLM).

    Args:
        words: size of the vocabulary; word 0 is padding.
        size: size of the word embeddings and of the GRU.
        channels: channels of each conditioned layer.
    """

    def __init__(self, words: int, size: int, channels: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, size, padding_idx=0)
        self.reader = nn.GRU(size, size, batch_first=True)
        self.film = nn.Linear(size, 4 * channels)
        nn.init.orthogonal_(self.film.weight, gain=0.1)
        nn.init.zeros_(self.film.bias)

    def forward(self, mission: Tensor) -> tuple[Tensor, ...]:
        """Missions [U, L] -> (γ, β, γ', β'), each [U, channels, 1, 1]."""
        rows, inverse = distinct_rows(mission)
        texts = mission[rows].long()
        lengths = (texts > 0).sum(dim=1)
        read, _ = self.reader(self.words(texts[:, : max(1, int(lengths.max()))]))
        last = read[torch.arange(len(texts), device=texts.device), (lengths - 1).clamp(min=0)]
        conditions = self.film(last)[inverse]
        return tuple(conditions[:, :, None, None].chunk(4, dim=1))


def _embedding_of(space: spaces.Space[Any] | None, size: int) -> nn.Embedding | None:
    if space is None:
        return None
    embedding = nn.Embedding(int(cast(spaces.Discrete, space).n), size)
    nn.init.normal_(embedding.weight, std=0.1)
    return embedding


_OTHER_PARTS: dict[str, type[spaces.Space[Any]]] = {
    "direction": spaces.Discrete,
    "previous_action": spaces.Discrete,
    "mission": spaces.Box,
}


def is_grid_space(space: spaces.Space[Any]) -> bool:
    """Whether observations are cells of (object, colour, state) codes, not a picture.

    Beside them there may be a direction, a previous action and a mission, and nothing else: the
    :class:`GridEncoder` would ignore it.
    """
    if not (isinstance(space, spaces.Dict) and "image" in space.spaces):
        return False
    image, kinds = space.spaces["image"], _OTHER_PARTS
    return all(
        part == "image" or isinstance(other, kinds.get(part, ()))
        for part, other in space.spaces.items()
    ) and (
        isinstance(image, spaces.Box)
        and image.dtype == np.uint8
        and len(image.shape) == 3
        and image.shape[0] == image.shape[1] >= 5
        and image.shape[2] == 3
        and not is_image_space(image)
    )


def default_encoder(space: spaces.Space[Any]) -> type[BaseFeaturesExtractor]:
    """Return the encoder class for an observation space."""
    if is_grid_space(space):
        return GridEncoder
    if isinstance(space, spaces.Dict):
        return CombinedExtractor
    if is_image_space(space):
        return NatureCNN
    return FlattenExtractor
