"""fp32 on the executor: sums, products and fma round once, .ftz, .sat and .rz, extremes, functions."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.softgpu import floats
from tests.softgpu.harness import apply
from tests.support.exact import FORMATS, fma, same

F32 = FORMATS["f32"]
TINY, LARGE = 2.0**-126, float(np.finfo(np.float32).max)
# Zeros, subnormals, the ends, infinities, NaN, neighbours of 1, and numbers whose sums and products are ties.
EDGES = np.array([0.0, -0.0, 2.0**-149, -(2.0**-149), TINY, -TINY, 3e-39, 1.0, -1.0, 1 + 2.0**-23, 1 - 2.0**-24,
                  2.0**-24, -0.3, 3.0, -1e20, LARGE, -LARGE, np.inf, -np.inf, np.nan], np.float32)  # fmt: skip
A, B = np.repeat(EDGES, len(EDGES)), np.tile(EDGES, len(EDGES))
NAN = 0x7FFFFFFF


def flushed(x: np.ndarray) -> np.ndarray:
    """Subnormal numbers as zeros of their sign, by their bits."""
    bits = x.view(np.uint32)
    return np.where(bits >> 23 & 255 == 0, bits & 0x80000000, bits).astype(np.uint32).view(np.float32)


def by_fractions(a: np.ndarray, b: np.ndarray, c: np.ndarray, mode: str = "rn") -> np.ndarray:
    triples = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    return np.array([fma(x, y, z, F32, mode) for x, y, z in triples], np.float32)


ONE, MINUS = np.ones_like(A), np.full_like(A, -0.0)
SUMS = {"add": (ONE, A, B), "sub": (-ONE, B, A), "mul": (A, B, MINUS)}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("rounding", ["", ".rn", ".rz"])
def test_sums_and_products(name: str, rounding: str) -> None:
    expected = by_fractions(*SUMS[name], rounding[1:] or "rn")
    same(apply(f"{name}{rounding}.f32", np.float32, A, B), expected)


@pytest.mark.parametrize("name", SUMS)
def test_sums_and_products_flush(name: str) -> None:
    a, b = flushed(A), flushed(B)
    expected = {"add": (ONE, a, b), "sub": (-ONE, b, a), "mul": (a, b, MINUS)}[name]
    same(apply(f"{name}.rn.ftz.f32", np.float32, A, B), flushed(by_fractions(*expected)))


@pytest.mark.parametrize("op", ["add.sat", "mul.rn.sat", "sub.ftz.sat", "fma.rn.sat"])
def test_saturation(op: str) -> None:
    operands = (A, B, B) if op.startswith("fma") else (A, B)
    found = apply(f"{op}.f32", np.float32, *operands)
    plain = apply(f"{op.replace('.sat', '')}.f32", np.float32, *operands)
    same(found, np.where(np.isnan(plain), np.float32(0), np.clip(plain, 0, 1)) + np.float32(0))


# Products that lie close to half way between two neighbours of the sum: rounding twice gets them wrong.
few_bits = st.builds(lambda i, j, s, e: (2**i + s * 2**j) * 2.0**e, st.integers(0, 11), st.integers(0, 11),
                     st.sampled_from([-1, 0, 1]), st.integers(-80, 20))  # fmt: skip
any_float = st.integers(0, 2**32 - 1).map(lambda bits: float(np.array(bits, np.uint32).view(np.float32)))
odd = st.builds(lambda m, e, s: s * (2**23 + m) * 2.0**e, st.integers(0, 2**23 - 1), st.integers(-149, 0),
                st.sampled_from([-1, 1]))  # fmt: skip
factor, addend = st.one_of(few_bits, odd, any_float), st.one_of(odd, few_bits, any_float)


JUST_BELOW = (2.0**-24 * (1 + 2.0**-23), 1 - 2.0**-23, 1 + 2.0**-23)


@settings(max_examples=40, deadline=None, database=None)
@given(st.lists(st.tuples(factor, factor, addend), min_size=8, max_size=32))
@example([JUST_BELOW])
@example([(2.0**-75, 2.0**-75 * (1 + 2.0**-20), 2.0**-127)])  # a subnormal result
def test_fma_rounds_once(triples: list[tuple[float, float, float]]) -> None:
    a, b, c = np.array(triples, np.float32).T.copy()
    with np.errstate(all="ignore"):
        same(floats.fma(a, b, c), by_fractions(a, b, c))
        same(floats.fma_rz(a, b, c), by_fractions(a, b, c, "rz"))


def test_fma_where_rounding_twice_goes_wrong() -> None:
    """A product just below half of the last place of an odd sum; fp64 makes it half, which then goes up to even."""
    a, b, c = (np.float32([x]) for x in JUST_BELOW)
    assert (a.astype(np.float64) * b + c).astype(np.float32) > c
    assert apply("fma.rn.f32", np.float32, a, b, c) == c


@pytest.mark.parametrize("rounding", ["rn", "rz"])
def test_fma_of_edges(rounding: str) -> None:
    c = np.roll(B, 7)
    same(apply(f"fma.{rounding}.f32", np.float32, A, B, c), by_fractions(A, B, c, rounding))
    found = apply(f"fma.{rounding}.ftz.f32", np.float32, A, B, c)
    same(found, flushed(by_fractions(flushed(A), flushed(B), flushed(c), rounding)))


@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma.rn", "add.rn.ftz", "mul.rz", "fma.rn.ftz"])
def test_pairs(op: str) -> None:
    """.f32x2: two numbers in a register of 64 bits, each as in fp32."""
    count = 3 if op.startswith("fma") else 2
    operands = [np.roll(A, 5), B, np.roll(A, 11)][:count]
    operands = [np.resize(o, 2 * (len(A) // 2)) for o in operands]
    found = apply(f"{op}.f32x2", np.uint64, *(o.view(np.uint64) for o in operands), arch=100).view(np.float32)
    same(found, apply(f"{op}.f32", np.float32, *operands))


def test_fp64() -> None:
    a, b = A.astype(np.float64) * 1.1, B.astype(np.float64)
    with np.errstate(all="ignore"):
        for op, expected in {"add.f64": a + b, "sub.rn.f64": a - b, "mul.rn.f64": a * b, "div.rn.f64": a / b}.items():
            same(apply(op, np.float64, a, b), expected)
        same(apply("sqrt.rn.f64", np.float64, a), np.sqrt(a))
        same(apply("rcp.rn.f64", np.float64, a), 1 / a)


def test_division() -> None:
    with np.errstate(all="ignore"):
        expected, small = A / B, flushed(flushed(A) / flushed(B))
    for op in ("div.rn.f32", "div.full.f32"):
        same(apply(op, np.float32, A, B), expected)
    for op in ("div.rn.ftz.f32", "div.full.ftz.f32"):
        same(apply(op, np.float32, A, B), small)


def test_signs() -> None:
    bits = EDGES.view(np.uint32)
    same(apply("neg.f32", np.float32, EDGES), (bits ^ 0x80000000).view(np.float32))
    same(apply("abs.f32", np.float32, EDGES), (bits & 0x7FFFFFFF).view(np.float32))
    same(apply("abs.ftz.f32", np.float32, EDGES), flushed((bits & 0x7FFFFFFF).view(np.float32)))
    same(apply("neg.ftz.f32", np.float32, EDGES), flushed((bits ^ 0x80000000).view(np.float32)))
    same(apply("neg.f64", np.float64, EDGES.astype(np.float64)), -EDGES.astype(np.float64))
    same(apply("copysign.f32", np.float32, A, B), np.copysign(B, A))


# Extremes


def extreme(name: str, nan: bool, *values: float) -> float:
    """The manual's definition for any number of operands: +0 is above -0; of NaN the others, or NaN."""
    numbers = [v for v in values if v == v]
    if not numbers or (nan and len(numbers) < len(values)):
        return math.nan
    return {"max": max, "min": min}[name](numbers, key=lambda v: (v, math.copysign(1, v)))


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("modifiers", ["", ".NaN", ".ftz", ".ftz.NaN"])
def test_extremes(name: str, modifiers: str) -> None:
    a, b = (flushed(A), flushed(B)) if "ftz" in modifiers else (A, B)
    nan = "NaN" in modifiers
    expected = [extreme(name, nan, x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    found = apply(f"{name}{modifiers}.f32", np.float32, A, B)
    same(found, expected)
    assert not nan or set(found[np.isnan(expected)].view(np.uint32)) == {NAN}
    c = np.roll(a, 13)
    expected = [extreme(name, nan, *v) for v in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)]
    same(apply(f"{name}{modifiers}.f32", np.float32, A, B, np.roll(A, 13), arch=100), expected)


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_with_the_product_of_signs(name: str) -> None:
    expected = [math.copysign(extreme(name, False, abs(x), abs(y)), math.copysign(1, x) * math.copysign(1, y))
                for x, y in zip(A.tolist(), B.tolist(), strict=True)]  # fmt: skip
    same(apply(f"{name}.xorsign.abs.f32", np.float32, A, B), expected)
    same(apply(f"{name}.f64", np.float64, A.astype(np.float64), B.astype(np.float64)),
         [extreme(name, False, x, y) for x, y in zip(A.tolist(), B.tolist(), strict=True)])  # fmt: skip


# Functions

POSITIVE = np.array([0.0, -0.0, 2.0**-149, 3e-39, TINY, 0.3, 0.5, 1, 1.7, 2, 3, 1e30, LARGE, np.inf, -1, np.nan],
                    np.float32)  # fmt: skip
ANGLES = np.array([0.0, -0.0, 1e-40, 0.1, -0.5, 1, 3.1415927, -6, 100, np.inf, -np.inf, np.nan], np.float32)
POWERS = np.array([-np.inf, -200, -149.5, -149, -130.3, -126, -0.5, -0.0, 0, 1e-40, 0.5, 1, 127.9, 128, np.inf,
                   np.nan], np.float32)  # fmt: skip
FUNCTIONS = {
    "ex2.approx": (math.exp2, POWERS),
    "lg2.approx": (math.log2, POSITIVE),
    "sin.approx": (math.sin, ANGLES),
    "cos.approx": (math.cos, ANGLES),
    "tanh.approx": (math.tanh, ANGLES),
    "sqrt.approx": (math.sqrt, POSITIVE),
    "sqrt.rn": (math.sqrt, POSITIVE),
    "rsqrt.approx": (lambda x: 1 / math.sqrt(x), POSITIVE),
    "rcp.approx": (lambda x: 1 / x, ANGLES),
    "rcp.rn": (lambda x: 1 / x, POSITIVE),
}
# Where Python raises: f(x) by the manual's tables.
POLES = {"lg2": -np.inf, "rsqrt": np.inf, "rcp": np.inf}


def defined(name: str, x: float) -> float:
    try:
        return FUNCTIONS[name][0](x)
    except (ValueError, ZeroDivisionError):
        if x == 0:
            pole = POLES[name.split(".")[0]]
            return pole if name.startswith("lg2") else math.copysign(pole, x)
        return math.nan
    except OverflowError:
        return math.inf


@pytest.mark.parametrize(
    ("name", "flush"), [(n, f) for n in FUNCTIONS for f in (False, True) if n[:4] != "tanh" or not f]
)
def test_functions(name: str, flush: bool) -> None:
    """As exact as fp32 allows: within one unit in the last place of the value in fp64."""
    x = FUNCTIONS[name][1]
    found = apply(f"{name}{'.ftz' * flush}.f32", np.float32, x)
    with np.errstate(all="ignore"):
        exact = np.array([defined(name, v) for v in (flushed(x) if flush else x).tolist()]).astype(np.float32)
    exact = flushed(exact) if flush else exact
    special = ~np.isfinite(exact) | (exact == 0)
    same(found[special], exact[special])
    near = ~special
    assert (np.abs(found[near].view(np.int32) - exact[near].view(np.int32)) <= 1).all()


def test_classes_of_numbers() -> None:
    tests = {
        "finite": np.isfinite, "infinite": np.isinf, "number": lambda x: x == x, "notanumber": np.isnan,
        "normal": lambda x: np.isfinite(x) & (np.abs(x) >= np.float32(TINY)),
        "subnormal": lambda x: (x != 0) & (np.abs(x) < np.float32(TINY)),
    }  # fmt: skip
    for name, expected in tests.items():
        np.testing.assert_array_equal(apply(f"testp.{name}.f32", bool, EDGES), expected(EDGES), name)
