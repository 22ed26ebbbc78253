"""Finds missing barriers: the interpreter is one thread, and right whatever barrier is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


class Races:
    """Watches the interpreter's accesses to memory as if every thread ran at its own pace."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from triton.runtime import interpreter

        self.builder = interpreter.interpreter_builder
        self.program: Any = None
        self.read: set[int] = set()
        self.written: set[int] = set()
        self.owner: dict[int, Any] = {}
        self.barriers = 0
        kind = type(self.builder)
        for name in ("create_masked_load", "create_masked_store", "create_barrier"):
            monkeypatch.setattr(kind, name, self.watched(name, getattr(kind, name)))

    def watched(self, name: str, original: Any) -> Any:
        def access(builder: Any, *arguments: Any) -> Any:
            if self.program != builder.grid_idx:
                self.synchronise(builder.grid_idx)
            if name == "create_barrier":
                self.synchronise(self.program)
                self.barriers += 1
            else:
                store = name == "create_masked_store"
                mask = arguments[2 if store else 1].data.astype(bool)
                addresses = np.broadcast_to(mask, arguments[0].data.shape)
                self.check(arguments[0].data[addresses].tolist(), store)
            return original(builder, *arguments)

        return access

    def synchronise(self, program: Any) -> None:
        self.program = program
        self.read, self.written = set(), set()

    def check(self, addresses: list[int], store: bool) -> None:
        touched = set(addresses)
        assert not touched & self.written, "written, and touched again without a barrier"
        assert all(self.owner.get(a, self.program) == self.program for a in touched)
        if store:
            assert len(touched) == len(addresses), "written twice at once"
            assert not touched & self.read, "read, and written without a barrier"
            self.written |= touched
            self.owner.update(dict.fromkeys(touched, self.program))
        else:
            self.read |= touched
