"""Whole numbers and bits on the executor, against Python's integers."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.softgpu import integers
from tests.softgpu.harness import apply, run

TYPES = {f"{ptx}{8 * size}": np.dtype(f"{kind}{size}") for size in (2, 4, 8) for ptx, kind in ("uu", "si")}


def edges(dtype: np.dtype) -> np.ndarray:
    """Numbers round the ends, the middle and zero, as bits of the type."""
    top = 1 << 8 * dtype.itemsize
    values = [
        0,
        1,
        2,
        3,
        7,
        100,
        top // 2 - 1,
        top // 2,
        top // 2 + 1,
        top - 1,
        top - 2,
        top - 100,
        0x1234_5678_9ABC_DEF1,
    ]
    return np.array([v % top for v in values], f"u{dtype.itemsize}").view(dtype)


def pairs(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    values = edges(dtype)
    return np.repeat(values, len(values)), np.tile(values, len(values))


def check(op: str, result: np.dtype, expected: Callable[..., int], *operands: np.ndarray) -> None:
    """Each result is the low bits of what `expected` makes of the operands as Python's integers."""
    found = apply(op, result, *operands)
    rows = zip(*(operand.tolist() for operand in operands), strict=True)
    mask = (1 << 8 * found.dtype.itemsize) - 1
    wanted = np.array([expected(*row) & mask for row in rows], f"u{found.dtype.itemsize}")
    np.testing.assert_array_equal(found.view(wanted.dtype), wanted, op)


def towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@pytest.mark.parametrize("ptx", TYPES)
def test_arithmetic(ptx: str) -> None:
    dtype = TYPES[ptx]
    bits, (a, b) = 8 * dtype.itemsize, pairs(dtype)
    for op, expected in {
        "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul.lo": lambda x, y: x * y,
        "mul.hi": lambda x, y: x * y >> bits, "min": min, "max": max,
    }.items():  # fmt: skip
        check(f"{op}.{ptx}", dtype, expected, a, b)
    c = np.roll(a, 5)
    check(f"mad.lo.{ptx}", dtype, lambda x, y, z: x * y + z, a, b, c)
    check(f"mad.hi.{ptx}", dtype, lambda x, y, z: (x * y >> bits) + z, a, b, c)
    some = b != 0
    check(f"div.{ptx}", dtype, towards_zero, a[some], b[some])
    check(f"rem.{ptx}", dtype, lambda x, y: x - towards_zero(x, y) * y, a[some], b[some])


@pytest.mark.parametrize("ptx", ["u16", "s16", "u32", "s32"])
def test_wide_products(ptx: str) -> None:
    dtype = TYPES[ptx]
    wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
    a, b = pairs(dtype)
    check(f"mul.wide.{ptx}", wide, lambda x, y: x * y, a, b)
    check(f"mad.wide.{ptx}", wide, lambda x, y, z: x * y + z, a, b, np.resize(edges(wide), len(a)))


@pytest.mark.parametrize("ptx", ["s16", "s32", "s64"])
def test_signs(ptx: str) -> None:
    values = edges(TYPES[ptx])
    check(f"neg.{ptx}", TYPES[ptx], lambda x: -x, values)
    check(f"abs.{ptx}", TYPES[ptx], abs, values)


def test_saturation() -> None:
    a, b = pairs(TYPES["s32"])
    check("add.sat.s32", TYPES["s32"], lambda x, y: min(max(x + y, -(2**31)), 2**31 - 1), a, b)
    check("sub.sat.s32", TYPES["s32"], lambda x, y: min(max(x - y, -(2**31)), 2**31 - 1), a, b)
    check("max.relu.s32", TYPES["s32"], lambda x, y: max(x, y, 0), a, b)
    check("min.relu.s32", TYPES["s32"], lambda x, y: max(min(x, y), 0), a, b)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_logic(size: int) -> None:
    dtype = np.dtype(f"u{size // 8}")
    a, b = pairs(dtype)
    check(f"and.b{size}", dtype, lambda x, y: x & y, a, b)
    check(f"or.b{size}", dtype, lambda x, y: x | y, a, b)
    check(f"xor.b{size}", dtype, lambda x, y: x ^ y, a, b)
    check(f"not.b{size}", dtype, lambda x: ~x, edges(dtype))
    check(f"cnot.b{size}", dtype, lambda x: int(x == 0), edges(dtype))


def test_logic_of_predicates() -> None:
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    for op, expected in {"and": a & b, "or": a | b, "xor": a ^ b}.items():
        np.testing.assert_array_equal(apply(f"{op}.pred", bool, a, b), expected)
    np.testing.assert_array_equal(apply("not.pred", bool, a), ~a)


