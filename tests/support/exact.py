"""Rounding to binary floating-point formats by the definition, in exact fractions."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Format:
    """A binary format. bits: of the significand, the hidden one too. lowest, highest: exponents of normal numbers."""

    bits: int
    lowest: int
    highest: int


FORMATS = {
    "f16": Format(11, -14, 15),
    "bf16": Format(8, -126, 127),
    "f32": Format(24, -126, 127),
}


def rounded(x: Fraction, form: Format, mode: str = "rn") -> float:
    """x in the format. mode: rn (nearest, ties to even) or rz (towards zero)."""
    if x == 0:
        return 0.0
    size = abs(x)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > size
    step = Fraction(2) ** (max(exponent, form.lowest) - form.bits + 1)
    whole, rest = divmod(size, step)
    if mode == "rn" and (rest * 2 > step or (rest * 2 == step and whole % 2)):
        whole += 1
    result = whole * step
    if result >= Fraction(2) ** (form.highest + 1):
        result = Fraction(2) ** (form.highest + 1) - Fraction(2) ** (form.highest + 1 - form.bits)
        return math.copysign(math.inf if mode == "rn" else float(result), x)
    return math.copysign(float(result), x)


def fma(a: float, b: float, c: float, form: Format, mode: str = "rn") -> float:
    """a b + c, rounded once. Infinities, NaN and the sign of an exact zero are those of fp64, where nothing is lost."""
    if not all(map(math.isfinite, (a, b, c))):
        with np.errstate(invalid="ignore"):
            return float(np.float64(a) * b + c)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    return rounded(exact, form, mode) if exact else float(np.float64(a) * b + c)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """The bits are equal, but any NaN is as good as another."""
    expected = np.asarray(expected, found.dtype)
    bits = f"u{found.dtype.itemsize}"
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found[~nan].view(bits), expected[~nan].view(bits))
