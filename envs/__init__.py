"""Environments: MiniGrid, BabyAI and any other; EnvPool trains, minigrid scores.

The folder is imported as ``relagent.envs``, since ``envs`` is a name that many projects have.

- :mod:`~relagent.envs.make`: one function that makes any environment.
- :mod:`~relagent.envs.pool`: EnvPool's worlds as a ``VecEnv``.
- :mod:`~relagent.envs.observations`: what an agent is told of a grid world, cut out of it by
  :mod:`~relagent.envs.view`.
- :mod:`~relagent.envs.sight`: episodes in which it sees less.
- :mod:`~relagent.envs.pairs`: the paper's train and test worlds, and their families.
- :mod:`~relagent.envs.seeding`: seeds of training and of evaluation, which never meet.
- :mod:`~relagent.envs.cue`: a world that asks for memory alone, and an example of one's own.
"""

from relagent.envs.cue import Cue
from relagent.envs.make import (
    EnvCountError,
    PythonVecEnv,
    UnknownEnvironmentError,
    backend_of,
    check_actions,
    check_reset,
    check_space,
    default_parts,
    episode_limit,
    make_env,
    make_vec_env,
    python_backend,
)
from relagent.envs.observations import (
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
    check_parts,
    detokenize,
    observation_space,
    tokenize,
)
from relagent.envs.pairs import PAIRS, Pair, canonical_id, ladder_of, pair_of
from relagent.envs.pool import (
    ActionError,
    BackendError,
    EnvPoolVecEnv,
    PoolAttributeError,
    PoolClosedError,
    PoolCopyError,
    pool_ids,
)
from relagent.envs.seeding import SeedError, evaluation_seeds, training_seeds
from relagent.envs.sight import ImpairedSightVecEnv, Impairments, SightError

__all__ = [
    "IMAGE_HIGH",
    "MISSION_LENGTH",
    "NO_ACTION",
    "PADDING",
    "PAIRS",
    "PARTS",
    "UNKNOWN_WORD",
    "VOCABULARY_SIZE",
    "WORDS",
    "ActionError",
    "BackendError",
    "Cue",
    "EnvCountError",
    "EnvPoolVecEnv",
    "GridObservation",
    "ImpairedSightVecEnv",
    "Impairments",
    "ObservationPartsError",
    "Pair",
    "PoolAttributeError",
    "PoolClosedError",
    "PoolCopyError",
    "PythonVecEnv",
    "SeedError",
    "SightError",
    "UnknownEnvironmentError",
    "UnsupportedSpaceError",
    "backend_of",
    "canonical_id",
    "check_actions",
    "check_parts",
    "check_reset",
    "check_space",
    "default_parts",
    "detokenize",
    "episode_limit",
    "evaluation_seeds",
    "ladder_of",
    "make_env",
    "make_vec_env",
    "observation_space",
    "pair_of",
    "pool_ids",
    "python_backend",
    "tokenize",
    "training_seeds",
]
