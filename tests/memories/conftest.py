"""What several tests of kernels need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from relagent.memories.kernels import native


@pytest.fixture
def two_threads_for_any_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows are shared out, however small the test."""
    before = torch.get_num_threads()
    monkeypatch.setattr(native, "_WORTH_A_THREAD", 0)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
