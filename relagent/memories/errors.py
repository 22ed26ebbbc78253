"""What memories refuse."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from relagent.errors import RelagentError


class MemoryInputError(RelagentError):
    """A tensor that does not fit the memory it was given to."""


class MemoryOptionError(RelagentError):
    """A memory, or an option of one, that does not exist or cannot work."""


def check_whole(**sizes: Any) -> None:
    """Check that options are whole numbers.

    Raises:
        MemoryOptionError: one is not; its name and value are told.
    """
    for name, value in sizes.items():
        if type(value) is bool or not isinstance(value, Integral):
            raise MemoryOptionError(f"{name}={value!r} cannot work: pass a whole number")
