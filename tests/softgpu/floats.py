"""fp32 as a device computes it, on arrays over threads: what generated code calls.

Sums, products, `fma`, divisions and square roots are rounded once, as IEEE 754 says. The approximations of a device
(ex2, lg2, sin, cos, tanh, rcp, rsqrt, sqrt with .approx; div.full) are computed in fp64 and rounded, so they are closer
than what the device gives. NaN has the bits that NumPy gives it, except where a docstring says otherwise. A mul and an
add without .rn stay apart, which ptxas may contract to an fma.
"""

import numpy as np

from tests.softgpu.numbers import f4, f8, u4, u8

SMALLEST = f4(2.0**-126)  # the smallest that is not subnormal
CANONICAL = np.array([0x7FFFFFFF], u4).view(f4)  # the NaN that a device makes


def flush(x: np.ndarray) -> np.ndarray:
    """.ftz: subnormal numbers become zeros of their sign."""
    return x * (np.abs(x) >= SMALLEST)  # times 0 or 1


def saturate(x: np.ndarray) -> np.ndarray:
    """.sat: into 0 .. 1; NaN becomes 0."""
    return np.where(x > 0, np.minimum(x, f4(1)), f4(0))


def canonical(x: np.ndarray) -> np.ndarray:
    return np.where(x == x, x, CANONICAL)


# Sums and products that round once

LOW_BITS = u8((1 << 28) - 1)  # those that all halves between two fp32 have in common, and few other fp64


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a b + c, rounded once to the nearest fp32, ties to even.

    The product of two fp32 is exact in fp64. The sum is rounded to fp64 and then to fp32, which differs from rounding
    once only if fp64 lies half way between two fp32 and the true sum does not: then the 28 low bits are 0.
    """
    product = a.astype(f8)
    product *= b
    total = product + c
    rounded = total.astype(f4)
    if np.count_nonzero(total.view(u8) & LOW_BITS) == total.size or (rounded == total).all():
        return rounded
    return _odd(product, c, total).astype(f4)


def _odd(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """a + b rounded to odd: towards zero, with the last bit set if anything was lost.

    total: a + b in fp64. A number so rounded can be rounded again to fewer bits as if it were exact.
    """
    part = total - a
    lost = (a - (total - part)) + (b - part)  # what rounding lost, exactly (Knuth)
    bits = total.view(u8)
    away = (lost != 0) & np.isfinite(total) & ((lost < 0) == (total > 0))  # rounded away from zero
    bits = bits - away
    return (bits | ((lost != 0) & np.isfinite(total))).view(f8)


def exact_fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a b + c of numbers with up to 24 bits, rounded to odd in fp64."""
    product = a.astype(f8) * b.astype(f8)
    return _odd(product, c.astype(f8), product + c)


def towards_zero(x: np.ndarray) -> np.ndarray:
    """fp64 to fp32, rounded towards zero."""
    near = x.astype(f4)
    return np.where(np.abs(near.astype(f8)) > np.abs(x), np.nextafter(near, f4(0)), near)


def to_odd(x: np.ndarray) -> np.ndarray:
    """fp64 to fp32, rounded to odd."""
    down = towards_zero(x)
    return np.where((down != x) & (x == x), (down.view(u4) | u4(1)).view(f4), down)


def add_rz(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return towards_zero(exact_fma(a, np.ones_like(a), b))


def sub_rz(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return add_rz(a, -b)


def mul_rz(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return towards_zero(np.multiply(a, b, dtype=f8))


def fma_rz(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return towards_zero(exact_fma(a, b, c))


# Extremes


def _zeros(r: np.ndarray, a: np.ndarray, b: np.ndarray, largest: bool) -> np.ndarray:
    """+0 is larger than -0."""
    if r.all():
        return r
    kind = f"u{r.dtype.itemsize}"
    x, y = a.view(kind), b.view(kind)
    return np.where((a == 0) & (b == 0), (x & y if largest else x | y).view(r.dtype), r)


def max_number(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The other one of a NaN."""
    return _zeros(np.fmax(a, b), a, b, True)


def min_number(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _zeros(np.fmin(a, b), a, b, False)


def max_nan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NaN where one is NaN."""
    return canonical(_zeros(np.maximum(a, b), a, b, True))


def min_nan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return canonical(_zeros(np.minimum(a, b), a, b, False))


def xor_signs(size: np.ndarray, *operands: np.ndarray) -> np.ndarray:
    """.xorsign.abs: the product of the operands' signs."""
    sign = operands[0].view(u4)
    for operand in operands[1:]:
        sign = sign ^ operand.view(u4)
    return (size.view(u4) & u4(0x7FFFFFFF) | sign & u4(0x80000000)).view(f4)


# Functions


def ex2(x: np.ndarray) -> np.ndarray:
    return np.exp2(x.astype(f8)).astype(f4)


def lg2(x: np.ndarray) -> np.ndarray:
    return np.log2(x.astype(f8)).astype(f4)


def sin(x: np.ndarray) -> np.ndarray:
    return np.sin(x.astype(f8)).astype(f4)


def cos(x: np.ndarray) -> np.ndarray:
    return np.cos(x.astype(f8)).astype(f4)


def tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(x.astype(f8)).astype(f4)


def sqrt(x: np.ndarray) -> np.ndarray:
    return np.sqrt(x)


def rcp(x: np.ndarray) -> np.ndarray:
    return x.dtype.type(1) / x


def rsqrt(x: np.ndarray) -> np.ndarray:
    return (1 / np.sqrt(x.astype(f8))).astype(f4)
