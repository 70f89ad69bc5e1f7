"""mbarriers: what ends a phase, who learns of it, and what it hands on."""

import contextlib
from typing import Any

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.parse import Unsupported
from tests.softgpu.snippets import begin, wait
from tests.softgpu.state import Fault

SHARED = 1024
ARRIVE = "mbarrier.arrive.shared::cta.b64 _, [%r63+0]"
TEST = "mbarrier.test_wait.parity.shared::cta.b64 %p{0}, [%r63+0], {1};\n"


def execute(
    body: str, outputs: dict[str, Any] | None = None, threads: int = 64, **options: Any
) -> dict[str, np.ndarray]:
    given = {name: np.zeros(threads, dtype) for name, dtype in (outputs or {}).items()}
    return run(body, given, outputs or {}, threads=threads, shared=SHARED, **{"strict": True, **options})


def test_a_phase_ends_with_its_last_arrival_and_the_next_counts_anew():
    ask = "bar.sync 0;\n" + TEST.format("{0}", 0) + "selp.u32 %s{1}, 1, 0, %p{0};\nbar.sync 0;\n"
    body = begin(0, 2) + ask.format(0, 0)
    for i in range(1, 5):
        body += f"@%p7 {ARRIVE};\n" + ask.format(0, i)
    got = execute(body, {f"s{i}": "u4" for i in range(5)})
    # Phase 0 is over after two arrivals. After four the newest phase of parity 0 lies before the last one.
    assert [int(got[f"s{i}"][0]) for i in range(5)] == [0, 0, 1, 1, 0]
    assert all((got[f"s{i}"] == got[f"s{i}"][0]).all() for i in range(5))


def test_the_phase_before_the_first_counts_as_over():
    got = execute(begin(0) + TEST.format(0, 1) + "selp.u32 %s, 1, 0, %p0;\n", {"s": "u4"})
    assert (got["s"] == 1).all()


def test_an_arrival_may_count_for_several():
    body = begin(0, 64) + f"@%p7 {ARRIVE}, 60;\n" + "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 4;\n"
    execute(body + f"@%p0 {ARRIVE};\n" + wait(0, 0, "W"))
    with pytest.raises(Fault, match="deadlock"):
        execute(body + wait(0, 0, "W"))
    with pytest.raises(Fault, match="more arrivals than the 64"):
        execute(body + f"@%p7 {ARRIVE}, 60;\n")


def test_every_thread_arrives_by_itself():
    execute(begin(0, 64) + ARRIVE + ";\n" + wait(0, 0, "W"))


@pytest.mark.parametrize("order", ["", ".release.cta"])
def test_bytes_may_be_expected_without_an_arrival(order):
    expect = "@%p7 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r63+0], 64;\n"
    arrive = f"@%p7 mbarrier.arrive{order}.shared::cta.b64 _, [%r63+0];\n"
    execute(begin(0) + arrive + wait(0, 0, "W"))
    with pytest.raises(Fault, match="deadlock"):
        execute(begin(0) + expect + arrive + wait(0, 0, "W"))


def test_a_wait_may_give_up_and_the_loop_goes_on():
    """try_wait without its loop gives false now and then, as a device may."""
    body = begin(0) + "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 %p0, [%r63+0], 0, 1000;\n"
    found = set()
    for seed in range(40):
        with contextlib.suppress(Fault):  # where it goes on waiting, for ever
            got = execute(body + "selp.u32 %s, 1, 0, %p0;\n", {"s": "u4"}, threads=32, seed=seed)
            found.add(int(got["s"][0]))
    assert found == {0}


# Threads of two warps: warp 0 stores, and warp 1 reads what it stored.
ROLES = "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 32;\n"
ROLES += "and.b32 %r1, %r0, 31; shl.b32 %r1, %r1, 2; add.u32 %r1, %r1, %r63;\n"
PUT, GET = "st.shared.b32 [%r1+64], %r0;\n", "ld.shared.b32 %got, [%r1+64];\n"
SIGNAL = "bar.warp.sync -1;\n@%p7 " + ARRIVE + ";\n"


def hand_over(put: str = PUT, signal: str = SIGNAL, ask: str = wait(0, 0, "W"), get: str = GET) -> str:
    return begin(0) + ROLES + f"@!%p0 bra READER;\n{put}{signal}bra END;\nREADER:\n{ask}{get}END:\n"


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
def test_an_arrival_hands_on_what_was_stored_before(policy):
    for seed in range(3):
        got = execute(hand_over(), {"got": "u4"}, policy=policy, seed=seed)
        np.testing.assert_array_equal(got["got"][32:], np.arange(32))


@pytest.mark.parametrize(
    "body",
    [
        hand_over(ask=""),
        hand_over(ask=wait(0, 1, "W")),
        hand_over(put="", signal=SIGNAL + PUT),
        hand_over(ask="", get=GET + wait(0, 0, "W")),
    ],
)
def test_without_the_wait_or_with_the_store_after_it_is_a_race(body):
    for policy, seed in (("random", 0), ("lazy", 1), ("eager", 2)):
        with pytest.raises(Fault, match=r"race: |deadlock"):  # the wrong parity may also wait for ever
            execute(body, {"got": "u4"}, policy=policy, seed=seed)


