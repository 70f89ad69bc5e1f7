"""Barriers of a block and of a warp, the register pool, and reports of what never ends: each right and wrong once."""

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.state import Fault

u4 = np.uint32
# Each thread stores its value and reads that of thread `%other`.
EXCHANGE = """
.reg .b32 %mine, %theirs; mov.b32 %r0, global_smem;
shl.b32 %mine, %tid.x, 2; add.s32 %mine, %mine, %r0;
shl.b32 %theirs, %other, 2; add.s32 %theirs, %theirs, %r0;
st.shared.b32 [%mine], %a;
{sync}
ld.shared.b32 %v, [%theirs];
"""


def exchange(sync: str, distance: int, threads: int = 64, **options: object) -> bool:
    """Whether each thread gets the value of the thread whose number differs in the bits of `distance`."""
    value = np.arange(threads, dtype=u4) + 100
    other = np.arange(threads, dtype=u4) ^ distance
    got = run(EXCHANGE.format(sync=sync), {"a": value, "other": other}, {"v": u4}, threads=threads,
              shared=4 * threads, **options)  # fmt: skip
    return bool((got["v"] == value[other]).all())


RACE = "race: .* unordered"
APART = """
setp.lt.u32 %p0, %tid.x, {threads};
@%p0 bra $low;
{high}
bra.uni $end;
$low:
{low}
$end:
"""


def warps(low: str, high: str) -> str:
    return APART.format(threads=32, low=low, high=high)


def halves(low: str, high: str) -> str:
    return APART.format(threads=16, low=low, high=high)


SYNCS = {  # name -> (how threads meet, the pair's distance, what is wrong)
    "block": ("bar.sync 0;", 32, None),
    "block, lanes": ("bar.sync 0;", 1, None),
    "not aligned": ("barrier.sync 0;", 32, None),
    "named and counted": ("bar.sync 3, 64;", 32, None),
    "warp": ("bar.warp.sync -1;", 1, None),
    "warp, in hex": ("bar.warp.sync 0xffffffff;", 31, None),
    "nothing, lanes": ("", 1, RACE),
    "nothing, warps": ("", 32, RACE),
    "warp is not enough": ("bar.warp.sync -1;", 32, RACE),
    "shfl orders nothing": ("shfl.sync.bfly.b32 %r9, %a, 1, 31, -1;", 1, RACE),
    "vote orders nothing": ("vote.sync.ballot.b32 %r9, %p7, -1;", 1, RACE),
    "too many": ("bar.sync 1, 32;", 32, "64 threads arrive at barrier 1 of 32|" + RACE),
    "two barriers": (warps("bar.sync 1, 32;", "bar.sync 2, 32;"), 32, RACE),
    "two barriers, lanes": (warps("bar.sync 1, 32;", "bar.sync 2, 32;"), 1, None),
    "two places": (warps("bar.sync 1, 64;", "bar.sync 1, 64;"), 32, None),
    "two counts": (warps("bar.sync 1, 64;", "bar.sync 1, 32;"), 32, "awaited with different counts|" + RACE),
    "each waits for the other": (warps("bar.sync 1, 64;", "bar.sync 2, 64;"), 32, "deadlock"),
    "one does not come": (warps("bar.sync 0;", ""), 32, "deadlock|" + RACE),
    "no such barrier": ("bar.sync 15; bar.sync 16;", 32, "there is no barrier 16"),
    "no whole warps": ("bar.sync 1, 40;", 32, "there is no barrier 1 of 40 threads"),
    "more than there are": ("bar.sync 1, 128;", 32, "there is no barrier 1 of 128 threads"),
}


@pytest.mark.parametrize("name", SYNCS)
@pytest.mark.parametrize("team_warps", [1, 2])
def test_who_has_to_meet(name: str, team_warps: int) -> None:
    """Threads exchange values across a barrier, whether warps run in lockstep or not."""
    sync, distance, wrong = SYNCS[name]
    sync = "setp.eq.u32 %p7, %a, 0;" + sync
    if wrong is None:
        assert all(exchange(sync, distance, team_warps=team_warps, seed=seed) for seed in range(2))
    else:
        with pytest.raises(Fault, match=wrong):
            exchange(sync, distance, team_warps=team_warps)


def test_races_may_be_left_out() -> None:
    """Without clocks the schedule decides; a team in lockstep has stored everything before it reads."""
    assert exchange("", 32, team_warps=2, races=False)


