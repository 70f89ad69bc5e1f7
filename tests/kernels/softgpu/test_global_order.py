"""Order of accesses to global memory, between blocks and within one: what is right passes in any order of the blocks.

A wrong kernel is one that some order of its blocks shows; most are seen in every order.
"""

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.state import Fault

u4 = np.uint32
SEEDS = range(6)


def outcome(body: str, seed: int, words: int = 64, blocks: int = 3, threads: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """The memory m and each thread's %v after a run in which %n is the thread's number in the grid."""
    there = np.zeros(words, u4)
    numbers = np.arange(blocks * threads, dtype=u4)
    got = run(body, {"n": numbers}, {"v": u4}, memory={"m": there}, threads=threads, grid=(blocks, 1, 1), seed=seed)
    return there, got["v"]


def fails(body: str, seeds: range = SEEDS, **options: int) -> list[bool | str]:
    """For each seed whether a race is reported (or what else)."""
    result = []
    for seed in seeds:
        try:
            outcome(body, seed, **options)
        except Fault as fault:
            result.append("race: " in str(fault) or str(fault))
        else:
            result.append(False)
    return result


OWN = "mov.b32 %v, 0; mul.wide.u32 %d0, %n, 4; add.u64 %d0, %d0, %m;"


def test_words_of_their_own() -> None:
    body = OWN + "st.global.b32 [%d0], %n; ld.global.b32 %v, [%d0];"
    for seed in SEEDS:
        there, v = outcome(body, seed, words=192)
        assert there.tolist() == v.tolist() == list(range(192))


def test_all_read_and_nobody_writes() -> None:
    assert not any(fails("ld.global.b32 %v, [%m];"))


@pytest.mark.parametrize("sync", ["", "bar.sync 0;"])
def test_a_block_reads_what_another_writes(sync: str) -> None:
    """Nothing in the blocks orders them; whichever runs first."""
    body = f"mov.b32 %v, 0; setp.eq.u32 %p0, %n, 0; @%p0 st.global.b32 [%m], 7; {sync} @!%p0 ld.global.b32 %v, [%m];"
    assert all(fails(body))


def test_blocks_write_one_word() -> None:
    """Even if it is the same value."""
    assert all(fails("mov.b32 %v, 0; setp.eq.u32 %p0, %tid.x, 0; @%p0 st.global.b32 [%m], 7;"))


NEIGHBOUR = (
    "st.global.b32 [%d0], %n; {sync} xor.b32 %r1, %n, {distance}; mul.wide.u32 %d0, %r1, 4; add.u64 %d0, %d0, %m;"
)


@pytest.mark.parametrize(("sync", "distance", "wrong"), [
    ("bar.sync 0;", 32, False), ("bar.sync 0;", 1, False), ("bar.warp.sync -1;", 1, False), ("", 1, True),
    ("", 32, True), ("bar.warp.sync -1;", 32, True), ("shfl.sync.bfly.b32 %r9, %n, 1, 31, -1;", 1, True),
])  # fmt: skip
@pytest.mark.parametrize("access", ["ld.global.b32 %v, [%d0];", "st.global.b32 [%d0], 1000;"])
def test_within_a_block(sync: str, distance: int, wrong: bool, access: str) -> None:
    """What a thread has stored, another reads or overwrites, across a barrier or not."""
    body = OWN + NEIGHBOUR.format(sync=sync, distance=distance) + access
    assert fails(body, blocks=1) == [wrong] * len(SEEDS)


@pytest.mark.parametrize(("sync", "wrong"), [("bar.sync 0;", False), ("", True)])
def test_written_after_it_was_read(sync: str, wrong: bool) -> None:
    """By one thread, and by all of the block."""
    one = OWN + f"ld.global.b32 %v, [%d0]; {sync} xor.b32 %r1, %n, 32; mul.wide.u32 %d1, %r1, 4; add.u64 %d1, %d1, %m;"
    assert fails(one + "st.global.b32 [%d1], 5;", blocks=1) == [wrong] * len(SEEDS)
    many = f"ld.global.b32 %v, [%m]; {sync} setp.eq.u32 %p0, %n, 3; @%p0 st.global.b32 [%m], 5;"
    assert fails(many, blocks=1) == [wrong] * len(SEEDS)


# The ring's cursor: every block reads m[0]; the last one to count in m[1] moves it. %r2: what m[1] held before.
COUNT = """
ld.global.b32 %v, [%m];
{before}
setp.eq.u32 %p0, %tid.x, 0; mov.b32 %r2, 0;
@%p0 atom.global.{scope}.{order}.add.u32 %r2, [%m+4], 1;
setp.eq.u32 %p1, %r2, 2; and.pred %p1, %p1, %p0;
@%p1 st.global.b32 [%m], 50;
@%p1 st.global.b32 [%m+4], 0;
"""


@pytest.mark.parametrize(("before", "scope", "order", "wrong"), [
    ("bar.sync 0;", "gpu", "acq_rel", False),
    ("bar.sync 0;", "sys", "acq_rel", False),
    ("", "gpu", "acq_rel", True),  # other warps may still read the cursor
    ("bar.warp.sync -1;", "gpu", "acq_rel", True),
    ("bar.sync 0;", "gpu", "relaxed", True),
    ("bar.sync 0;", "gpu", "release", True),
    ("bar.sync 0;", "gpu", "acquire", True),
    ("bar.sync 0;", "cta", "acq_rel", True),
])  # fmt: skip
def test_the_last_block_moves_the_cursor(before: str, scope: str, order: str, wrong: bool) -> None:
    body = COUNT.format(before=before, scope=scope, order=order)
    assert fails(body) == [wrong] * len(SEEDS)
    if not wrong:
        there, v = outcome(body, 0)
        assert there[:2].tolist() == [50, 0]
        assert not v.any()


HAND_ON = """
mov.b32 %v, 0; mov.b32 %r2, 0; mul.wide.u32 %d0, %n, 4; add.u64 %d0, %d0, %m;
st.global.b32 [%d0+64], %n;
{before}
setp.eq.u32 %p0, %tid.x, 0;
@%p0 atom.global.gpu.acq_rel.add.u32 %r2, [%m], 1;
{after}
"""
# All blocks' words are summed by the threads of the last block, which learn from thread 0 that it is the last.
TELL = "@%p0 st.shared.b32 [global_smem], %r2; bar.sync 0; ld.shared.b32 %r2, [global_smem];"
SUM = "setp.eq.u32 %p1, %r2, 2;" + "".join(f"@%p1 ld.global.b32 %v, [%m+{at}];" for at in (192, 448, 704))


@pytest.mark.parametrize(("before", "after", "wrong"), [
    ("bar.sync 0;", TELL, False),
    ("", TELL, True),  # what other warps of a block have stored is not handed on
    ("bar.sync 0;", TELL.replace("bar.sync 0;", ""), True),  # (shared memory)
    ("bar.sync 0;", "bar.sync 0; mov.b32 %r2, 2;", True),  # every block reads, not only the last
])  # fmt: skip
def test_the_last_block_reads_what_all_have_written(before: str, after: str, wrong: bool) -> None:
    body = HAND_ON.format(before=before, after=after) + SUM
    for seed in SEEDS:
        options = {"memory": {"m": np.zeros(256, u4)}, "threads": 64, "grid": (3, 1, 1), "shared": 16, "seed": seed}
        given = {"n": np.arange(192, dtype=u4)}
        if wrong:
            with pytest.raises(Fault, match="race: "):
                run(body, given, {"v": u4}, **options)
        else:
            got = run(body, given, {"v": u4}, **options)["v"].reshape(3, 64)
            assert sorted(got.sum(1).tolist()) == [0, 0, 64 * 160]


@pytest.mark.parametrize(("order", "wrong"), [("acq_rel", False), ("relaxed", True)])
def test_reads_of_what_atomics_have_counted(order: str, wrong: bool) -> None:
    """An acquire by the same thread makes a plain read of the counter right."""
    body = f"""
    mov.b32 %v, 0; setp.eq.u32 %p0, %tid.x, 0;
    @%p0 atom.global.gpu.{order}.add.u32 %v, [%m], 1;
    setp.eq.u32 %p1, %v, 2; @%p1 ld.global.b32 %v, [%m];
    """
    assert fails(body) == [wrong] * len(SEEDS)


def test_races_can_be_left_out() -> None:
    run(
        "st.global.b32 [%m], %n;",
        {"n": np.zeros(64, u4)},
        {},
        memory={"m": np.zeros(4, u4)},
        grid=(2, 1, 1),
        races=False,
    )


def test_a_launch_is_ordered_after_the_one_before() -> None:
    """The same memory, twice."""
    there = np.zeros(4, u4)
    for value in (1, 2):
        run("setp.eq.u32 %p0, %tid.x, 0; @%p0 st.global.b32 [%m], %a;", {"a": u4(value)}, {}, memory={"m": there})
        assert there[0] == value


def test_blocks_that_each_read_and_write_a_word_of_their_own() -> None:
    """All threads of a block read its word, and one writes it after a barrier: what other blocks read is no matter."""
    body = """
    mov.u32 %r0, %ctaid.x; mul.wide.u32 %d0, %r0, 4; add.u64 %d0, %d0, %m;
    ld.global.b32 %v, [%d0]; bar.sync 0; setp.eq.u32 %p0, %tid.x, 0; @%p0 st.global.b32 [%d0], 5;
    """
    assert not any(fails(body))