def test_the_way_back_is_ordered_by_a_second_mbarrier():
    """A ring of one place: the second store must wait until the first was read."""
    back = "bar.warp.sync -1;\nsetp.eq.u32 %p1, %r0, 32;\n@%p1 mbarrier.arrive.shared::cta.b64 _, [%r63+8];\n"
    start = begin(0) + begin(8) + ROLES + "@!%p0 bra READER;\n" + PUT + SIGNAL
    end = PUT + SIGNAL + "bra END;\nREADER:\n" + wait(0, 0, "W") + GET + back + wait(0, 1, "X") + GET + "END:\n"
    execute(start + wait(8, 0, "V") + end, {"got": "u4"})
    for seed in range(3):
        with pytest.raises(Fault, match=r"race: |deadlock"):  # a phase that the reader missed does not come again
            execute(start + end, {"got": "u4"}, seed=seed)


AGAIN = "@%p7 mbarrier.inval.shared::cta.b64 [%r63+0];\nbar.sync 0;\n"


def test_a_place_may_be_used_again_after_its_end():
    store = "@%p7 st.shared.b32 [%r63+0], %r63;\nbar.sync 0;\n"
    once = begin(0) + f"@%p7 {ARRIVE};\n" + wait(0, 0, "W0") + "bar.sync 0;\n" + AGAIN
    execute(once + store + once.replace("W0", "W1") + store)


FAULTS = {
    "no initialisation": ("mov.u32 %r63, global_smem;\n" + wait(0, 0, "W"), "no mbarrier"),
    "after its end": (begin(0) + AGAIN + f"@%p7 {ARRIVE};\n", "no mbarrier"),
    "twice": (begin(0) + begin(0), "over an mbarrier that is in use"),
    "stored over": (begin(0) + "@%p7 st.shared.b32 [%r63+4], %r63;\n", "over an mbarrier that is in use"),
    "not at a multiple of 8": (begin(4), "no place for an mbarrier"),
    "outside": (begin(SHARED), "no place for an mbarrier"),
    "no arrivals": (begin(0, 0), "counts 1 to 1048575 arrivals, not 0"),
    "too many arrivals": (begin(0, 1 << 20), "not 1048576"),
    "too many bytes": (
        begin(0) + "@%p7 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r63+0], 1048576;\n",
        "at most 1048575 bytes",
    ),
    "a third parity": (begin(0) + wait(0, 2, "W"), "0 or 1, not 2"),
    "more arrivals": (begin(0, 2) + f"@%p7 {ARRIVE};\n@%p7 {ARRIVE}, 2;\n", "more arrivals"),
    "all threads initialise": (
        "mov.u32 %r63, global_smem; mbarrier.init.shared::cta.b64 [%r63], 1;\n",
        "64 threads initialise",
    ),
    "all threads end it": (begin(0) + "mbarrier.inval.shared::cta.b64 [%r63];\n", "64 threads invalidate"),
    "ended with bytes expected": (
        begin(0, 2) + "@%p7 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r63+0], 64;\n" + AGAIN,
        "ends with copies in flight",
    ),
    "used before others saw it": (begin(0).replace("bar.sync 0;", "") + f"{ARRIVE};\n", "race: use of an mbarrier"),
    "nobody arrives": (begin(0) + wait(0, 0, "W"), "deadlock.*\n.*parity 0 of the mbarrier at shared . 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_noticed(name):
    body, message = FAULTS[name]
    with pytest.raises(Fault, match=message):
        execute(body)


@pytest.mark.parametrize(
    "text",
    [
        "mbarrier.arrive.shared::cta.b64 %d0, [%r63];",
        "mbarrier.arrive.b64 _, [%r63];",
        "mbarrier.arrive.noComplete.shared::cta.b64 _, [%r63], 1;",
        "mbarrier.arrive_drop.shared::cta.b64 _, [%r63];",
        "mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r63];",
        "mbarrier.arrive.release.cluster.shared::cta.b64 _, [%r63];",
        "mbarrier.arrive.shared::cluster.b64 _, [%r63];",
        "mbarrier.try_wait.shared::cta.b64 %p0, [%r63], %d0;",
        "mbarrier.test_wait.parity.relaxed.cta.shared::cta.b64 %p0, [%r63], 0;",
        "mbarrier.pending_count.b64 %r0, %d0;",
        "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%r63], 16;",
        "fence.proxy.alias;",
        "fence.proxy.async.global;",
        "fence.mbarrier_init.release.cluster;",
        "fence.acq_rel.cluster;",
        "fence.proxy.tensormap::generic.release.gpu;",
    ],
)
def test_other_forms_are_refused_by_name(text):
    with pytest.raises(Unsupported, match=r"mbarrier|fence"):
        execute(begin(0) + "mov.b64 %d0, 0;\n" + text + "\n")


def test_threads_of_a_warp_that_name_different_mbarriers_at_once_are_refused():
    body = (
        begin(0) + begin(8) + "mov.u32 %r0, %tid.x; and.b32 %r0, %r0, 1; shl.b32 %r0, %r0, 3; add.u32 %r0, %r0, %r63;\n"
    )
    with pytest.raises(Unsupported, match="different mbarriers"):
        execute(body + "mbarrier.arrive.shared::cta.b64 _, [%r0];\n")
    body = begin(0) + "mov.u32 %r0, %tid.x; and.b32 %r0, %r0, 1;\n"
    with pytest.raises(Unsupported, match="different parities"):
        execute(body + "mbarrier.test_wait.parity.shared::cta.b64 %p0, [%r63], %r0;\n")
