"""What tests of the agent may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relagent.memories import kernels


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The definitions of the memories, here and in other processes: compiling takes too long."""
    monkeypatch.setenv("RELAGENT_KERNELS", "0")
    with kernels.disable():
        yield
