"""Memories: one interface, one registry, one readable PyTorch definition each.

- :mod:`~relagent.memories.base`: what a memory is.
- :mod:`~relagent.memories.relevancy`: RelLSTM and RelRNN; :mod:`~relagent.memories.full`: MemLSTM
  and MemRNN. Both attend by :mod:`~relagent.memories.attention`, around the cells of
  :mod:`~relagent.memories.cells`.
- :mod:`~relagent.memories.lstm`, :mod:`~relagent.memories.rnn`,
  :mod:`~relagent.memories.orthogonal`, :mod:`~relagent.memories.goru`,
  :mod:`~relagent.memories.sab`: the baselines.
- :mod:`~relagent.memories.projected`: what memories share whose input enters through one map.
- :mod:`~relagent.memories.kernels`: the same functions, fused.
"""

from __future__ import annotations

import difflib
from typing import Any

from relagent.memories.base import (
    AnyState,
    Attention,
    Memory,
    MemoryInputError,
    MemoryOptionError,
    detach_state,
    make_state,
    map_state,
    take_rows,
)
from relagent.memories.full import MemLSTM, MemRNN
from relagent.memories.goru import GORU
from relagent.memories.lstm import GRU, LSTM, NoMemory
from relagent.memories.orthogonal import ExpRNN, OrthRNN
from relagent.memories.relevancy import RelLSTM, RelRNN
from relagent.memories.rnn import RNN
from relagent.memories.sab import SAB

MEMORIES: dict[str, type[Memory[Any]]] = {
    "none": NoMemory,
    "lstm": LSTM,
    "gru": GRU,
    "mem": MemLSTM,
    "rel": RelLSTM,
    "mem-rnn": MemRNN,
    "rel-rnn": RelRNN,
    "rnn": RNN,
    "orth-rnn": OrthRNN,
    "exp-rnn": ExpRNN,
    "goru": GORU,
    "sab": SAB,
}
"""Every memory by the name that commands and configurations use. A new memory is one file and one
line here; the tests range over this table."""


def make_memory(name: str, input_size: int, hidden_size: int, **options: Any) -> Memory[Any]:
    """Return a new memory by its registered name.

    Raises:
        MemoryOptionError: an unknown name, or an option that this memory does not take.
    """
    if name not in MEMORIES:
        near = difflib.get_close_matches(name, MEMORIES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise MemoryOptionError(
            f"unknown memory {name!r}{hint}: choose one of {', '.join(MEMORIES)}"
        )
    try:
        return MEMORIES[name](input_size, hidden_size, **options)
    except TypeError as error:
        raise MemoryOptionError(f"memory {name!r} cannot be made: {error}") from error


__all__ = [
    "GORU",
    "GRU",
    "LSTM",
    "MEMORIES",
    "RNN",
    "SAB",
    "AnyState",
    "Attention",
    "ExpRNN",
    "MemLSTM",
    "MemRNN",
    "Memory",
    "MemoryInputError",
    "MemoryOptionError",
    "NoMemory",
    "OrthRNN",
    "RelLSTM",
    "RelRNN",
    "detach_state",
    "make_memory",
    "make_state",
    "map_state",
    "take_rows",
]
