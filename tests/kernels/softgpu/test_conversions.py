"""cvt on the executor: half precision, integers, rounding, saturation, NaN."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.softgpu import floats, halves
from tests.softgpu.harness import apply, run
from tests.support.exact import FORMATS, rounded, same

INTEGERS = {f"{ptx}{8 * size}": np.dtype(f"{kind}{size}") for size in (1, 2, 4, 8) for ptx, kind in ("uu", "si")}
TORCH = {"f16": torch.float16, "bf16": torch.bfloat16}
LARGE = float(np.finfo(np.float32).max)
# Ties, overflow and subnormal numbers of both half precisions, integers at the ends of every type.
REALS = np.array([
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 +
    2.0**-8, 1 + 3 * 2.0**-8, 65504, 65519, 65520, -65520, 6e-8, 2.9802322e-08, 3e-8, 1e-5, 9.2e-41,
    4.6e-41, 1e-45, 127, 127.5, 128, -128.5, -129, 255.5, 256, 32767.5, 32768, 65535.5, 65536,
    2147483520, 2147483648, -2147483648, -2147483904, 4294967040, 4294967296, 9.223371e18, 9.223372e18,
    -9.223372e18, -9.3e18, 1.8446742e19, 1.8446744e19, 3e38, LARGE, -LARGE, np.inf, -np.inf, np.nan
], np.float32)  # fmt: skip


def to_torch(x: np.ndarray, kind: str) -> np.ndarray:
    """Bits of half precision by PyTorch."""
    return torch.from_numpy(x).to(TORCH[kind]).view(torch.int16).numpy().view(np.uint16)


def widened(bits: np.ndarray, kind: str) -> np.ndarray:
    return torch.from_numpy(bits.view(np.int16)).view(TORCH[kind]).float().numpy()


def same_halves(found: np.ndarray, expected: np.ndarray, kind: str) -> None:
    nan = np.isnan(widened(expected, kind))
    np.testing.assert_array_equal(found[nan], 0x7FFF)  # the NaN that a device makes
    np.testing.assert_array_equal(found[~nan], expected[~nan])


@pytest.mark.parametrize("kind", TORCH)
def test_to_half(kind: str) -> None:
    same_halves(apply(f"cvt.rn.{kind}.f32", np.uint16, REALS), to_torch(REALS, kind), kind)
    form = FORMATS[kind]
    finite = REALS[np.isfinite(REALS)]
    down = np.array([rounded(Fraction(x), form, "rz") for x in finite.tolist()], np.float32)
    down = np.copysign(down, finite)
    same(widened(apply(f"cvt.rz.{kind}.f32", np.uint16, finite), kind), down)
    same_halves(apply(f"cvt.rz.{kind}.f32", np.uint16, REALS[-3:]), to_torch(REALS[-3:], kind), kind)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("rounding", ["rn", "rz"])
def test_to_two_halves(kind: str, rounding: str) -> None:
    """The first operand is the high half."""
    high, low = REALS, np.roll(REALS, 7)
    found = apply(f"cvt.{rounding}.{kind}x2.f32", np.uint32, high, low)
    single = f"cvt.{rounding}.{kind}.f32"
    np.testing.assert_array_equal(found >> 16, apply(single, np.uint16, high))
    np.testing.assert_array_equal(found & 0xFFFF, apply(single, np.uint16, low))


@pytest.mark.parametrize("kind", TORCH)
def test_from_half(kind: str) -> None:
    """One in 17 of the 65536, so every exponent with either sign."""
    bits = np.arange(0, 65536, 17, dtype=np.uint16)
    found = np.concatenate([apply(f"cvt.f32.{kind}", np.float32, part) for part in np.array_split(bits, 4)])
    same(found, widened(bits, kind))


def by_definition(x: float, kind: str, ptx: str, source: str) -> int:
    """The manual: rounded to a whole number, then the nearest that there is; NaN by its table."""
    limits = np.iinfo(INTEGERS[ptx])
    if math.isnan(x):
        return 0 if source != "f64" and limits.bits < 64 else int(limits.min or 1 << limits.bits - 1)
    if math.isinf(x):
        return int(limits.max if x > 0 else limits.min)
    whole = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}[kind](x)
    return int(min(max(whole, limits.min), limits.max))


@pytest.mark.parametrize("ptx", INTEGERS)
@pytest.mark.parametrize("source", ["f32", "f64", "f16"])
def test_to_integers(ptx: str, source: str) -> None:
    register = INTEGERS[ptx] if INTEGERS[ptx].itemsize > 1 else np.dtype(f"{INTEGERS[ptx].kind}2")
    x = REALS.astype({"f32": np.float32, "f64": np.float64, "f16": np.float32}[source])
    if source == "f16":
        bits = to_torch(REALS, "f16")
        x = widened(bits, "f16")
    for rounding in ("rni", "rzi", "rmi", "rpi"):
        found = apply(f"cvt.{rounding}.{ptx}.{source}", register, bits if source == "f16" else x)
        expected = [by_definition(v, rounding, ptx, source) for v in x.tolist()]
        np.testing.assert_array_equal(found, np.array(expected, register), rounding)


def test_to_integers_with_modifiers() -> None:
    """.ftz makes the smallest numbers 0 before they are rounded up; .sat says what is so anyway."""
    tiny = np.array([1e-40, -1e-40, 1.5], np.float32)
    np.testing.assert_array_equal(apply("cvt.rpi.s32.f32", np.int32, tiny), [1, 0, 2])
    np.testing.assert_array_equal(apply("cvt.rpi.ftz.s32.f32", np.int32, tiny), [0, 0, 2])
    np.testing.assert_array_equal(
        apply("cvt.rzi.sat.u8.f32", np.uint16, REALS), apply("cvt.rzi.u8.f32", np.uint16, REALS)
    )


WHOLE = [0, 1, 5, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24 + 1, 2**24 + 3, 2**31 - 1, 2**31, 2**32 - 1,
         2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**40 + 2**16 + 1, 2**40 + 3 * 2**16]  # fmt: skip


def wholes(dtype: np.dtype) -> np.ndarray:
    return np.array([v % (1 << 8 * dtype.itemsize) for v in WHOLE], f"u{dtype.itemsize}").view(dtype)


@pytest.mark.parametrize("ptx", INTEGERS)
def test_from_integers(ptx: str) -> None:
    values = wholes(INTEGERS[ptx])
    held = values.astype(f"{values.dtype.kind}2") if values.itemsize == 1 else values
    for target in ("f32", "f16", "bf16") if values.itemsize < 8 else ("f32",):
        expected = [rounded(Fraction(v), FORMATS[target]) for v in values.tolist()]
        found = apply(f"cvt.rn.{target}.{ptx}", np.float32 if target == "f32" else np.uint16, held)
        same(found if target == "f32" else widened(found, target), np.array(expected, np.float32))
    same(apply(f"cvt.rn.f64.{ptx}", np.float64, held), values.astype(np.float64))


@pytest.mark.parametrize("source", INTEGERS)
@pytest.mark.parametrize("to", INTEGERS)
def test_between_integers(source: str, to: str) -> None:
    """Cut or widened with the sign of the source; .sat takes the nearest. Registers may be wider than the types."""
    values, target = wholes(INTEGERS[source]), INTEGERS[to]
    held = values.astype(f"{values.dtype.kind}2") if values.itemsize == 1 else values
    register = target if target.itemsize > 1 else np.dtype(f"{target.kind}2")
    np.testing.assert_array_equal(apply(f"cvt.{to}.{source}", register, held), values.astype(target))
    limits = np.iinfo(target)
    nearest = [min(max(v, int(limits.min)), int(limits.max)) for v in values.tolist()]
    np.testing.assert_array_equal(apply(f"cvt.sat.{to}.{source}", register, held), np.array(nearest, target))
    np.testing.assert_array_equal(apply(f"cvt.{to}.{source}", np.int64 if target.kind == "i" else np.uint64, held),
                                  values.astype(target))  # fmt: skip


def test_between_floats() -> None:
    wide = np.concatenate([REALS.astype(np.float64), [1 + 2.0**-24, 1 + 2.0**-24 + 2.0**-50, 1e300, 1e-46, 1e-44]])
    with np.errstate(over="ignore"):
        same(apply("cvt.rn.f32.f64", np.float32, wide), wide.astype(np.float32))
    same(apply("cvt.f64.f32", np.float64, REALS), REALS.astype(np.float64))
    same(apply("cvt.sat.f32.f32", np.float32, REALS[:12]), np.clip(REALS[:12], 0, 1) + np.float32(0))
    tiny = np.array([1e-40, -1e-40, 0.7, -0.7], np.float32)
    same(apply("cvt.ftz.f32.f32", np.float32, tiny), np.array([0, -0.0, 0.7, -0.7], np.float32))
    for rounding, function in {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}.items():
        same(apply(f"cvt.{rounding}.f32.f32", np.float32, REALS), function(REALS))
        same(apply(f"cvt.{rounding}.f64.f64", np.float64, wide), function(wide))
    same(apply("cvt.rmi.ftz.f32.f32", np.float32, tiny), np.array([0, -0.0, 0, -1], np.float32))


# Arithmetic in half precision

HALVES = np.array([0, 0x8000, 1, 0x8001, 0x3C00, 0xBC00, 0x3F80, 0x3C01, 0x7BFF, 0x7C00, 0xFC00, 0x7F80, 0xFF80, 0x7F7F,
                   0x4248, 0xC0A0, 0x0400, 0x7FC1], np.uint16)  # fmt: skip


def fractions(kind: str, name: str, values: list[np.ndarray]) -> np.ndarray:
    rows = zip(*(widened(v, kind).astype(np.float64) for v in values), strict=True)
    results = []
    for a, b, *c in rows:
        x, y, z = {"add": (a, 1.0, b), "sub": (-b, 1.0, a), "mul": (a, b, -0.0)}.get(name) or (a, b, c[0])
        if all(map(math.isfinite, (x, y, z))) and Fraction(x) * Fraction(y) + Fraction(z):
            exact = Fraction(x) * Fraction(y) + Fraction(z)
            results.append(math.copysign(rounded(exact, FORMATS[kind]), exact))
        else:
            results.append(x * y + z)
    return to_torch(np.array(results, np.float32), kind)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma.rn"])
def test_arithmetic_in_half_precision(kind: str, name: str) -> None:
    a, b = np.repeat(HALVES, len(HALVES)), np.tile(HALVES, len(HALVES))
    values = [a, b, np.roll(a, 5)] if name == "fma.rn" else [a, b]
    with np.errstate(all="ignore"):
        expected = fractions(kind, name.split(".")[0], values)
    found = apply(f"{name}.{kind}", np.uint16, *values)
    same_halves(found, expected, kind)
    pairs = [np.ascontiguousarray(v).view(np.uint32) for v in values]
    np.testing.assert_array_equal(apply(f"{name}.{kind}x2", np.uint32, *pairs).view(np.uint16), found)


@settings(max_examples=40, deadline=None, database=None)
@given(st.sampled_from(sorted(TORCH)), st.lists(st.tuples(*[st.integers(0, 65535)] * 3), min_size=8, max_size=32))
def test_fma_in_half_precision(kind: str, triples: list[tuple[int, int, int]]) -> None:
    values = list(np.array(triples, np.uint16).T.copy())
    with np.errstate(all="ignore"):
        same_halves(halves.fma_half(kind, *values), fractions(kind, "fma", values), kind)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_in_half_precision(kind: str, name: str) -> None:
    a, b = np.repeat(HALVES, len(HALVES)), np.tile(HALVES, len(HALVES))
    for nan in ("", ".NaN"):
        wide = apply(f"{name}{nan}.f32", np.float32, widened(a, kind), widened(b, kind))
        found = apply(f"{name}{nan}.{kind}", np.uint16, a, b)
        same_halves(found, to_torch(wide, kind), kind)
        np.testing.assert_array_equal(apply(f"{name}{nan}.{kind}x2", np.uint32, a.view(np.uint32), b.view(np.uint32)),
                                      found.view(np.uint32))  # fmt: skip
    np.testing.assert_array_equal(apply(f"neg.{kind}", np.uint16, HALVES), HALVES ^ 0x8000)
    np.testing.assert_array_equal(
        apply(f"abs.{kind}x2", np.uint32, HALVES.view(np.uint32)).view(np.uint16), HALVES & 0x7FFF
    )


@pytest.mark.parametrize("kind", TORCH)
def test_sums_of_half_and_single_precision(kind: str) -> None:
    """sm_100: factors in half precision, the sum in fp32."""
    a, b = HALVES, np.roll(HALVES, 5)
    c = np.resize(REALS, len(a))
    x, y = widened(a, kind), widened(b, kind)
    with np.errstate(all="ignore"):
        inputs = {"a": np.resize(a, 32), "b": np.resize(b, 32), "c": np.resize(c, 32)}
        body = f"fma.rn.f32.{kind} %d, %a, %b, %c; add.rn.f32.{kind} %e, %a, %c; sub.f32.{kind} %f, %a, %c;"
        found = run(body, inputs, dict.fromkeys("def", np.float32), arch=100)
        x, y, c = (np.resize(v, 32) for v in (x, y, c))
        same(found["d"], floats.fma(x, y, c))
        same(found["e"], x + c)
        same(found["f"], x - c)
