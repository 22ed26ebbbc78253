"""The one root of every error that a user can cause, and what its message may add."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RelagentError(ValueError):
    """A request that cannot be met.

    The message is one line that says what was wrong, what is allowed and what to do; the command
    line prints it and exits with code 2.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is nearest, to follow the wrong one; or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