def test_logic_of_three() -> None:
    a, b = pairs(np.dtype("u4"))
    inputs = {"a": np.resize(a, 192), "b": np.resize(b, 192), "c": np.resize(np.roll(b, 3), 192)}
    for table in (0xC0, 0x96, 0xE8, 0x01, 0xFE):
        found = run(f"lop3.b32 %d, %a, %b, %c, {table};", inputs, {"d": np.uint32}, threads=192)["d"]
        for bit in range(32):
            rows = sum((inputs[name] >> bit & 1) << place for name, place in (("a", 2), ("b", 1), ("c", 0)))
            np.testing.assert_array_equal(found >> bit & 1, table >> rows & 1)


SHIFTS = np.array([0, 1, 5, 15, 16, 17, 31, 32, 33, 63, 64, 200, 2**31, 2**32 - 1], np.uint32)


@pytest.mark.parametrize("ptx", ["b16", "b32", "b64"])
def test_shifts_to_the_left(ptx: str) -> None:
    dtype = np.dtype(f"u{int(ptx[1:]) // 8}")
    a, n = (x.reshape(-1) for x in np.meshgrid(edges(dtype), SHIFTS))
    check(f"shl.{ptx}", dtype, lambda x, k: x << min(k, 64), a, n)


@pytest.mark.parametrize("ptx", [*TYPES, "b16", "b32", "b64"])
def test_shifts_to_the_right(ptx: str) -> None:
    dtype = TYPES.get(ptx, np.dtype(f"u{int(ptx[1:]) // 8}"))
    a, n = (x.reshape(-1) for x in np.meshgrid(edges(dtype), SHIFTS))
    check(f"shr.{ptx}", dtype, lambda x, k: x >> min(k, 64), a, n)


@pytest.mark.parametrize(("op", "kind"), [("shl.b32", "u4"), ("shr.u32", "u4"), ("shr.s32", "i4"), ("shr.s64", "i8")])
def test_shifts_by_a_constant(op: str, kind: str) -> None:
    values = np.resize(edges(np.dtype(kind)), 32)
    for n in (0, 7, 31, 32, 99):
        found = run(f"{op} %d, %a, {n};", {"a": values}, {"d": kind})["d"]
        np.testing.assert_array_equal(found, apply(op, kind, values, np.uint32(n)))


def test_funnel_shifts() -> None:
    low, high = pairs(np.dtype("u4"))
    n = np.resize(SHIFTS, len(low))
    for mode, amount in {"clamp": lambda k: min(k, 32), "wrap": lambda k: k & 31}.items():
        word = np.dtype("u4")
        check(f"shf.l.{mode}.b32", word, lambda a, b, k, m=amount: (a | b << 32) << m(k) >> 32, low, high, n)
        check(f"shf.r.{mode}.b32", word, lambda a, b, k, m=amount: (a | b << 32) >> m(k), low, high, n)


# Bit fields, by the loops of the manual


def extracted(a: int, start: int, length: int, bits: int, signed: bool) -> int:
    start, length = start & 255, length & 255
    sign = 0 if not signed or length == 0 else a >> min(start + length - 1, bits - 1) & 1
    return sum((a >> start + i & 1 if i < length and start + i < bits else sign) << i for i in range(bits))


def inserted(a: int, b: int, start: int, length: int, bits: int) -> int:
    start, length = start & 255, length & 255
    for i in range(length):
        if start + i < bits:
            b = b & ~(1 << start + i) | (a >> i & 1) << start + i
    return b


FIELDS = np.array([0, 1, 4, 7, 31, 32, 33, 63, 64, 255, 256, 260], np.uint32)


@pytest.mark.parametrize("ptx", ["u32", "s32", "u64", "s64"])
def test_fields(ptx: str) -> None:
    dtype = TYPES[ptx]
    bits, values = 8 * dtype.itemsize, edges(dtype)[[1, 7, 9, 12]]
    a, start, length = (x.reshape(-1) for x in np.meshgrid(values, FIELDS, FIELDS))
    check(f"bfe.{ptx}", dtype, lambda x, s, n: extracted(x, s, n, bits, ptx[0] == "s"), a, start, length)
    if ptx[0] == "u":
        b = np.roll(a, 3)
        check(f"bfi.b{bits}", dtype, lambda x, y, s, n: inserted(x, y, s, n, bits), a, b, start, length)


