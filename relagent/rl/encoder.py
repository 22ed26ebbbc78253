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

from relagent.envs.observations import IMAGE_HIGH
from relagent.errors import RelagentError
from relagent.rl.distinct import distinct_numbers, distinct_rows
from relagent.rl.grids import GridIndex, KnownGrids
from relagent.rl.lookup import lookup_max


class GridEncoder(BaseFeaturesExtractor):
    """Encode a partial view of a grid world: the best that any cell has to say, place by place.

    A cell c at place p, seen from the agent, says (without a mission, the second line is missing)::

        e    = object_c + colour_c + state_c                 embeddings of its three codes
        f    = W relu(e + P p) + b                           what it means, there
             + M tanh(Q(mission) e / √E) + s(mission)        and how it matches the mission
        g_k  = max over all cells of f_k                     each feature asks for its best cell
        y    = relu(V relu(g) + direction + previous action)

    Maximum over a set, as in PointNet (Qi et al. 2017). What a cell says does not depend on
    what stands around it, and distance enters as a number, not as a cell of its own: that carries
    over from small worlds to large ones. Embeddings of codes are added as in BabyAI
    (Chevalier-Boisvert et al. 2019). P, V, Q and s are affine; Q and s read the last state of a GRU
    that reads the mission. E is the size of an embedding.

    Each *distinct* pair of view and mission in a batch is encoded only once, each distinct kind of
    cell is given its meaning only once at every place, and only the best cells have a gradient.

    Args:
        observation_space: a dictionary with ``image`` [V, V, 3] and any of ``direction``,
            ``previous_action`` and ``mission``; the agent stands in the middle of the last row and
            looks towards the first.
        features_dim: F, the number of features.
        channels: C, the number of features that ask for their best cell.
        cell_size: E, size of the embedding of a cell.
        mission_size: size of the word embeddings and of the GRU.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        channels: int = 64,
        cell_size: int = 32,
        mission_size: int = 32,
    ) -> None:
        super().__init__(observation_space, features_dim)
        parts = cast(spaces.Dict, observation_space).spaces
        image = cast(spaces.Box, parts["image"])
        self.codes: list[int] = (image.high.reshape(-1, 3).max(axis=0).astype(int) + 1).tolist()

        self.cells = nn.ModuleList(nn.Embedding(n, cell_size) for n in self.codes)
        self.register_buffer("places", places(image.shape[0]), persistent=False)
        self.places: Tensor
        self.place = nn.Linear(self.places.shape[1], cell_size)  # P
        self.meaning = nn.Linear(cell_size, channels)  # W, b
        self.spread = nn.Linear(channels, features_dim)  # V
        for layer in (self.meaning, self.spread):
            nn.init.orthogonal_(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)

        self.direction = _embedding_of(parts.get("direction"), features_dim)
        self.previous_action = _embedding_of(parts.get("previous_action"), features_dim)
        self.mission: MissionEncoder | None = None
        if "mission" in parts:
            words = int(cast(spaces.Box, parts["mission"]).high.max()) + 1
            self.mission = MissionEncoder(words, mission_size, cell_size, channels)
        self._known: KnownGrids | None = None

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Encode N observations.

        Args:
            observations: ``image`` [N, V, V, 3] integers; ``direction`` and ``previous_action``
                [N] integers; ``mission`` [N, L] integers; inside :meth:`recalling` also ``grid``
                [N], their numbers.

        Returns:
            [N, F].

        Raises:
            EncoderError: an image of floating-point numbers.
        """
        if observations["image"].is_floating_point():
            raise EncoderError(
                "the cells of a view are codes, no quantities: give them as they are, with "
                "VecNormalize(env, norm_obs=False)"
            )
        numbers = observations.get("grid")
        if self._known is None or numbers is None:
            image, mission = observations["image"], self._mission(observations)
            key = image.flatten(1)  # [N, V, V, 3] -> [N, V·V·3]
            rows, which = distinct_rows(key if mission is None else torch.cat([key, mission], 1))
            new = self._encode(image[rows], None if mission is None else mission[rows])
            features = nn.functional.embedding(which, new)  # new[which], its gradient is faster
        elif torch.is_grad_enabled():
            index = self._known.index(self.codes)
            grids, which = distinct_numbers(numbers, len(index.kind))
            new = self._encode_grids(index.take(grids))
            features = nn.functional.embedding(which, new)
        else:
            features = self._known.features(numbers, self._encode)
        if self.direction is not None:
            features = features + self.direction(observations["direction"].long())
        if self.previous_action is not None:
            features = features + self.previous_action(observations["previous_action"].long())
        return features.relu()

    def _mission(self, observations: dict[str, Tensor]) -> Tensor | None:
        return None if self.mission is None else observations["mission"]

    @contextmanager
    def recalling(self, known: KnownGrids) -> Iterator[None]:
        """Inside, observations with a number are told apart by it, not by looking at them.

        Without gradient, a grid that was encoded before is not encoded again: there the weights
        must stay the same.
        """
        self._known = known
        try:
            yield
        finally:
            self._known = None

    def _encode(self, image: Tensor, mission: Tensor | None) -> Tensor:
        """Encode distinct views: [U, V, V, 3] (and missions [U, L]) -> [U, F]."""
        return self._encode_grids(GridIndex.of(self.codes, image, mission))

    def _encode_grids(self, grids: GridIndex) -> Tensor:
        """Encode U grids of P places: [U, F]."""
        kinds, kind = grids.kinds, grids.kind
        e = sum(embed(kinds[:, part]) for part, embed in enumerate(self.cells))  # [K, E]
        assert isinstance(e, Tensor)
        f = self.meaning((e.unsqueeze(1) + self.place(self.places)).relu())  # [K, P, C]
        n_places = len(self.places)
        tables = [f.flatten(0, 1)]
        rows = [kind * n_places + torch.arange(n_places, device=kind.device)]
        if self.mission is not None:
            assert grids.missions is not None and grids.mission is not None
            matches = self.mission.compare(self._read(grids.missions), e)  # [M, K, C]
            tables.append(matches.flatten(0, 1))
            rows.append(kind + len(kinds) * grids.mission.unsqueeze(1))
        return cast(Tensor, self.spread(lookup_max(tables, rows).relu()))

    def _read(self, missions: Tensor) -> Tensor:
        """Read distinct missions [M, L]; those that are known not again."""
        assert self.mission is not None
        if self._known is None or torch.is_grad_enabled():
            return self.mission.read(missions)
        return self._known.missions.get(missions, self.mission.read)


