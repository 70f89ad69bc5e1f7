"""Numbers as a device computes them: the helpers that generated code calls, on arrays over threads."""

from typing import Any

import numpy as np

u1, u2, u4, u8 = np.uint8, np.uint16, np.uint32, np.uint64
i1, i2, i4, i8 = np.int8, np.int16, np.int32, np.int64
f4, f8 = np.float32, np.float64
UNSIGNED = {1: u1, 2: u2, 4: u4, 8: u8}


def merge(mask: np.ndarray, new: Any, old: np.ndarray | None) -> np.ndarray:
    if old is None:
        return np.where(mask, new, np.zeros((), new.dtype))
    return np.where(mask, new, old)


def contiguous(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a)


def pack(*parts: np.ndarray) -> np.ndarray:
    """Neighbouring registers as one, the first in the low bits (flat, to be viewed)."""
    return np.stack(parts, 1).reshape(-1)


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = x.view(u4)
    rounded = ((bits + u4(0x7FFF) + ((bits >> u4(16)) & u4(1))) >> u4(16)).astype(u2)
    return np.where(x != x, u2(0x7FFF), rounded)


def from_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(u4) << u4(16)).view(f4)


def to_f16(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).view(u2)


def from_f16(x: np.ndarray) -> np.ndarray:
    return x.view(np.float16).astype(f4)


WIDEN = {"bf16": from_bf16, "f16": from_f16}


WIDEN = {"bf16": from_bf16, "f16": from_f16}


def to_integer(x: np.ndarray, kind: Any) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.where(x == x, np.clip(x.astype(f8), limits.min, limits.max), 0).astype(kind)


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "u":
        return np.where(b == 0, ~a, a // np.where(b == 0, a.dtype.type(1), b))
    b = np.where(b == 0, a.dtype.type(1), b)
    q = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -q, q)


def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a - quotient(a, b) * b


def shiftl(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    bits = 8 * a.dtype.itemsize
    return np.where(n < bits, a << (n & u4(bits - 1)).astype(a.dtype), a.dtype.type(0))


def shiftr(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    bits = 8 * a.dtype.itemsize
    return (
        a >> np.minimum(n, u4(bits - 1)).astype(a.dtype)
        if a.dtype.kind == "i"
        else np.where(n < bits, a >> (n & u4(bits - 1)).astype(a.dtype), a.dtype.type(0))
    )


def bitfield(a: np.ndarray, at: np.ndarray, width: np.ndarray) -> np.ndarray:
    wide = (a.view("u" + str(a.dtype.itemsize)).astype(u8) >> at.astype(u8)) & ((u8(1) << width.astype(u8)) - u8(1))
    if a.dtype.kind == "i":
        sign = u8(1) << (width - u4(1)).astype(u8)
        wide = (wide ^ sign) - sign
    return wide.astype("u" + str(a.dtype.itemsize)).view(a.dtype)


def permute_bytes(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    both = np.concatenate([a.view(u1).reshape(-1, 4), b.view(u1).reshape(-1, 4)], 1)
    which = (selector[:, None] >> np.arange(0, 16, 4, dtype=u4)).astype(np.intp)
    picked = np.take_along_axis(both, which & 7, 1)
    sign = np.where(picked & 0x80, u1(0xFF), u1(0))
    return np.ascontiguousarray(np.where(which & 8, sign, picked)).view(u4).reshape(-1)


def exp2(x: np.ndarray) -> np.ndarray:
    return np.exp2(x)


def log2(x: np.ndarray) -> np.ndarray:
    return np.log2(x)


def sqrt(x: np.ndarray) -> np.ndarray:
    return np.sqrt(x)


def recip(x: np.ndarray) -> np.ndarray:
    return f4(1) / x


def rsqrt(x: np.ndarray) -> np.ndarray:
    return f4(1) / np.sqrt(x)


HELPERS = {
    name: value
    for name, value in dict(globals()).items()
    if name in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8", "np")
    or (callable(value) and name.islower())
}


HELPERS = {
    name: value
    for name, value in dict(globals()).items()
    if name in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8", "np")
    or (callable(value) and name.islower())
}