@pytest.mark.parametrize(("low", "high", "distance", "wrong"), [
    ("bar.warp.sync 0x0000ffff;", "bar.warp.sync 0xffff0000;", 1, None),
    ("bar.warp.sync 0x0000ffff;", "bar.warp.sync 0xffff0000;", 16, RACE),
    ("bar.warp.sync -1;", "bar.warp.sync -1;", 16, "deadlock"),  # stricter than a device: they must meet at one place
    ("barrier.sync 0;", "barrier.sync 0;", 16, None),
    ("bar.sync 0;", "bar.sync 0;", 16, "deadlock"),
    ("bar.warp.sync 0xffff0000;", "", 1, "not in its own member mask"),
])  # fmt: skip
def test_halves_of_a_warp_at_two_places(low: str, high: str, distance: int, wrong: str | None) -> None:
    sync = halves(low, high)
    if wrong is None:
        assert all(exchange(sync, distance, 32, seed=seed) for seed in range(4))
    else:
        with pytest.raises(Fault, match=wrong):
            exchange(sync, distance, 32)


def test_a_barrier_waits_for_both_halves() -> None:
    """Lanes that took a longer way come to the same barrier: they are waited for, not counted twice."""
    sync = halves("bar.warp.sync 0x0000ffff; add.u32 %r9, %a, 1;", "") + "bar.sync 0;"
    assert all(exchange(sync, 48, seed=seed) for seed in range(6))


def test_a_barrier_is_used_again() -> None:
    """Ten uses, and a warp that comes back before the others have left."""
    body = """
    mov.b32 %r1, 0; mov.b32 %r0, global_smem; shl.b32 %r2, %tid.x, 2; add.s32 %r0, %r0, %r2; mov.b32 %v, 0;
    $again:
    st.shared.b32 [%r0], %r1; bar.sync 0;
    mov.b32 %r3, global_smem; ld.shared.b32 %r4, [%r3+128]; add.s32 %v, %v, %r4; bar.sync 0;
    add.s32 %r1, %r1, 1; setp.lt.u32 %p0, %r1, 10; @%p0 bra $again;
    """
    for seed in range(4):
        got = run(body, {"a": u4(0)}, {"v": u4}, threads=64, shared=256, team_warps=1, seed=seed)
        assert (got["v"] == 45).all()


def test_lanes_that_have_returned_are_not_waited_for() -> None:
    sync = "setp.lt.u32 %p0, %tid.x, 24;\n@%p0 bra $stay;\nret;\n$stay:\nbar.warp.sync -1;"
    got = run(sync + "shfl.sync.idx.b32 %v, %a, 0, 31, -1;", {"a": np.arange(32, dtype=u4) + 7}, {"v": u4})["v"]
    assert got.tolist() == [7] * 24 + [0] * 8


def test_a_deadlock_says_who_waits_for_what() -> None:
    """Every warp, its place and the barrier."""
    body = "setp.lt.u32 %p0, %tid.x, 32; @%p0 bra $one; bar.sync 2, 96;\n$one: bar.sync 1, 96;"
    with pytest.raises(Fault) as caught:
        run(body, {"a": u4(0)}, {}, threads=96, team_warps=1)
    lines = str(caught.value).splitlines()
    assert lines[0] == "deadlock in block (0, 0, 0):"
    assert [line.split(" at ")[0] for line in lines[1:]] == [
        "  warp 0: barrier 1 of 96 threads", "  warp 1: barrier 2 of 96 threads", "  warp 2: barrier 2 of 96 threads",
    ]  # fmt: skip


REGISTERS = """
setp.lt.u32 %p0, %tid.x, 128;
@%p0 bra $first;
setmaxnreg.{other}.sync.aligned.u32 {theirs};
bra.uni $end;
$first:
setmaxnreg.inc.sync.aligned.u32 {ours};
$end:
"""


@pytest.mark.parametrize(("other", "theirs", "ours", "wrong"), [
    ("dec", 24, 136, None),
    ("dec", 24, 144, "(?s)deadlock.*256 registers per lane, of which 224 are free"),
    ("dec", 96, 88, "in the wrong direction"),
    ("dec", 24, 72, "in the wrong direction"),
    ("dec", 20, 136, "20 registers are not a multiple of 8"),
    ("dec", 24, 260, "260 registers are not a multiple of 8"),
])  # fmt: skip
def test_register_pool(other: str, theirs: int, ours: int, wrong: str | None) -> None:
    """What one warp group gives back, another may take, and no more."""
    body = REGISTERS.format(other=other, theirs=theirs, ours=ours)
    if wrong is None:
        for seed in range(4):
            run(body, {"a": u4(0)}, {}, threads=256, seed=seed, registers=80)
    else:
        with pytest.raises(Fault, match=wrong):
            run(body, {"a": u4(0)}, {}, threads=256, registers=80)


