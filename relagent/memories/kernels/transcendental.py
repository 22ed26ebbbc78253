"""exp, tanh and the logistic function, written so that LLVM turns loops over them into vectors.

All three reduce to eʳ - 1 on |r| ≤ ln(2)/2 after x = k ln 2 + r (Cody & Waite 1980), by its Taylor
polynomial up to the degree at which what is left out is below the rounding. Nothing branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from relagent.memories.kernels.native import OPTIONS

Function = Callable[..., Any]


class _Format(NamedTuple):
    """What differs between float32 and float64; ``real`` and ``integer`` have the same width."""

    real: type[np.floating[Any]]
    integer: type[np.signedinteger[Any]]
    mantissa: int
    bias: int
    degree: int
    high_bits: int
    """ln 2 is split in two; the high part has so many bits that k times it is exact."""
    lowest: float
    """exp is 0 below."""
    highest: float
    """exp is infinite above."""
    saturation: float
    """tanh is 1 above."""


_FORMATS = {
    types.float32: _Format(np.float32, np.int32, 23, 127, 7, 12, -105.0, 89.0, 10.0),
    types.float64: _Format(np.float64, np.int64, 52, 1023, 13, 40, -746.0, 710.0, 20.0),
}


def exp(x: Any) -> Any:
    """eˣ."""
    raise NotImplementedError("only compiled code calls this")


def exp_within(x: Any) -> Any:
    """:func:`exp` where the result and its inverse are normal numbers (|x| ≤ 87 in float32)."""
    raise NotImplementedError("only compiled code calls this")


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    raise NotImplementedError("only compiled code calls this")


def sigmoid(x: Any) -> Any:
    """Logistic function 1 / (1 + e⁻ˣ)."""
    raise NotImplementedError("only compiled code calls this")


def _reduced(x: Any) -> Any:
    raise NotImplementedError


def _expm1(r: Any) -> Any:
    raise NotImplementedError


def _power_of_two(shifted: Any) -> Any:
    raise NotImplementedError


def _round_shift(f: _Format) -> Any:
    """1.5 · 2^mantissa: adding it rounds to an integer, which then stands in the lowest bits."""
    return f.real(1.5 * 2.0**f.mantissa)


@overload(_reduced, jit_options=OPTIONS)
def _reduced_overload(x: Any) -> Function:
    """X = k ln 2 + r: returns k as a number, k in the lowest bits of a number, and r."""
    f = _FORMATS[x]
    with localcontext() as context:
        context.prec = 50
        ln2 = Decimal(2).ln()
        high = round(ln2 * 2**f.high_bits) / Decimal(2**f.high_bits)
        ln2_high, ln2_low = f.real(high), f.real(ln2 - high)
        per_ln2 = f.real(1 / ln2)
    shift = _round_shift(f)

    def reduced(x: Any) -> Any:
        shifted = x * per_ln2 + shift
        k = shifted - shift
        return k, shifted, (x - k * ln2_high) - k * ln2_low

    return reduced


@overload(_expm1, jit_options=OPTIONS)
def _expm1_overload(r: Any) -> Function:
    """Taylor polynomial of eʳ - 1 = r + r² (1/2! + r/3! + ...), by Horner's rule."""
    f = _FORMATS[r]
    _, _, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = (
        f.real(1 / math.factorial(n)) for n in range(14)
    )

    def degree_7(r: Any) -> Any:
        p = ((((c7 * r + c6) * r + c5) * r + c4) * r + c3) * r + c2
        return p * (r * r) + r

    def degree_13(r: Any) -> Any:
        p = (((((c13 * r + c12) * r + c11) * r + c10) * r + c9) * r + c8) * r + c7
        p = ((((p * r + c6) * r + c5) * r + c4) * r + c3) * r + c2
        return p * (r * r) + r

    return degree_7 if f.degree == 7 else degree_13


@overload(_power_of_two, jit_options=OPTIONS)
def _power_of_two_overload(shifted: Any) -> Function:
    """2ᵏ where k stands in the lowest bits: it becomes the exponent."""
    f = _FORMATS[shifted]
    bias, mantissa = f.integer(f.bias), f.integer(f.mantissa)

    # numba wants the types of a reinterpretation spelled out.
    def single(shifted: Any) -> Any:
        bits = np.float32(shifted).view(np.int32)
        return np.int32((bits + bias) << mantissa).view(np.float32)

    def double(shifted: Any) -> Any:
        bits = np.float64(shifted).view(np.int64)
        return np.int64((bits + bias) << mantissa).view(np.float64)

    return single if f.real is np.float32 else double


@overload(exp, jit_options=OPTIONS)
def _exp_overload(x: Any) -> Function:
    f = _FORMATS[x]
    lowest, highest, half = f.real(f.lowest), f.real(f.highest), f.real(0.5)
    shift, one = _round_shift(f), f.real(1)

    def implementation(x: Any) -> Any:
        # Comparisons that NaN fails, so that it stays.
        x = lowest if x < lowest else x
        x = highest if x > highest else x
        k, _, r = _reduced(x)
        # 2ᵏ in two factors: either of them alone may be beyond the range of the format.
        first = k * half + shift
        second = (k - (first - shift)) + shift
        return ((one + _expm1(r)) * _power_of_two(first)) * _power_of_two(second)

    return implementation


@overload(exp_within, jit_options=OPTIONS)
def _exp_within_overload(x: Any) -> Function:
    one = _FORMATS[x].real(1)

    def implementation(x: Any) -> Any:
        _, shifted, r = _reduced(x)
        return (one + _expm1(r)) * _power_of_two(shifted)

    return implementation


@overload(tanh, jit_options=OPTIONS)
def _tanh_overload(x: Any) -> Function:
    f = _FORMATS[x]
    zero, one, two, saturation = f.real(0), f.real(1), f.real(2), f.real(f.saturation)

    def implementation(x: Any) -> Any:
        # tanh|x| = m / (m + 2) with m = e^(2|x|) - 1: no cancellation near 0.
        size = abs(x)
        size = saturation if size > saturation else size
        _, shifted, r = _reduced(two * size)
        power = _power_of_two(shifted)
        m = power * _expm1(r) + (power - one)
        y = m / (m + two)
        return -y if x < zero else y

    return implementation


@overload(sigmoid, jit_options=OPTIONS)
def _sigmoid_overload(x: Any) -> Function:
    f = _FORMATS[x]
    zero, one = f.real(0), f.real(1)

    def implementation(x: Any) -> Any:
        # e^(-|x|) never overflows, and 1 / (1 + z) and z / (1 + z) lose nothing.
        z = exp(-abs(x))
        return (z if x < zero else one) / (one + z)

    return implementation