def places(view: int) -> Tensor:
    """Return where each cell of a view stands, seen from the agent: [view·view, 8].

    With x to the right and y ahead: x, y and |x| + y in units of the view, the sign of x, and
    whether the cell is in the agent's column, in its row, right before it, or its own.
    """
    columns, rows = torch.meshgrid(torch.arange(view), torch.arange(view), indexing="ij")
    x, y = (columns - view // 2).float(), (view - 1 - rows).float()
    ahead, beside = x == 0, y == 0
    front = ahead & (y == 1)
    far = view - 1
    linear = [2 * x / far, 2 * y / far, (x.abs() + y) / far, x.sign()]
    flags = [flag.float() for flag in (ahead, beside, front, ahead & beside)]
    return torch.stack([*linear, *flags], dim=2).flatten(0, 1)


class MissionEncoder(nn.Module):
    """Read a mission and say how well each kind of cell matches it.

    Args:
        words: size of the vocabulary; word 0 is padding.
        size: size of the word embeddings and of the GRU.
        cell_size: E, size of the embedding of a cell.
        channels: C, features of a cell.
        heads: questions that a mission asks of a cell.
    """

    def __init__(
        self, words: int, size: int, cell_size: int, channels: int, heads: int = 8
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, size, padding_idx=0)
        self.reader = nn.GRU(size, size, batch_first=True)
        self.questions = nn.Linear(size, heads * cell_size)  # Q
        self.match = nn.Linear(heads, channels, bias=False)  # M
        self.shift = nn.Linear(size, channels)  # s
        self.heads = heads
        nn.init.orthogonal_(self.shift.weight, gain=0.1)
        nn.init.zeros_(self.shift.bias)

    def read(self, missions: Tensor) -> Tensor:
        """Read missions [M, L], word ids: the last state of the GRU [M, size]."""
        texts = missions.long()
        lengths = (texts > 0).sum(dim=1)
        read, _ = self.reader(self.words(texts[:, : max(1, int(lengths.max()))]))
        last = (lengths - 1).clamp(min=0)
        return cast(Tensor, read[torch.arange(len(texts), device=texts.device), last])

    def compare(self, read: Tensor, cells: Tensor) -> Tensor:
        """Compare missions that were read [M, size] with embedded kinds of cells [K, E].

        Returns:
            [M, K, C].
        """
        questions = self.questions(read).view(len(read), self.heads, -1)  # [M, heads, E]
        answers = torch.einsum("mhe,ke->mkh", questions, cells) / cells.shape[1] ** 0.5
        return cast(Tensor, self.match(answers.tanh()) + self.shift(read).unsqueeze(1))


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
        # By these a board or a picture of somebody's own is told from a MiniGrid view.
        and bool((image.low == 0).all() and (image.high == IMAGE_HIGH).all())
    )


class EncoderError(RelagentError):
    """Observations that there is no encoder for."""


SMALLEST_PICTURE = 36
"""Side of the smallest picture that ``NatureCNN``'s three convolutions leave anything of."""


def default_encoder(space: spaces.Space[Any]) -> type[BaseFeaturesExtractor]:
    """Return the encoder class for an observation space.

    Raises:
        EncoderError: there is none for pictures as small as these.
    """
    if is_grid_space(space):
        return GridEncoder
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else (space,)
    for part in parts:
        if is_image_space(part) and sorted(part.shape or ())[1] < SMALLEST_PICTURE:
            raise EncoderError(
                f"no encoder is made for pictures of {part.shape}: pass features_extractor_class, "
                "or make a MiniGrid world with relagent.envs.make_env"
            )
    if isinstance(space, spaces.Dict):
        return CombinedExtractor
    return NatureCNN if is_image_space(space) else FlattenExtractor
