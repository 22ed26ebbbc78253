"""Environments: MiniGrid and BabyAI worlds, fast (EnvPool) or as judge (minigrid), and any other.

The folder is imported as ``relagent.envs``, since ``envs`` is a name that many projects have.
"""

from relagent.envs.make import (
    EnvCountError,
    PythonVecEnv,
    UnknownEnvironmentError,
    UnsupportedSpaceError,
    backend_of,
    check_space,
    default_parts,
    has_time_limit,
    make_env,
    make_vec_env,
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
    check_parts,
    detokenize,
    observation_space,
    tokenize,
)
from relagent.envs.pairs import PAIRS, Pair, ladder_of, pair_of
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
    "check_parts",
    "check_space",
    "default_parts",
    "detokenize",
    "evaluation_seeds",
    "has_time_limit",
    "ladder_of",
    "make_env",
    "make_vec_env",
    "observation_space",
    "pair_of",
    "pool_ids",
    "tokenize",
    "training_seeds",
]
