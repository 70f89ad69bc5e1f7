"""The order of tensor memory: the manual's patterns are accepted, and each with one instruction less is noticed."""

from typing import Any

import numpy as np
import pytest

from tests.softgpu.snippets import begin, fill, wait
from tests.softgpu.state import Fault
from tests.softgpu.tensor_snippets import (
    AFTER,
    BAR,
    BEFORE,
    COMMIT,
    LOADED,
    SIZE,
    START,
    STORED,
    execute,
    form,
    load,
    mma,
    operands,
    store,
)

SYNC = "bar.sync 0;\n"
WAIT = wait(BAR, 0, "ONE")


def judge(body: str, **options: Any) -> dict[str, Any]:
    """Run with an mbarrier and what tensor memory needs; the record of the launch. The numbers are of no interest."""
    _, _, a, b = operands(128, 32, 32)
    inputs = {"da": np.uint64(a.descriptor("tcgen05")), "db": np.uint64(b.descriptor("tcgen05")),
              "u0": np.zeros(128, "u4")}  # fmt: skip
    inputs |= {"form": np.uint32(form(128, 32)), "other": np.uint32(form(128, 16))}
    stats: dict[str, Any] = {}
    text = begin(BAR) + START + "add.u32 %r54, %r50, 256;\nadd.u32 %r55, %r51, 256;\n"
    execute(text + body, inputs, {"v0": "u4"}, stats=stats, **options)
    return stats


LOAD, STORE = load(1), store(1)
PATTERNS = {
    # One thread, and nothing that is pipelined.
    "st, ld": [STORE, STORED, LOAD, LOADED],
    "st, st": [STORE, STORED, STORE, STORED],
    "ld, st": [STORE, STORED, LOAD, LOADED, STORE, STORED],
    "mma, ld": [mma(), COMMIT, WAIT, AFTER, LOAD, LOADED],
    "mma, st": [mma(), COMMIT, WAIT, AFTER, STORE, STORED],
    # Other threads: every warp's stores and loads against the products of thread 0.
    "st, mma": [STORE, STORED, BEFORE, SYNC, AFTER, mma(add="%p1"), COMMIT, WAIT],
    "ld, mma": [STORE, STORED, LOAD, LOADED, BEFORE, SYNC, AFTER, mma(), COMMIT, WAIT],
    "st of A, mma": [store(1, address="%r55"), STORED, BEFORE, SYNC, AFTER, mma(a="[%r54]"), COMMIT, WAIT],
    "mma of A, st": [mma(a="[%r54]"), COMMIT, WAIT, AFTER, store(1, address="%r55"), STORED],
    "mma, mma that takes it as A": [
        mma(),
        COMMIT,
        WAIT,
        AFTER,
        "add.u32 %r53, %r50, 64;\n" + mma("%r53", a="[%r50]"),
        COMMIT,
        wait(BAR, 1, "TWO"),
    ],
    "mma, another shape": [mma(), COMMIT, WAIT, AFTER, mma(instruction="%other"), COMMIT, wait(BAR, 1, "TWO")],
}
END = BEFORE  # of what the threads did last, for whoever comes next


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_of_the_manual_are_accepted(name, policy):
    judge("".join(PATTERNS[name]) + END, policy=policy)


# Instructions whose absence nothing shows: the last wait of a pattern is for what follows it.
NEEDED = [
    (name, i)
    for name, lines in PATTERNS.items()
    for i in range(len(lines))
    if lines[i] in (STORED, LOADED, COMMIT, WAIT, BEFORE, SYNC, AFTER)
]


@pytest.mark.parametrize(("name", "left_out"), NEEDED)
def test_a_pattern_without_one_of_its_instructions_is_noticed(name, left_out):
    """By the rule, whatever the schedule was: in all policies."""
    lines = PATTERNS[name]
    body = "".join(lines[:left_out] + lines[left_out + 1 :]) + END
    for policy in ("eager", "lazy"):
        with pytest.raises(Fault, match=r"tensor memory|in flight|deadlock"):
            judge(body, policy=policy)


