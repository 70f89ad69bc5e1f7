"""cp.async: sizes, zero filling, groups, and when a copy may be read."""

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.parse import Unsupported
from tests.softgpu.snippets import ADDRESS
from tests.softgpu.state import Fault

COMMIT = "cp.async.commit_group;\n"


def wait(left: int) -> str:
    return f"cp.async.wait_group {left};\n"


# Each thread has 32 bytes of shared memory at %r0, and the same of the global array at %d0.
PLACES = f"""{ADDRESS} mov.u32 %r1, %tid.x; shl.b32 %r1, %r1, 5; add.u32 %r0, %r63, %r1;
cvt.u64.u32 %d0, %r1; add.u64 %d0, %d0, %data;
"""


def copy(size: int, cache: str = "ca", to: int = 0, source: int = 0, length: str = "") -> str:
    return f"cp.async.{cache}.shared.global [%r0+{to}], [%d0+{source}], {size}{length and ', ' + length};\n"


def load(count: int = 4, at: int = 0) -> str:
    vector = f".v{count}" if count > 1 else ""
    return f"ld.shared{vector}.b32 {{{', '.join(f'%w{i}' for i in range(count))}}}, [%r0+{at}];\n"


def numbers(threads: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, 32 * threads, dtype="u1")


def execute(body: str, words: int = 4, threads: int = 32, inputs: dict | None = None, **options: object) -> np.ndarray:
    """The words (threads, words) that `load` has read; shared memory is 0xFF first."""
    got = run(PLACES + body, inputs or {}, {f"w{i}": "u4" for i in range(words)}, threads=threads, shared=32 * threads,
              memory={"data": numbers(threads)}, **options)  # fmt: skip
    return np.stack([got[f"w{i}"] for i in range(words)], 1)


def bytes_of(words: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(words).view("u1")


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
@pytest.mark.parametrize(("size", "cache"), [(4, "ca"), (8, "ca"), (16, "ca"), (16, "cg")])
def test_a_copy_writes_its_bytes_and_no_others(size, cache, policy):
    got = bytes_of(execute(copy(size, cache) + COMMIT + wait(0) + load(), policy=policy))
    want = np.full((32, 16), 255, "u1")
    want[:, :size] = numbers().reshape(32, 32)[:, :size]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_bytes_that_are_not_read_are_zeros(size):
    length = np.arange(32) % (size + 1)
    got = bytes_of(
        execute(copy(size, length="%n") + "cp.async.wait_all;\n" + load(), inputs={"n": length.astype("u4")})
    )
    want = np.full((32, 16), 255, "u1")
    want[:, :size] = np.where(np.arange(size) < length[:, None], numbers().reshape(32, 32)[:, :size], 0)
    np.testing.assert_array_equal(got, want)


def test_nothing_is_read_for_a_length_of_zero():
    """So its address may be any, as Triton's masked copies have it."""
    length = np.where(np.arange(32) < 16, 16, 0).astype("u4")
    away = "setp.eq.u32 %p0, %n, 0;\n@%p0 mov.b64 %d0, 16;\n"
    got = execute(away + copy(16, length="%n") + COMMIT + wait(0) + load(), inputs={"n": length})
    np.testing.assert_array_equal(bytes_of(got)[:16], numbers().reshape(32, 32)[:16, :16])
    assert (got[16:] == 0).all()
    with pytest.raises(Fault, match="out of bounds"):
        execute(away + copy(16) + COMMIT + wait(0) + load(), inputs={"n": length})


def test_threads_under_a_predicate_copy_alone():
    body = "mov.u32 %r2, %tid.x; setp.lt.u32 %p0, %r2, 7;\n@%p0 " + copy(4) + COMMIT + wait(0) + load(1)
    got = execute(body, 1)
    np.testing.assert_array_equal(bytes_of(got)[:7], numbers().reshape(32, 32)[:7, :4])
    assert (got[7:] == 0xFFFFFFFF).all()


def test_a_wait_leaves_the_newest_groups():
    body = copy(4) + COMMIT + copy(4, to=4, source=4) + COMMIT
    first = np.ascontiguousarray(numbers().view("u4").reshape(32, 8)[:, :2])
    np.testing.assert_array_equal(execute(body + wait(1) + load(1), 1), first[:, :1])
    np.testing.assert_array_equal(execute(body + wait(0) + load(2), 2), first)
    with pytest.raises(Fault, match=r"race: read .* cp.async"):
        execute(body + wait(1) + load(1, 4), 1)
    with pytest.raises(Fault, match=r"race: read .* cp.async"):
        execute(body.removesuffix(COMMIT) + wait(0) + load(1, 4), 1)  # in no group


def test_a_place_may_be_copied_to_again_after_the_wait():
    body = copy(16) + COMMIT + wait(0) + load() + copy(16, source=16) + COMMIT + wait(0) + load()
    np.testing.assert_array_equal(bytes_of(execute(body)), numbers().reshape(32, 32)[:, 16:])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (copy(16) + COMMIT + load(), "race: read .* cp.async"),
        (copy(16) + COMMIT + "st.shared.b32 [%r0], %r0;\n" + wait(0), "race: write .* cp.async"),
        (copy(16) + copy(16, source=16) + COMMIT, "race: write .* cp.async"),
        (copy(16, to=8) + COMMIT, "shared address is not a multiple of 16"),
        (copy(8, source=4) + COMMIT, "global address is not a multiple of 8"),
        (copy(16, source=32) + COMMIT, "out of bounds|behind"),
        (copy(16, source=32, length="5") + COMMIT, "out of bounds|behind"),
        (copy(16, to=32) + COMMIT, "shared access out of bounds"),
        (copy(8, length="9") + COMMIT, "reads more bytes than it writes"),
    ],
)
def test_faults_of_copies(body, message):
    with pytest.raises(Fault, match=message):
        execute(body)


