"""Kinds of numbers, and bits that move: what generated code calls, on arrays over threads."""

from typing import Any

import numpy as np

u1, u2, u4, u8 = np.uint8, np.uint16, np.uint32, np.uint64
i1, i2, i4, i8 = np.int8, np.int16, np.int32, np.int64
f2, f4, f8 = np.float16, np.float32, np.float64
UNSIGNED = {1: u1, 2: u2, 4: u4, 8: u8}
POISON = 0xEE  # each byte of what was never written


class Unwritten:
    """What a register holds before it is written. None would not do: NumPy compares, chooses and stacks that."""

    def __array__(self, *how: Any, **more: Any) -> np.ndarray:
        raise TypeError("Unwritten")


UNWRITTEN = Unwritten()


def merge(mask: np.ndarray, new: Any, old: Any) -> np.ndarray:
    """`new` in the threads of the mask. A register that was not written before holds garbage in the others."""
    return np.where(mask, new, garbage(new.dtype) if old is UNWRITTEN else old)


def garbage(dtype: np.dtype) -> np.ndarray:
    """What an unwritten register holds: a number that a test notices."""
    return np.zeros(1, bool) if dtype.kind == "b" else np.full(dtype.itemsize, POISON, u1).view(dtype)


def contiguous(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a)


def pack(*parts: np.ndarray) -> np.ndarray:
    """Neighbouring registers as one, the first in the low bits (flat, to be viewed)."""
    return np.stack(parts, 1).reshape(-1)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """fp32 to the bits of bf16, rounded to nearest, ties to even; every NaN to 0x7FFF."""
    bits = x.view(u4)
    rounded = ((bits + u4(0x7FFF) + ((bits >> u4(16)) & u4(1))) >> u4(16)).astype(u2)
    return np.where(x != x, u2(0x7FFF), rounded)


def from_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(u4) << u4(16)).view(f4)


def to_f16(x: np.ndarray) -> np.ndarray:
    """fp32 or fp64 to the bits of fp16, rounded to nearest, ties to even; every NaN to 0x7FFF."""
    return np.where(x != x, u2(0x7FFF), x.astype(f2).view(u2))


def from_f16(x: np.ndarray) -> np.ndarray:
    return x.view(f2).astype(f4)


WIDEN = {"bf16": from_bf16, "f16": from_f16}
