"""fp16 and bf16 as a device computes them, one or two to a register: what generated code calls.

Operands and results are bits. A sum of products is exact or rounded to odd in fp64, then rounded once; NaN is 0x7FFF.
"""

from collections.abc import Callable

import numpy as np

from tests.softgpu.floats import exact_fma, max_nan, max_number, min_nan, min_number, to_odd
from tests.softgpu.numbers import WIDEN, to_bf16, to_f16, u2, u4

ROUND: dict[str, Callable[[np.ndarray], np.ndarray]] = {"f16": to_f16, "bf16": lambda x: to_bf16(to_odd(x))}
EXTREMES = {"max": (max_number, max_nan), "min": (min_number, min_nan)}


def _apart(kind: str, values: tuple[np.ndarray, ...]) -> tuple[str, list[np.ndarray]]:
    """The type of one number, and the operands as fp32, twice as many where two are in a register."""
    single = kind.removesuffix("x2")
    return single, [WIDEN[single](value.view(u2)) for value in values]


def _together(kind: str, bits: np.ndarray) -> np.ndarray:
    return bits.view(u4) if kind.endswith("x2") else bits


def fma_half(kind: str, *values: np.ndarray) -> np.ndarray:
    single, (a, b, c) = _apart(kind, values)
    return _together(kind, ROUND[single](exact_fma(a, b, c)))


def add_half(kind: str, *values: np.ndarray) -> np.ndarray:
    single, (a, b) = _apart(kind, values)
    return _together(kind, ROUND[single](exact_fma(a, np.ones_like(a), b)))


def sub_half(kind: str, *values: np.ndarray) -> np.ndarray:
    single, (a, b) = _apart(kind, values)
    return _together(kind, ROUND[single](exact_fma(a, np.ones_like(a), -b)))


def mul_half(kind: str, *values: np.ndarray) -> np.ndarray:
    single, (a, b) = _apart(kind, values)
    return _together(kind, ROUND[single](exact_fma(a, b, np.full_like(a, -0.0))))


def extreme_half(kind: str, name: str, a: np.ndarray, b: np.ndarray, nan: bool) -> np.ndarray:
    single, (x, y) = _apart(kind, (a, b))
    return _together(kind, ROUND[single](EXTREMES[name][nan](x, y).astype(np.float64)))


def narrow_rz(kind: str, x: np.ndarray) -> np.ndarray:
    """fp32 to half precision, rounded towards zero: only an infinity gives one."""
    bits = to_f16(x) if kind == "f16" else to_bf16(x)
    return np.where(np.abs(WIDEN[kind](bits)) > np.abs(x), bits - u2(1), bits)


def round_half(kind: str, x: np.ndarray) -> np.ndarray:
    """fp64 to half precision, rounded to nearest, ties to even."""
    return ROUND[kind](x)
