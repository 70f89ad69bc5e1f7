"""Instructions across a warp, against the PTX manual's definitions written lane by lane."""

from typing import Any

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.state import Fault

u4, u8, i4 = np.uint32, np.uint64, np.int32
LANE = np.arange(32, dtype=u4)
RNG = np.random.default_rng(0)
DIVERGED = """
setp.lt.u32 %p0, %tid.x, 16;
@%p0 bra $low;
{high}
bra.uni $end;
$low:
{low}
$end:
"""


def shfl(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """Source lane and predicate: the pseudo-code of the PTX manual."""
    b, clamp, segment = b & 31, c & 31, c >> 8 & 31
    last = lane & segment | clamp & ~segment & 31
    first = lane & segment
    j = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": first | b & ~segment & 31}[mode]
    inside = j >= last if mode == "up" else j <= last
    return (j if inside else lane), inside


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl(mode: str) -> None:
    """Distances, clamps and segments as numbers; the value of the lane and whether it was in range."""
    bs, cs = (0, 1, 2, 7, 16, 31, 33), (0, 31, 7, 0x1C1F, 0x181F, 0x1C03, 0x1F1F)
    value = RNG.integers(0, 2**32, 32, dtype=u4)
    pairs = [(b, c) for b in bs for c in cs]
    for some in (pairs[:25], pairs[25:]):
        body = "".join(f"shfl.sync.{mode}.b32 %v{i}|%q{i}, %a, {b}, {c}, -1;" for i, (b, c) in enumerate(some))
        outputs = {f"v{i}": u4 for i in range(len(some))} | {f"q{i}": bool for i in range(len(some))}
        got = run(body, {"a": value}, outputs)
        for i, (b, c) in enumerate(some):
            source, inside = zip(*(shfl(mode, lane, b, c) for lane in range(32)), strict=True)
            assert (got[f"v{i}"] == value[list(source)]).all(), (b, c)
            assert (got[f"q{i}"] == list(inside)).all(), (b, c)


def test_shfl_with_registers_that_differ_per_lane() -> None:
    b, value = RNG.integers(0, 32, 64, dtype=u4), RNG.integers(0, 2**32, 64, dtype=u4)
    got = run("shfl.sync.idx.b32 %v, %a, %b, %c, -1;", {"a": value, "b": b, "c": np.full(64, 31, u4)}, {"v": u4},
              threads=64)  # fmt: skip
    assert (got["v"] == value[np.arange(64) // 32 * 32 + b]).all()


def test_shfl_of_some_lanes() -> None:
    """Each half has its own mask, at places of their own; registers of the other half do not matter."""
    body = DIVERGED.format(low="shfl.sync.bfly.b32 %v, %a, 1, 31, 0x0000ffff;",
                           high="shfl.sync.bfly.b32 %v, %a, 2, 31, 0xffff0000;")  # fmt: skip
    assert (run(body, {"a": LANE}, {"v": u4})["v"] == np.where(LANE < 16, LANE ^ 1, LANE ^ 2)).all()


def test_shfl_waits_for_the_lanes_of_its_mask() -> None:
    """Lanes that took another way around meet the others at the shfl."""
    body = DIVERGED.format(low="add.u32 %a, %a, 100;", high="") + "shfl.sync.bfly.b32 %v, %a, 16, 31, -1;"
    for seed in range(6):
        got = run(body, {"a": LANE}, {"v": u4}, seed=seed)["v"]
        assert (got == np.where(LANE < 16, LANE + 16, LANE - 16 + 100)).all()


@pytest.mark.parametrize(("body", "message"), [
    (DIVERGED.format(low="shfl.sync.bfly.b32 %v, %a, 16, 31, 0x0000ffff;", high=""), "takes no part"),
    ("shfl.sync.bfly.b32 %v, %a, 1, 31, 0x0000ffff;", "takes no part"),
    ("vote.sync.ballot.b32 %v, %p1, 0x0000ffff;", "not in its own member mask"),
    ("setp.lt.u32 %p0, %tid.x, 16; @%p0 shfl.sync.bfly.b32 %v, %a, 1, 31, -1;", "are in the member mask and elsewhere"),
    (DIVERGED.format(low="shfl.sync.bfly.b32 %v, %a, 1, 31, -1;", high="bar.sync 0;"), r"(?s)deadlock.*lanes \[16,"),
])  # fmt: skip
def test_lanes_that_take_no_part(body: str, message: str) -> None:
    with pytest.raises(Fault, match=message):
        run("setp.eq.u32 %p1, %a, 3;" + body, {"a": LANE}, {"v": u4})


def test_vote() -> None:
    """all, any, uni and ballot, where none, some or all of a warp's lanes say yes."""
    p = np.concatenate([RNG.integers(0, 2, 32).astype(bool), np.ones(32, bool), np.zeros(32, bool)])
    body = "vote.sync.ballot.b32 %v, %p, -1;" + "".join(
        f"vote.sync.{mode}.pred %{mode}_, %p, -1;" for mode in ("all", "any", "uni")
    )
    got = run(body, {"p": p}, {"v": u4, "all_": bool, "any_": bool, "uni_": bool}, threads=96)
    rows = p.reshape(3, 32)
    assert (got["v"].reshape(3, 32)[:, 0] == [sum(1 << i for i in range(32) if row[i]) for row in rows]).all()
    for name, expected in (("all_", rows.all(1)), ("any_", rows.any(1)), ("uni_", rows.all(1) | ~rows.any(1))):
        assert (got[name].reshape(3, 32) == expected[:, None]).all(), name


@pytest.mark.parametrize("low", ["vote.sync.ballot.b32 %v, %p1, 0x0000ffff;", "activemask.b32 %v;"])
def test_votes_of_some_lanes(low: str) -> None:
    body = "setp.ge.u32 %p1, %a, 0;" + DIVERGED.format(low=low, high="")
    assert (run(body, {"a": LANE}, {"v": u4})["v"][:16] == 0xFFFF).all()


def test_activemask_of_all() -> None:
    assert (run("activemask.b32 %v;", {"a": LANE}, {"v": u4})["v"] == 0xFFFFFFFF).all()


@pytest.mark.parametrize(("kind", "dtype"), [("b32", u4), ("b64", u8)])
def test_match(kind: str, dtype: Any) -> None:
    value = (RNG.integers(0, 5, 64) + (2**33 if kind == "b64" else 0)).astype(dtype)
    value[32:] = 9
    body = f"match.any.sync.{kind} %v, %a, -1; match.all.sync.{kind} %w|%q, %a, -1;"
    got = run(body, {"a": value}, {"v": u4, "w": u4, "q": bool}, threads=64)
    for t in range(64):
        first = t // 32 * 32
        assert got["v"][t] == sum(1 << i for i in range(32) if value[first + i] == value[t])
    assert (got["q"] == (np.arange(64) >= 32)).all()
    assert (got["w"] == np.where(got["q"], 0xFFFFFFFF, 0)).all()


REDUX = {"add": sum, "min": min, "max": max, "and": np.bitwise_and.reduce, "or": np.bitwise_or.reduce,
         "xor": np.bitwise_xor.reduce}  # fmt: skip


@pytest.mark.parametrize(("action", "kind"), [
    *((a, k) for a in ("add", "min", "max") for k in ("u32", "s32")), *((a, "b32") for a in ("and", "or", "xor")),
])  # fmt: skip
def test_redux(action: str, kind: str) -> None:
    """Of all lanes, and of the lanes of a mask: what the others hold does not count."""
    value = RNG.integers(0, 2**32, 32, dtype=u4)
    value[20:] = {"min": 0, "max": 2**31 - 1, "and": 0}.get(action, 2**32 - 1)
    dtype = i4 if kind == "s32" else u4
    body = f"redux.sync.{action}.{kind} %v, %a, -1;" + DIVERGED.format(
        low=f"redux.sync.{action}.{kind} %w, %a, 0x0000ffff;", high=f"redux.sync.{action}.{kind} %w, %a, 0xffff0000;"
    )
    got = run(body, {"a": value}, {"v": dtype, "w": dtype})
    numbers = [int(x) for x in value.view(dtype)]
    for name, lanes, chosen in (("v", slice(None), numbers), ("w", slice(16), numbers[:16]),
                                ("w", slice(16, None), numbers[16:])):  # fmt: skip
        expected = int(REDUX[action](np.array(chosen, dtype) if kind == "b32" else chosen))
        assert (got[name][lanes] == np.array(expected & 0xFFFFFFFF, np.uint64).astype(u4).view(dtype)).all()


def test_redux_with_a_mask_per_half() -> None:
    """One instruction, two groups: the mask is a register."""
    masks = np.where(LANE < 16, 0xFFFF, 0xFFFF0000).astype(u4)
    got = run("redux.sync.add.u32 %v, %a, %m;", {"a": LANE, "m": masks}, {"v": u4})["v"]
    assert (got == np.where(LANE < 16, sum(range(16)), sum(range(16, 32)))).all()


def test_elect() -> None:
    """One thread per warp, and all know which."""
    got = run("elect.sync %v|%q, -1;", {"a": np.zeros(64, u4)}, {"v": u4, "q": bool}, threads=64)
    assert got["q"].reshape(2, 32).sum(1).tolist() == [1, 1]
    assert (got["v"].reshape(2, 32) == got["q"].reshape(2, 32).argmax(1)[:, None]).all()


def test_elect_of_some_lanes() -> None:
    body = DIVERGED.format(high="elect.sync %v|%q, 0xffff0000;", low="")
    got = run("setp.ne.u32 %q, %a, %a;" + body, {"a": LANE}, {"v": u4, "q": bool})
    assert np.flatnonzero(got["q"]).tolist() == [got["v"][31]]
    assert got["v"][31] >= 16