FENCED = [(name, i) for name, i in NEEDED if PATTERNS[name][i] in (BEFORE, AFTER)]


@pytest.mark.parametrize(("name", "left_out"), FENCED)
def test_a_missing_fence_is_a_warning_where_triton_leaves_it_out(name, left_out):
    lines = PATTERNS[name]
    stats = judge("".join(lines[:left_out] + lines[left_out + 1 :]) + END, strict=False)
    assert any("without a tcgen05.fence" in warning for warning in stats["warnings"])
    assert not judge("".join(lines) + END)["warnings"]


def test_products_of_one_accumulator_and_shape_are_pipelined_and_no_others():
    twice = [mma(), mma(add="%p1"), COMMIT, WAIT]
    judge("".join(twice))
    for second in (mma(instruction="%other"), mma("%r53")):
        with pytest.raises(Fault, match=r"race: write of tensor memory after tcgen05.mma .*: unordered"):
            judge("add.u32 %r53, %r50, 16;\n" + mma() + second + COMMIT + WAIT)


def test_products_in_other_columns_need_no_order():
    judge("add.u32 %r53, %r50, 32;\n" + mma() + mma("%r53") + COMMIT + WAIT)


def test_a_commit_covers_only_what_was_issued_before():
    with pytest.raises(Fault, match=r"race: read of tensor memory after tcgen05.mma"):
        judge(COMMIT + mma() + WAIT + AFTER + LOAD + LOADED)


def test_products_read_shared_memory_until_their_commit_is_awaited():
    put = "mov.u32 %r53, %tid.x; shl.b32 %r53, %r53, 2; add.u32 %r53, %r53, %r63; st.shared.b32 [%r53], %r53;\n"
    judge(mma() + COMMIT + WAIT + put)
    for wrong in (mma() + COMMIT + put + WAIT, mma() + WAIT.replace("0;", "1;") + put + COMMIT + WAIT):
        with pytest.raises(Fault, match=r"race: write .* reads"):
            judge(wrong)
    fence = "fence.proxy.async.shared::cta;\n"
    judge(put + fence + SYNC + mma() + COMMIT + WAIT)
    with pytest.raises(Fault, match=r"race: tcgen05.mma's read .* no proxy fence"):
        judge(put + SYNC + mma() + COMMIT + WAIT)
    with pytest.raises(Fault, match=r"race: tcgen05.mma's read .* unordered"):
        judge(put + fence + mma() + COMMIT + WAIT)


@pytest.mark.parametrize(("policy", "done"), [("eager", {True}), ("lazy", {False}), ("random", {True, False})])
@pytest.mark.parametrize("kind", ["store", "load", "product"])
def test_policies_differ_in_when_results_are_there(kind, policy, done):
    """Without judging orders: what a load finds before the wait that it needs."""
    parts = {
        "store": (store(1, name="n") + load(1) + LOADED + STORED, lambda v: v == 7),
        "load": (load(1) + store(1, name="n") + STORED + LOADED, lambda v: v != 7),
        "product": (mma() + load(1) + LOADED + COMMIT + WAIT, lambda v: v != 0xFFFFFFFF),
    }
    body, early = parts[kind]
    _, _, a, b = operands(128, 32, 32)
    image = np.full(SIZE, 0x3C, "u1")
    inputs = {"da": np.uint64(a.descriptor("tcgen05")), "db": np.uint64(b.descriptor("tcgen05")),
              "form": np.uint32(form(128, 32))}  # fmt: skip
    inputs["n0"] = np.full(128, 7, "u4")
    text = fill("data", SIZE, 128) + "\n" + begin(BAR) + START
    found = set()
    for seed in range(10):
        got = execute(text + body, inputs, {"v0": "u4"}, memory={"data": image}, policy=policy, seed=seed, races=False)
        found |= set(early(got["v0"][::32]).tolist())
    assert found == done