@pytest.mark.parametrize(("start", "length"), [(0, 5), (4, 28), (31, 1), (0, 32), (8, 0), (28, 8), (300, 4)])
@pytest.mark.parametrize("ptx", ["u32", "s32"])
def test_fields_by_constants(ptx: str, start: int, length: int) -> None:
    values = np.resize(edges(TYPES[ptx]), 32)
    found = run(f"bfe.{ptx} %d, %a, {start}, {length};", {"a": values}, {"d": TYPES[ptx]})["d"]
    wanted = [extracted(v, start, length, 32, ptx == "s32") for v in values.tolist()]
    np.testing.assert_array_equal(found.view(np.uint32), np.array(wanted, np.uint32))


def highest(x: int) -> int:
    """The place of the highest bit that differs from the sign; -1 if there is none."""
    return (x if x >= 0 else ~x).bit_length() - 1


@pytest.mark.parametrize("size", [32, 64])
def test_counts(size: int) -> None:
    unsigned, signed = edges(np.dtype(f"u{size // 8}")), edges(np.dtype(f"i{size // 8}"))
    word = np.dtype("u4")
    check(f"popc.b{size}", word, lambda x: x.bit_count(), unsigned)
    check(f"clz.b{size}", word, lambda x: size - x.bit_length(), unsigned)
    check(f"brev.b{size}", unsigned.dtype, lambda x: int(f"{x:0{size}b}"[::-1], 2), unsigned)
    for ptx, values in {f"u{size}": unsigned, f"s{size}": signed}.items():
        check(f"bfind.{ptx}", word, highest, values)
        check(f"bfind.shiftamt.{ptx}", word, lambda x: -1 if highest(x) < 0 else size - 1 - highest(x), values)


# Bytes


def chosen(a: int, b: int, selector: int) -> int:
    """prmt without a mode."""
    both, result = a | b << 32, 0
    for i in range(4):
        which = selector >> 4 * i & 15
        byte = both >> 8 * (which & 7) & 255
        result |= (255 * (byte >> 7) if which & 8 else byte) << 8 * i
    return result


MODES = {
    "f4e": lambda s, i: s + i,
    "b4e": lambda s, i: (s - i) % 8,
    "rc8": lambda s, i: s,
    "ecl": lambda s, i: max(s, i),
    "ecr": lambda s, i: min(s, i),
    "rc16": lambda s, i: 2 * (s & 1) + (i & 1),
}


def test_bytes() -> None:
    a, b = pairs(np.dtype("u4"))
    a, b = a ^ np.uint32(0x80402010), b ^ np.uint32(0x01F0A5C3)
    selectors = np.resize(np.array([0x3210, 0x7654, 0x0123, 0xFBA9, 0x8888, 0x5140, 0x7060], np.uint32), len(a))
    check("prmt.b32", np.dtype("u4"), chosen, a, b, selectors)
    few = np.resize(np.arange(8, dtype=np.uint32), len(a))
    for mode, source in MODES.items():
        pick = [sum(source(s, i) << 4 * i for i in range(4)) for s in range(4)]
        check(f"prmt.b32.{mode}", np.dtype("u4"), lambda x, y, s, pick=pick: chosen(x, y, pick[s & 3]), a, b, few)


@pytest.mark.parametrize("first", ["u32", "s32"])
@pytest.mark.parametrize("second", ["u32", "s32"])
def test_dot_products_of_bytes(first: str, second: str) -> None:
    a, b = pairs(np.dtype("u4"))
    a, b, c = a ^ np.uint32(0x80FF7F01), b ^ np.uint32(0x7F80C3FE), np.roll(a, 9)

    def members(x: int, kind: str) -> list[int]:
        found = [x >> 8 * i & 255 for i in range(4)]
        return [m - 256 if kind == "s32" and m > 127 else m for m in found]

    def dot(x: int, y: int, z: int) -> int:
        return sum(p * q for p, q in zip(members(x, first), members(y, second), strict=True)) + z

    check(f"dp4a.{first}.{second}", np.dtype("u4"), dot, a, b, c)


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=32))
def test_high_halves(numbers: list[tuple[int, int]]) -> None:
    a, b = np.array(numbers, np.uint64).T.copy()
    for dtype in (np.uint64, np.int64):
        x, y = a.view(dtype), b.view(dtype)
        exact = [p * q >> 64 & 2**64 - 1 for p, q in zip(x.tolist(), y.tolist(), strict=True)]
        np.testing.assert_array_equal(integers.high_product(x, y).view(np.uint64), np.array(exact, np.uint64))
