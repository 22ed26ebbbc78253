"""Every global random stream, taken and put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from relagent.errors import RelagentError


class RandomStateError(RelagentError):
    """Random states that this Python, numpy or torch does not accept."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"the saved random states do not fit ({type(error).__name__}: {error}); "
            "resume with the versions that the run's provenance names"
        )


def seed_everything(seed: int) -> None:
    """Start every stream that :func:`random_states` takes; ``seed`` from 0 to 2**32 - 1."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (see random_states)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The states of Python's, numpy's (legacy, global) and torch's generators, CUDA's included.

    The result can be given to :func:`relagent.runs.packing.pack`. So can a generator's own state:
    ``generator.bit_generator.state`` of numpy, ``generator.get_state()`` of torch.
    """
    return {
        "python": random.getstate(),
        # The global stream is what gymnasium's and stable-baselines3's seeding helpers touch.
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Continue every stream where :func:`random_states` took it.

    States of CUDA devices that are not there are passed over: such a run cannot go on bit for bit
    anyway.

    Raises:
        RandomStateError: a state is missing or of another kind.
    """
    try:
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])  # noqa: NPY002 (see random_states)
        torch.set_rng_state(states["torch"])
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for device, state in enumerate(states["cuda"][:devices]):
            torch.cuda.set_rng_state(state, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RandomStateError(error) from error
