"""Whole numbers as a device computes them, on arrays over threads: what generated code calls."""

import numpy as np

from tests.softgpu.numbers import f8, i8, u1, u4, u8


def high_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The high half of the product of two arrays of one integer type."""
    kind, bits = a.dtype, 8 * a.dtype.itemsize
    if bits < 64:
        wide = np.dtype(f"{kind.kind}{2 * kind.itemsize}")
        return (a.astype(wide) * b.astype(wide) >> wide.type(bits)).astype(kind)
    low, half = u8(0xFFFFFFFF), u8(32)
    x, y = a.view(u8), b.view(u8)
    middle = (x & low) * (y & low) >> half
    first = (x >> half) * (y & low) + middle
    second = (x & low) * (y >> half) + (first & low)
    high = (x >> half) * (y >> half) + (first >> half) + (second >> half)
    if kind.kind == "i":  # a negative factor stands for itself less 2**64
        high = high - np.where(a < 0, y, u8(0)) - np.where(b < 0, x, u8(0))
    return high.view(kind)


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rounded towards zero. Devices give no sense to a division by zero: here all bits but those of `a` are set."""
    zero = b == 0
    b = np.where(zero, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        return np.where(zero, ~a, a // b)
    whole = a // b
    whole += (whole < 0) & (whole * b != a)  # // rounds down
    return np.where(zero, ~a, whole)


def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """With the sign of `a`."""
    return a - quotient(a, b) * b


def shift_left(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Shifts by the width or more give 0."""
    bits = 8 * a.dtype.itemsize
    return np.where(n < bits, a << (n & u4(bits - 1)).astype(a.dtype), a.dtype.type(0))


def shift_right(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Shifts by the width or more leave the sign."""
    bits = 8 * a.dtype.itemsize
    shifted = a >> np.minimum(n, u4(bits - 1)).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(n < bits, shifted, a.dtype.type(0))


def funnel_l(low: np.ndarray, high: np.ndarray, n: np.ndarray, wrap: bool) -> np.ndarray:
    both, n = low | high.astype(u8) << u8(32), (n & u4(31) if wrap else np.minimum(n, u4(32)))
    return (both << n.astype(u8) >> u8(32)).astype(u4)


def funnel_r(low: np.ndarray, high: np.ndarray, n: np.ndarray, wrap: bool) -> np.ndarray:
    both, n = low | high.astype(u8) << u8(32), (n & u4(31) if wrap else np.minimum(n, u4(32)))
    return (both >> n.astype(u8)).astype(u4)


def bit_field(a: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """bfe: `length` bits from `start` on; above them the sign, which lies inside the word, or zeros."""
    bits = 8 * a.dtype.itemsize
    start, length = (start & u4(255)).astype(i8), (length & u4(255)).astype(i8)
    end = np.minimum(start + length, bits)
    held = np.maximum(end - start, 0).astype(u4)  # bits of the field that exist
    unsigned = a.view(f"u{a.dtype.itemsize}")
    field = shift_right(unsigned, np.minimum(start, bits).astype(u4)) & ~shift_left(~unsigned ^ unsigned, held)
    if a.dtype.kind == "u":
        return field
    sign = (a >> np.clip(start + length - 1, 0, bits - 1).astype(a.dtype)) & 1
    filled = field | shift_left(~unsigned ^ unsigned, held)
    return np.where((sign == 1) & (length > 0), filled, field).view(a.dtype)


def insert_field(a: np.ndarray, b: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """bfi: the low `length` bits of `a` in place of those of `b` from `start` on."""
    start, length = start & u4(255), length & u4(255)
    mask = shift_left(~shift_left(~a ^ a, length), start)
    return b & ~mask | shift_left(a, start) & mask


def reverse_bits(a: np.ndarray) -> np.ndarray:
    flipped = np.flip(np.unpackbits(a.view(u1).reshape(len(a), -1), axis=1, bitorder="little"), 1)
    return np.ascontiguousarray(np.packbits(flipped, axis=1, bitorder="little")).view(a.dtype).reshape(-1)


def leading_zeros(a: np.ndarray) -> np.ndarray:
    bits, count = 8 * a.dtype.itemsize, np.zeros(len(a), u4)
    for shift in (32, 16, 8, 4, 2, 1):
        if shift < bits:
            empty = a >> a.dtype.type(bits - shift) == 0
            count += np.where(empty, u4(shift), u4(0))
            a = np.where(empty, a << a.dtype.type(shift), a)
    return count + (a == 0)


def highest_bit(a: np.ndarray, shift: bool) -> np.ndarray:
    """bfind: place of the highest bit that differs from the sign, or how far it is from the top; none: all ones."""
    unsigned = (np.where(a < 0, ~a, a) if a.dtype.kind == "i" else a).view(f"u{a.dtype.itemsize}")
    zeros = leading_zeros(unsigned)
    place = zeros if shift else u4(8 * a.dtype.itemsize - 1) - zeros
    return np.where(unsigned == 0, u4(0xFFFFFFFF), place).astype(u4)


def logic3(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: int) -> np.ndarray:
    """Bit by bit the entry of the table (8 bits) at 4 a + 2 b + c."""
    result = np.zeros_like(a)
    for row in range(8):
        if table >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result


def permute_bytes(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    """Four bits for each byte: which of the eight; the fourth bit asks for its sign in all eight bits."""
    both = np.concatenate([a.view(u1).reshape(-1, 4), b.view(u1).reshape(-1, 4)], 1)
    which = (selector[:, None] >> np.arange(0, 16, 4, dtype=u4)).astype(np.intp)
    picked = np.take_along_axis(both, which & 7, 1)
    sign = np.where(picked & 0x80, u1(0xFF), u1(0))
    return np.ascontiguousarray(np.where(which & 8, sign, picked)).view(u4).reshape(-1)


def _permuted(a: np.ndarray, b: np.ndarray, selector: np.ndarray, table: tuple[int, ...]) -> np.ndarray:
    """The selectors of a mode of prmt by the low two bits of the selector."""
    return permute_bytes(a, b, np.array(table, u4)[selector & u4(3)])


def permute_f4e(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    return _permuted(a, b, selector, (0x3210, 0x4321, 0x5432, 0x6543))


def permute_b4e(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    return _permuted(a, b, selector, (0x5670, 0x6701, 0x7012, 0x0123))


def permute_rc8(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    return _permuted(a, b, selector, (0x0000, 0x1111, 0x2222, 0x3333))


def permute_ecl(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    return _permuted(a, b, selector, (0x3210, 0x3211, 0x3222, 0x3333))


def permute_ecr(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    return _permuted(a, b, selector, (0x0000, 0x1110, 0x2210, 0x3210))


def permute_rc16(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    return _permuted(a, b, selector, (0x1010, 0x3232, 0x1010, 0x3232))


def dot_bytes(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """dp4a: the products of four bytes each, and `c`; what does not fit is lost."""
    products = a.reshape(-1, 4).astype(i8) * b.reshape(-1, 4).astype(i8)
    return (products.sum(1) + c).astype(c.dtype)


def clamped(a: np.ndarray, kind: type) -> np.ndarray:
    """An integer as one of another type: the nearest that there is."""
    from_, to = np.iinfo(a.dtype), np.iinfo(kind)
    return np.clip(a, a.dtype.type(max(from_.min, to.min)), a.dtype.type(min(from_.max, to.max))).astype(kind)


def to_integer(x: np.ndarray, kind: type, double: bool) -> np.ndarray:
    """A float without a fraction as an integer: the nearest that there is.

    NaN gives 0, or the highest bit alone where the source is fp64 (double) or the integer has 64 bits.
    """
    limits = np.iinfo(kind)
    highest = limits.min or 1 << limits.bits - 1
    if limits.bits < 64:
        clipped = np.clip(x.astype(f8), limits.min, limits.max)
        return np.where(x == x, clipped, f8(highest if double else 0)).astype(kind)
    inside = (x > limits.min) & (x < float(limits.max))  # as a float that limit is one more
    whole = np.where(inside, x, x.dtype.type(0)).astype(kind)
    whole = np.where(inside, whole, np.where(x > 0, kind(limits.max), kind(limits.min)))
    return np.where(x == x, whole, kind(highest))
