"""Loads, stores and atomics of threads, and what is refused: alignment, bounds, different values at one place."""

from typing import Any

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.state import Fault

u1, u2, u4, u8 = np.uint8, np.uint16, np.uint32, np.uint64
LANE = np.arange(32, dtype=u4)
RNG = np.random.default_rng(0)
SHAPES = [("b32", 1), ("b32", 2), ("b32", 4), ("b64", 1), ("b64", 2)]


def vector(kind: str, count: int, names: str) -> tuple[str, str]:
    """The instruction's type and its registers: v2.b32 and {%a0, %a1}."""
    registers = ", ".join(f"%{names}{i}" for i in range(count))
    return (f"v{count}.{kind}", f"{{{registers}}}") if count > 1 else (kind, registers)


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("kind", "count"), SHAPES)
def test_load_and_store(space: str, kind: str, count: int) -> None:
    """Each thread writes its elements and reads them back; memory holds them side by side."""
    dtype = {"b32": u4, "b64": u8}[kind]
    size = count * np.dtype(dtype).itemsize
    values = {f"a{i}": RNG.integers(0, 2**32, 32).astype(dtype) for i in range(count)}
    there = np.zeros((32, count), dtype)
    of, (into, source), (_, target) = space, vector(kind, count, "a"), vector(kind, count, "b")
    place = f"mul.wide.u32 %d0, %lane, {size}; add.u64 %d0, %d0, %m;"
    if space == "shared":
        place = f"mul.lo.u32 %r0, %lane, {size}; mov.b32 %r1, global_smem; add.u32 %r0, %r0, %r1;"
    at = "[%d0]" if space == "global" else "[%r0]"
    body = f"{place} st.{of}.{into} {at}, {source}; ld.{of}.{into} {target}, {at};"
    got = run(
        body, values | {"lane": LANE}, {f"b{i}": dtype for i in range(count)}, memory={"m": there}, shared=32 * size
    )
    for i in range(count):
        assert (got[f"b{i}"] == values[f"a{i}"]).all()
        assert space == "shared" or (there[:, i] == values[f"a{i}"]).all()


@pytest.mark.parametrize("space", ["global", "shared"])
def test_small_elements(space: str) -> None:
    """Neighbours in one word stay what they were."""
    there = np.zeros(32, u2)
    place = "mul.wide.u32 %d0, %lane, 2; add.u64 %d0, %d0, %m;"
    if space == "shared":
        place = "mul.lo.u32 %r0, %lane, 2; mov.b32 %r1, global_smem; add.u32 %r0, %r0, %r1;"
    at = "[%d0]" if space == "global" else "[%r0]"
    got = run(f"{place} st.{space}.b16 {at}, %a; bar.sync 0; ld.{space}.b16 %b, {at};",
              {"a": (LANE * 3).astype(u2), "lane": LANE}, {"b": u2}, memory={"m": there}, shared=64)  # fmt: skip
    assert (got["b"] == LANE * 3).all()
    assert space == "shared" or (there == LANE * 3).all()


def test_some_threads_only() -> None:
    there = np.full(32, 9, u4)
    body = """
    setp.lt.u32 %p0, %lane, 10; mul.wide.u32 %d0, %lane, 4; add.u64 %d0, %d0, %m; mov.b32 %b, 5;
    @%p0 st.global.b32 [%d0], %lane; @!%p0 ld.global.b32 %b, [%d0];
    """
    got = run(body, {"lane": LANE}, {"b": u4}, memory={"m": there})
    assert there.tolist() == [*range(10), *[9] * 22]
    assert got["b"].tolist() == [*[5] * 10, *[9] * 22]


def address(offset: str, space: str) -> str:
    if space == "global":
        return f"cvt.u64.u32 %d0, {offset}; add.u64 %d0, %d0, %m;"
    return f"mov.b32 %r0, global_smem; add.u32 %r0, %r0, {offset};"


