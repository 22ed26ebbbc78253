"""Memories: one interface, one registry, one readable PyTorch definition each.

- :mod:`~relagent.memories.base`: what a memory is, :mod:`~relagent.memories.state`: what it
  carries, :mod:`~relagent.memories.errors`: what it refuses.
- :mod:`~relagent.memories.relevancy`: RelLSTM and RelRNN; :mod:`~relagent.memories.full`: MemLSTM
  and MemRNN. Both attend by :mod:`~relagent.memories.attention`, around the cells of
  :mod:`~relagent.memories.cells`.
- :mod:`~relagent.memories.lstm`, :mod:`~relagent.memories.rnn`,
  :mod:`~relagent.memories.orthogonal`, :mod:`~relagent.memories.goru`,
  :mod:`~relagent.memories.sab`: the baselines.
- :mod:`~relagent.memories.projected`: the base of those whose input enters through one map.
- :mod:`~relagent.memories.kernels`: the same functions, fused.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from relagent.errors import did_you_mean
from relagent.memories.base import Attention, Memory
from relagent.memories.errors import MemoryInputError, MemoryOptionError
from relagent.memories.full import MemLSTM, MemRNN
from relagent.memories.goru import GORU
from relagent.memories.lstm import GRU, LSTM, NoMemory
from relagent.memories.orthogonal import ExpRNN, OrthRNN
from relagent.memories.relevancy import RelLSTM, RelRNN
from relagent.memories.rnn import RNN
from relagent.memories.sab import SAB
from relagent.memories.state import AnyState, detach_state, make_state, map_state, take_rows

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


def make_memory(
    memory: str | type[Memory[Any]], input_size: int, hidden_size: int, **options: Any
) -> Memory[Any]:
    """Return a new memory.

    Args:
        memory: its registered name, or a class of memories.
        input_size: F, the number of input features.
        hidden_size: H, the number of output features.
        options: the memory's own.

    Raises:
        MemoryOptionError: an unknown name, no class of memories, or an option that this memory
            does not take.
    """
    kind: Any = MEMORIES.get(memory) if isinstance(memory, str) else memory
    if kind is None:
        hint = did_you_mean(str(memory), MEMORIES)
        raise MemoryOptionError(
            f"unknown memory {memory!r}{hint}: choose one of {', '.join(MEMORIES)}"
        )
    if not (isinstance(kind, type) and issubclass(kind, Memory)):
        what = kind.__name__ if isinstance(kind, type) else f"an object of {type(kind).__name__}"
        raise MemoryOptionError(
            f"{what} is no memory: pass a registered name, or a subclass of Memory itself"
        )
    try:
        return kind(input_size, hidden_size, **options)
    except TypeError as error:
        name = memory if isinstance(memory, str) else kind.__name__
        raise MemoryOptionError(f"memory {name!r} cannot be made: {error}") from error


def options_of(memory: str | type[Memory[Any]]) -> set[str]:
    """Return the names of the options that a memory takes beside its sizes; of an unknown one none.

    They are its constructor's arguments; what that passes on, by ``**``, its base class takes.
    """
    kind: Any = MEMORIES.get(memory, Memory) if isinstance(memory, str) else memory
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        arguments = inspect.signature(base.__init__).parameters
        passed_on = {name for name, given in arguments.items() if given.kind is given.VAR_KEYWORD}
        names |= arguments.keys() - passed_on
        if not passed_on:
            break
    return names - {"self", "input_size", "hidden_size"}


def takers_of(option: str) -> str:
    """Return the names of the memories that take an option, as a help text lists them."""
    return ", ".join(name for name in MEMORIES if option in options_of(name))


def check_memory(memory: str | type[Memory[Any]], **options: Any) -> None:
    """Refuse what :func:`make_memory` would, without drawing any random number."""
    with torch.random.fork_rng(devices=[]):
        make_memory(memory, 1, 1, **options)


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
    "check_memory",
    "detach_state",
    "make_memory",
    "make_state",
    "map_state",
    "options_of",
    "take_rows",
    "takers_of",
]
