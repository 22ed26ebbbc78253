"""The one root of every error that a user can cause."""


class RelagentError(ValueError):
    """A request that cannot be met.

    The message is one line that says what was wrong, what is allowed and what to do; the command
    line prints it and exits with code 2.
    """
