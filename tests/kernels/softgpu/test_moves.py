"""Comparisons, choices, moves, parts of registers, parameters and vectors on the executor."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.softgpu.harness import apply, run

INTEGERS = {f"{ptx}{8 * size}": np.dtype(f"{kind}{size}") for size in (2, 4, 8) for ptx, kind in ("bu", "uu", "si")}
COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "lo": lambda a, b: a < b, "ls": lambda a, b: a <= b,
    "hi": lambda a, b: a > b, "hs": lambda a, b: a >= b,
}  # fmt: skip
REALS = np.array([0.0, -0.0, 1, -1, 1e-40, -1e-40, 2.5, np.inf, -np.inf, np.nan], np.float32)
A, B = np.repeat(REALS, len(REALS)), np.tile(REALS, len(REALS))


@pytest.mark.parametrize("ptx", INTEGERS)
def test_comparisons_of_integers(ptx: str) -> None:
    top = 1 << 8 * INTEGERS[ptx].itemsize
    values = np.array([0, 1, top // 2 - 1, top // 2, top - 1], f"u{INTEGERS[ptx].itemsize}").view(INTEGERS[ptx])
    a, b = np.repeat(values, 5), np.tile(values, 5)
    names = {"b": ("eq", "ne"), "s": ("eq", "ne", "lt", "le", "gt", "ge"), "u": tuple(COMPARISONS)}[ptx[0]]
    for name in names:
        expected = [COMPARISONS[name](x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        np.testing.assert_array_equal(apply(f"setp.{name}.{ptx}", bool, a, b), expected, name)


ORDERED = ("eq", "ne", "lt", "le", "gt", "ge")


def expected_of_floats(name: str, a: np.ndarray, b: np.ndarray) -> list[bool]:
    """Ordered comparisons are false for NaN, those with u are true."""
    nan = np.isnan(a) | np.isnan(b)
    if name in ("num", "nan"):
        return list(nan == (name == "nan"))
    plain = np.array([COMPARISONS[name[:2]](x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)])
    return list(plain | nan if name.endswith("u") else plain & ~nan)


@pytest.mark.parametrize("name", [*ORDERED, *(f"{n}u" for n in ORDERED), "num", "nan"])
def test_comparisons_of_floats(name: str) -> None:
    np.testing.assert_array_equal(apply(f"setp.{name}.f32", bool, A, B), expected_of_floats(name, A, B))
    wide = A.astype(np.float64), B.astype(np.float64)
    np.testing.assert_array_equal(apply(f"setp.{name}.f64", bool, *wide), expected_of_floats(name, *wide))
    a, b = (np.where(np.abs(x) < 2.0**-126, np.copysign(0, x), x) for x in (A, B))
    np.testing.assert_array_equal(apply(f"setp.{name}.ftz.f32", bool, A, B), expected_of_floats(name, a, b))
    for half, bits in {"f16": np.float16, "bf16": None}.items():
        small = (
            [x.view(np.uint32) >> 16 for x in (A, B)] if bits is None else [x.astype(bits).view("u2") for x in (A, B)]
        )
        values = [(x << 16).view(np.float32) if bits is None else x.view(bits) for x in small]
        found = apply(f"setp.{name}.{half}", bool, *(x.astype(np.uint16) for x in small))
        np.testing.assert_array_equal(found, expected_of_floats(name, *values))


@pytest.mark.parametrize("combine", ["and", "or", "xor"])
@pytest.mark.parametrize("negated", ["", "!"])
def test_comparisons_with_a_predicate(combine: str, negated: str) -> None:
    a, b = np.repeat(np.int32([1, 2]), 16), np.tile(np.int32([1, 2, 2, 1]), 8)
    c = np.arange(32) % 3 == 0
    body = f"setp.lt.{combine}.s32 %p|%q, %a, %b, {negated}%c; setp.ge.s32 %s|%t, %a, %b;"
    found = run(body, {"a": a, "b": b, "c": c}, dict.fromkeys("pqst", bool))
    join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[combine]
    np.testing.assert_array_equal(found["p"], join(a < b, c ^ bool(negated)))
    np.testing.assert_array_equal(found["q"], join(a >= b, c ^ bool(negated)))
    np.testing.assert_array_equal(found["s"], a >= b)
    np.testing.assert_array_equal(found["t"], a < b)


@pytest.mark.parametrize("ptx", [*INTEGERS, "f32", "f64", "f16", "bf16"])
def test_choices(ptx: str) -> None:
    dtype = INTEGERS.get(ptx) or np.dtype({"f32": "f4", "f64": "f8"}.get(ptx, "u2"))
    a, b = np.arange(32).astype(dtype), np.arange(100, 132).astype(dtype)
    p, c = np.arange(32) % 3 == 1, np.arange(-16, 16, dtype=np.int32)
    np.testing.assert_array_equal(apply(f"selp.{ptx}", dtype, a, b, p), np.where(p, a, b))
    np.testing.assert_array_equal(apply(f"slct.{ptx}.s32", dtype, a, b, c), np.where(c >= 0, a, b))
    np.testing.assert_array_equal(apply(f"mov.{ptx}", dtype, a), a)


def test_choices_by_a_float() -> None:
    """-0 chooses the first, NaN the second; .ftz makes a small negative number -0."""
    a, b, c = np.int32(1), np.int32(2), np.array([0.0, -0.0, -1e-40, -1, 3, np.nan], np.float32)
    np.testing.assert_array_equal(apply("slct.b32.f32", np.int32, a, b, c), [1, 1, 2, 2, 1, 2])
    np.testing.assert_array_equal(apply("slct.ftz.b32.f32", np.int32, a, b, c), [1, 1, 1, 2, 1, 2])


def test_numbers_in_the_text() -> None:
    body = """mov.b32 %a, 0f3FC00000; mov.f32 %b, 0fBF800000; mov.b64 %c, 0d3FF8000000000000; mov.u32 %d, 0xfFU;
    mov.s32 %e, -5; mov.b16 %f, -1; mov.pred %g, -1; mov.pred %h, 0; mov.u32 %i, 0xffffffffffffffff;
    add.f32 %b, %b, 0f40000000; mov.b32 %j, global_smem; mov.u32 %k, %laneid; selp.f32 %l, 0f40400000, %b, %g;"""
    types = {"a": "f4", "b": "f4", "c": "f8", "d": "u4", "e": "i4", "f": "u2", "g": bool, "h": bool, "i": "u4",
             "j": "u4", "k": "u4", "l": "f4"}  # fmt: skip
    found = run(body, {}, types)
    wanted = [1.5, 1.0, 1.5, 255, -5, 65535, True, False, 2**32 - 1, 1024, 3, 3.0]
    assert [found[name][3].item() for name in types] == wanted


def test_parts_of_registers() -> None:
    whole = np.arange(32, dtype=np.uint64) * np.uint64(0x0123456789ABCDEF)
    body = """mov.b64 {%a, %b}, %w; mov.b32 {%c, %d}, %a; mov.b64 {%h0, %h1, %h2, %h3}, %w; mov.b64 %x, {%b, %a};
    mov.b64 %y, {%h3, %h2, %h1, %h0}; mov.b32 %z, {%d, 7};"""
    types = {"a": "u4", "b": "u4", "c": "u2", "d": "u2", "x": "u8", "y": "u8", "z": "u4"}
    found = run(body, {"w": whole}, types)
    words, halves = whole.view(np.uint32).reshape(-1, 2), whole.view(np.uint16).reshape(-1, 4)
    np.testing.assert_array_equal(found["a"], words[:, 0])
    np.testing.assert_array_equal(found["b"], words[:, 1])
    np.testing.assert_array_equal(found["c"], halves[:, 0])
    np.testing.assert_array_equal(found["d"], halves[:, 1])
    np.testing.assert_array_equal(found["x"].view(np.uint32).reshape(-1, 2), words[:, ::-1])
    np.testing.assert_array_equal(found["y"].view(np.uint16).reshape(-1, 4), halves[:, ::-1])
    np.testing.assert_array_equal(
        found["z"].view(np.uint16).reshape(-1, 2), np.stack([halves[:, 1], 0 * halves[:, 1] + 7], 1)
    )


def test_guards() -> None:
    """The others keep what they had; who never wrote a register has garbage in it."""
    a, p = np.arange(32, dtype=np.int32), np.arange(32) % 2 == 0
    found = run(
        "mov.b32 %d, %a; @%p add.s32 %d, %d, 100; @!%p mov.b32 %e, %a;", {"a": a, "p": p}, {"d": "i4", "e": "u4"}
    )
    np.testing.assert_array_equal(found["d"], np.where(p, a + 100, a))
    np.testing.assert_array_equal(found["e"], np.where(p, np.uint32(0xEEEEEEEE), a.view(np.uint32)))


@pytest.mark.parametrize(("ptx", "register"), [("u8", "i2"), ("s8", "i2"), ("u8", "u4"), ("s8", "i4"), ("b8", "u4"),
                                               ("u16", "u4"), ("s16", "i4"), ("s16", "i8"), ("u32", "u8"),
                                               ("s32", "i8"), ("b64", "u8"), ("f32", "f4"), ("f64", "f8")])  # fmt: skip
def test_loads_and_stores_of_parts(ptx: str, register: str) -> None:
    """A load widens with zeros, or with the sign of its type; a store takes the low bits."""
    kind, size = {"s": "i", "b": "u"}.get(ptx[0], ptx[0]), int(ptx[1:]) // 8
    memory = np.arange(-16, 16).astype(f"{kind}{size}")
    copy = np.zeros_like(memory)
    body = f"""mov.u32 %r0, %tid.x; mad.wide.u32 %d0, %r0, {size}, %m; mad.wide.u32 %d1, %r0, {size}, %c;
    ld.global.L1::evict_last.{ptx} %v, [%d0]; st.global.{ptx} [%d1], %v;"""
    found = run(body, {}, {"v": register}, memory={"m": memory, "c": copy})["v"]
    np.testing.assert_array_equal(found, memory.astype(register))
    np.testing.assert_array_equal(copy, memory)


@pytest.mark.parametrize(("vector", "ptx"), [("v2", "b16"), ("v2", "f32"), ("v4", "b32"), ("v2", "u64"), ("v4", "b8")])
def test_vectors(vector: str, ptx: str) -> None:
    """In global and in shared memory, with an offset, a hint for the cache and an operand for it."""
    count, size = int(vector[1:]), int(ptx[1:]) // 8
    memory = np.arange(count * 33, dtype=f"u{size}")
    copy = np.zeros_like(memory)
    register = {1: "%h{}", 2: "%h{}", 4: "%r1{}", 8: "%d1{}"}[size]
    names = "{" + ", ".join(register.format(i) for i in range(count)) + "}"
    step = count * size
    body = f"""mov.u32 %r0, %tid.x; mad.wide.u32 %d0, %r0, {step}, %m; mad.wide.u32 %d1, %r0, {step}, %c;
    mul.lo.u32 %r1, %r0, {step}; add.u32 %r1, %r1, global_smem;
    ld.global.L2::cache_hint.{vector}.{ptx} {names}, [%d0+{step}], %d0; st.shared.{vector}.{ptx} [%r1], {names};
    ld.shared::cta.{vector}.{ptx} {names}, [%r1 + 0]; st.global.wb.{vector}.{ptx} [%d1], {names};"""
    run(body, {}, {}, memory={"m": memory, "c": copy}, shared=32 * step)
    np.testing.assert_array_equal(copy[:-count], memory[count:])


def test_addresses() -> None:
    memory = np.arange(4, dtype=np.uint32)
    found = run("cvta.to.global.u64 %d0, %m; cvta.global.u64 %d0, %d0; ld.global.b32 %v, [%d0+8];", {}, {"v": "u4"},
                memory={"m": memory})  # fmt: skip
    assert (found["v"] == 2).all()


@pytest.mark.parametrize("op", ["nanosleep.u32 5;", "membar.cta;", "membar.gl;", "membar.sys;", '.pragma "nounroll";'])
def test_nothing_to_do(op: str) -> None:
    """Time is not modelled, and what a fence orders between blocks is not judged by it."""
    a = np.arange(32, dtype=np.int32)
    np.testing.assert_array_equal(run(f"mov.b32 %d, %a; {op} add.s32 %d, %d, 1;", {"a": a}, {"d": "i4"})["d"], a + 1)
