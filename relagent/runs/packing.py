"""Any nested state as named tensors plus JSON, and back, without running code.

Optimisers, random generators and memories keep their state in nested containers of tensors and
plain values. :func:`pack` splits such a tree into what safetensors can hold and what JSON can hold;
:func:`unpack` puts it together again. What JSON lacks is written as an object with one key that
starts with ``$``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relagent.errors import RelagentError


class PackError(RelagentError):
    """A value that cannot be stored without pickle."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"cannot pack {path or 'the tree'}: {problem}; allowed are None, bool, int, float, "
            "str, tensors, numeric numpy arrays, and dicts, lists and tuples of these"
        )


class UnpackError(RelagentError):
    """Tensors and JSON that :func:`pack` did not make, or that do not belong together."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"cannot unpack the state: {problem}; it is not what pack() wrote")


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into named tensors and JSON.

    Args:
        tree: nested dicts (any plain keys), lists and tuples of tensors, numeric numpy arrays and
            scalars, None, bool, str, float (also NaN and infinities) and int of any size. A
            ``NamedTuple`` comes back as a plain tuple, a parameter as a tensor on the CPU.

    Returns:
        The tensors, named by their path in the tree and sharing memory with it, and the JSON that
        refers to them. A dict with ordinary string keys stays a JSON object.

    Raises:
        PackError: the tree holds something else; the message names the path.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _encode(tree, "", tensors)


def unpack(tensors: Mapping[str, Tensor], data: Any) -> Any:
    """Put together what :func:`pack` split; types, dtypes, order and every bit come back.

    (Of a Python float that is NaN, only that it is one.)

    Raises:
        UnpackError: the two do not belong together.
    """
    try:
        return _decode(data, tensors)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UnpackError):
            raise
        raise UnpackError(f"{type(error).__name__}: {error}") from error


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    def inside(key: object, item: Any) -> Any:
        return _encode(item, f"{path}/{key}" if path else str(key), tensors)

    match value:
        # numpy's scalars come first: some of them are also Python floats or strings.
        case np.generic() | np.ndarray():
            try:
                tensor = torch.from_numpy(np.array(value, order="C", copy=True))
            except (TypeError, ValueError) as error:
                raise PackError(path, f"a numpy {value.dtype}") from error
            tag = "$array" if isinstance(value, np.ndarray) else "$scalar"
            return {tag: _add(tensor, path, tensors)}
        case Tensor():
            return {"$tensor": _add(value.detach(), path, tensors)}
        case None | bool() | str():
            return value
        case int():
            # Many JSON readers, and Python's own conversion of long decimals, stop somewhere.
            return int(value) if abs(value) < 2**63 else {"$int": hex(value)}
        case float():
            return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
        case list():
            return [inside(i, item) for i, item in enumerate(value)]
        case tuple():
            return {"$tuple": [inside(i, item) for i, item in enumerate(value)]}
        case dict():
            if all(isinstance(key, str) and not key.startswith("$") for key in value):
                return {key: inside(key, item) for key, item in value.items()}
            pairs = [[inside("key", key), inside(key, item)] for key, item in value.items()]
            return {"$dict": pairs}
        case _:
            raise PackError(path, f"a {type(value).__name__}")


def _add(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    name = path or "tensor"
    while name in tensors or name == "__metadata__":  # {"a/b": x, "a": {"b": y}}
        name += "_"
    tensors[name] = tensor
    return name


_DECODERS: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "$tensor": lambda name, tensors: tensors[name],
    "$array": lambda name, tensors: tensors[name].numpy(),
    "$scalar": lambda name, tensors: tensors[name].numpy()[()],
    "$int": lambda digits, tensors: int(digits, 16),
    "$float": lambda text, tensors: float(text),
    "$tuple": lambda items, tensors: tuple(_decode(item, tensors) for item in items),
    "$dict": lambda pairs, tensors: {_decode(k, tensors): _decode(v, tensors) for k, v in pairs},
}


def _decode(data: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(data, list):
        return [_decode(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    tag = next(iter(data), "")
    if not tag.startswith("$"):
        return {key: _decode(item, tensors) for key, item in data.items()}
    if len(data) != 1 or tag not in _DECODERS:
        raise UnpackError(f"unknown mark {tag!r}")
    return _DECODERS[tag](data[tag], tensors)