@pytest.mark.parametrize(("space", "offset", "access", "wrong"), [
    ("global", 124, "ld.global.b32 %b, [%d0];", None),
    ("global", 124, "st.global.b32 [%d0], 7;", None),
    ("global", 112, "ld.global.v4.b32 {%b, %r1, %r2, %r3}, [%d0];", None),
    ("global", 128, "ld.global.b32 %b, [%d0];", "out of bounds, the first 128 bytes into m of 128 bytes"),
    ("global", 128, "st.global.b32 [%d0], 7;", "out of bounds"),
    ("global", 2**30, "ld.global.b32 %b, [%d0];", "out of bounds"),
    ("global", 126, "ld.global.b32 %b, [%d0];", "not a multiple of 4"),
    ("global", 120, "ld.global.v4.b32 {%b, %r1, %r2, %r3}, [%d0];", "not a multiple of 16"),
    ("global", 128, "atom.global.gpu.relaxed.add.u32 %b, [%d0], 1;", "out of bounds"),
    ("shared", 124, "ld.shared.b32 %b, [%r0];", None),
    ("shared", 128, "ld.shared.b32 %b, [%r0];", r"out of bounds: offsets 128 \.\. 128 \+ 4"),
    ("shared", 128, "st.shared.b32 [%r0], 7;", "out of bounds"),
    ("shared", 2**32 - 4, "ld.shared.b32 %b, [%r0];", "out of bounds: offsets -4"),
    ("shared", 2, "ld.shared.b32 %b, [%r0];", "not a multiple of 4"),
    ("shared", 8, "ld.shared.v4.b32 {%b, %r1, %r2, %r3}, [%r0];", "not a multiple of 16"),
])  # fmt: skip
def test_alignment_and_bounds(space: str, offset: int, access: str, wrong: str | None) -> None:
    """One thread of the warp, so that stores do not meet."""
    body = f"mov.b32 %b, 0; setp.eq.u32 %p0, %lane, 3; {address('%a', space)} @%p0 {access}"
    where = {"a": u4(offset), "lane": LANE}
    if wrong is None:
        run(body, where, {"b": u4}, memory={"m": np.zeros(32, u4)}, shared=128)
    else:
        with pytest.raises(Fault, match=wrong):
            run(body, where, {"b": u4}, memory={"m": np.zeros(32, u4)}, shared=128)


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("values", "differing", "wrong"), [
    (LANE // 32, "fault", None),
    (LANE % 2, "fault", "threads of warps \\[0\\] write different values to one place"),
    (LANE % 2, "warn", None),
])  # fmt: skip
def test_different_values_at_one_place(space: str, values: Any, differing: str, wrong: str | None) -> None:
    """Two lanes of one warp store to each place at once. Told to, it only warns."""
    at = "[%d0]" if space == "global" else "[%r0]"
    body = f"shl.b32 %r5, %lane, 1; and.b32 %r5, %r5, 0x3c; {address('%r5', space)} st.{space}.b32 {at}, %a;"
    stats: dict[str, Any] = {}
    options: dict[str, Any] = {"memory": {"m": np.zeros(32, u4)}, "shared": 128, "differing": differing, "stats": stats}
    if wrong is None:
        run(body, {"a": values.astype(u4), "lane": LANE}, {}, **options)
        assert bool(stats["warnings"]) == (differing == "warn")
    else:
        with pytest.raises(Fault, match=wrong):
            run(body, {"a": values.astype(u4), "lane": LANE}, {}, **options)


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("team_warps", [1, 2])
def test_warps_that_store_to_one_place(space: str, team_warps: int) -> None:
    """The same value is right (Triton does it); different ones are a fault, in one instruction or not."""
    at = "[%d0]" if space == "global" else "[%r0]"
    body = f"shl.b32 %r5, %lane, 2; and.b32 %r5, %r5, 0x7c; {address('%r5', space)} st.{space}.b32 {at}, %a;"
    lane = np.arange(64, dtype=u4)
    options: dict[str, Any] = {"memory": {"m": np.zeros(32, u4)}, "shared": 128, "threads": 64}
    run(body, {"a": lane % 32, "lane": lane}, {}, **options, team_warps=team_warps)
    with pytest.raises(Fault, match=r"write different values|race: write by"):
        run(body, {"a": lane + 1, "lane": lane}, {}, **options, team_warps=team_warps)


ATOMICS = {
    "add.u32": lambda old, new: (old + new) % 2**32, "exch.b32": lambda old, new: new, "min.u32": min, "max.u32": max,
    "and.b32": lambda old, new: old & new, "or.b32": lambda old, new: old | new, "xor.b32": lambda old, new: old ^ new,
}  # fmt: skip


@pytest.mark.parametrize("action", ATOMICS)
def test_atomics(action: str) -> None:
    """32 lanes at four places: each gets what was there, and all take effect."""
    there, value = RNG.integers(0, 2**32, 4, dtype=u4), RNG.integers(0, 2**32, 32, dtype=u4)
    before, expected = there.tolist(), there.tolist()
    body = "and.b32 %r5, %lane, 3; mul.wide.u32 %d0, %r5, 4; add.u64 %d0, %d0, %m;"
    body += f"atom.global.gpu.relaxed.{action} %b, [%d0], %a;"
    got = run(body, {"a": value, "lane": LANE}, {"b": u4}, memory={"m": there})["b"]
    for lane, new in enumerate(value.tolist()):  # here in the order of the lanes; a device promises no order
        assert got[lane] == expected[lane % 4]
        expected[lane % 4] = ATOMICS[action](expected[lane % 4], new)
    assert there.tolist() == expected != before


def test_atomic_of_64_bits() -> None:
    there = np.array([2**40], u8)
    got = run(
        "atom.global.gpu.acq_rel.add.u64 %b, [%m], %a;", {"a": np.arange(32, dtype=u8)}, {"b": u8}, memory={"m": there}
    )
    assert there[0] == 2**40 + sum(range(32))
    assert got["b"][0] == 2**40