def test_a_register_pool_needs_maxnreg() -> None:
    with pytest.raises(Fault, match=r"without \.maxnreg"):
        run("setmaxnreg.dec.sync.aligned.u32 40;", {"a": u4(0)}, {}, threads=256)


@pytest.mark.parametrize(
    "use",
    [
        "add.u32 %v, %r3, 1;",
        "not.b32 %v, %r3;",
        "setp.eq.u32 %p1, %r3, 1; selp.b32 %v, 1, 0, %p1;",
        "setp.ne.f32 %p1, %r3, 0f3F800000; selp.b32 %v, 1, 0, %p1;",
        "setp.eq.u32 %p1, %a, 1; selp.b32 %v, %r3, %a, %p1;",
        "mov.b64 %d9, {%a, %r3}; cvt.u32.u64 %v, %d9;",
        "max.u32 %v, %a, %r3;",
        "shfl.sync.idx.b32 %v, %r3, 0, 31, -1;",
    ],
)
def test_a_register_that_nothing_has_written(use: str) -> None:
    """NumPy would compare, choose and stack a None."""
    with pytest.raises(Fault, match=r"register .*'%r3'\] read before it is written"):
        run(f"setp.gt.u32 %p0, %a, 0; @%p0 bra $skip; mov.b32 %r3, 1;\n$skip: {use}", {"a": u4(1)}, {"v": u4})


def test_a_branch_beyond_its_table() -> None:
    table = "$table: .branchtargets $one, $two;\n"
    body = table + "brx.idx %a, $table;\n$one: mov.b32 %v, 1; bra.uni $end;\n$two: mov.b32 %v, 2;\n$end:"
    got = run(body, {"a": np.arange(32, dtype=u4) % 2}, {"v": u4})["v"]
    assert (got == np.arange(32) % 2 + 1).all()
    with pytest.raises(Fault, match="branch 2 of a table of 2"):
        run(body, {"a": np.arange(32, dtype=u4) % 3}, {"v": u4})


# Warp 0 reads words that warp 1 overwrites when an mbarrier lets it.
HAND_OVER = """
mov.b32 %v, 0; mov.b32 %r0, global_smem; and.b32 %r1, %tid.x, 31; shl.b32 %r2, %r1, 2; add.u32 %r1, %r0, %r2;
setp.eq.u32 %p0, %tid.x, 0;
@%p0 mbarrier.init.shared::cta.b64 [%r0], {count};
{begun}
setp.lt.u32 %p1, %tid.x, 32;
@%p1 bra $reader;
{wait}
st.shared.b32 [%r1+64], 5;
bra.uni $end;
$reader:
ld.shared.b32 %v, [%r1+64];
{sync}
{arrive}
$end:
"""
WAIT = "$wait:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r0], 0;\n@!%p2 bra $wait;"
ONE, EACH = "@%p0 mbarrier.arrive.shared::cta.b64 _, [%r0];", "mbarrier.arrive.shared::cta.b64 _, [%r0];"


@pytest.mark.parametrize(("sync", "arrive", "wrong"), [
    ("bar.warp.sync -1;", ONE, None),
    ("", ONE, r"race: write by warp 1 lane \d+ .* that warp 0 lane \d+ reads"),
    ("shfl.sync.idx.b32 %r9, %v, 0, 31, -1;", ONE, "race: write by warp 1"),
    ("", EACH, None),
    ("bar.warp.sync -1;", "", "deadlock"),
])  # fmt: skip
def test_memory_is_handed_back(sync: str, arrive: str, wrong: str | None) -> None:
    """One lane may arrive for its warp once the warp has met; or each lane arrives for itself."""
    count = 32 if arrive == EACH else 1
    body = HAND_OVER.format(count=count, begun="bar.sync 0;", wait=WAIT, sync=sync, arrive=arrive)
    for seed in range(4):
        options = {"threads": 64, "shared": 256, "seed": seed, "team_warps": 1}
        if wrong is None:
            run(body, {}, {"v": u4}, **options)
        else:
            with pytest.raises(Fault, match=wrong):
                run(body, {}, {"v": u4}, **options)


def test_an_mbarrier_is_there_for_all_only_after_a_barrier() -> None:
    body = HAND_OVER.format(count=1, begun="", wait=WAIT, sync="bar.warp.sync -1;", arrive=ONE)
    with pytest.raises(Fault, match=r"no mbarrier|race: use of an mbarrier"):
        run(body, {}, {"v": u4}, threads=64, shared=256, team_warps=1)