def test_other_warps_need_a_barrier_after_the_wait():
    other = f"{ADDRESS} mov.u32 %r1, %tid.x; xor.b32 %r1, %r1, 32; shl.b32 %r1, %r1, 5; add.u32 %r0, %r63, %r1;\n"
    body = copy(16) + COMMIT + wait(0) + "bar.sync 0;\n" + other + load()
    want = numbers(64).reshape(2, 32, 32)[::-1, :, :16].reshape(64, 16)
    np.testing.assert_array_equal(bytes_of(execute(body, threads=64, team_warps=1)), want)
    barrier = "bar.sync 0;\n"
    late = body.replace(wait(0), "").replace(barrier, barrier + wait(0))
    for wrong in (body.replace(barrier, ""), late, body.replace(wait(0), wait(1))):
        with pytest.raises(Fault, match=r"race: read .* cp.async"):
            execute(wrong, threads=64)


@pytest.mark.parametrize(("policy", "early"), [("eager", {True}), ("lazy", {False}), ("random", {True, False})])
def test_policies_differ_in_when_a_copy_is_there(policy, early):
    body = copy(4) + COMMIT + load(1) + wait(0)
    found = {bool((execute(body, 1, policy=policy, seed=s, races=False)[0] != 0xFFFFFFFF).all()) for s in range(8)}
    assert found == early


@pytest.mark.parametrize(
    "text",
    [
        "cp.async.cg.shared.global [%r0], [%d0], 8;",
        "cp.async.ca.shared.global [%r0], [%d0], 12;",
        "cp.async.ca.shared.global.L2::cache_hint [%r0], [%d0], 16, %d1;",
        "cp.async.ca.global [%r0], [%d0], 16;",
        "cp.async.ca.shared.global.L2::128B [%r0], [%d0], 16;",
        "cp.async.mbarrier.arrive.shared.b64 [%r0];",
        "cp.async.bulk.commit_group;",
        "cp.reduce.async.bulk.global.shared::cta.add.u32 [%d0], [%r0], 16;",
    ],
)
def test_other_copies_are_refused_by_name(text):
    with pytest.raises(Unsupported, match="cp"):
        execute(text)
