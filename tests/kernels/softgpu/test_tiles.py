"""The TMA's copies of tiles: layouts, edges, what a tensor map may be, and who may read when."""

from typing import Any

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.operands import MOVES
from tests.softgpu.parse import Unsupported
from tests.softgpu.snippets import begin, dump, wait
from tests.softgpu.state import Fault

BAR = 8192  # where the mbarrier lies, behind the tiles


def expect(size: int, barrier: int = BAR) -> str:
    return f"@%p7 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r63+{barrier}], {size};\n"


def tile(x: int | str, y: int | str, to: int = 0, barrier: int = BAR, name: str = "2d.shared::cta.global") -> str:
    kind = f"cp.async.bulk.tensor.{name}.mbarrier::complete_tx::bytes"
    return f"mov.b32 %r1, {x}; mov.b32 %r2, {y}; @%p7 {kind} [%r63+{to}], [%map, {{%r1, %r2}}], [%r63+{barrier}];\n"


def execute(body: str, data: np.ndarray, box: tuple[int, int], swizzle: int = 0, size: int = 4096, threads: int = 64,
            **options: Any) -> np.ndarray:  # fmt: skip
    """The first `size` bytes of shared memory after the body; 0xFF before. Strict unless said otherwise."""
    out = np.zeros(size, "u1")
    run(body + dump("out", size, threads), {}, {}, threads=threads, shared=BAR + 256, memory={"data": data, "out": out},
        maps={"map": {"array": "data", "box": box, "swizzle": swizzle}}, **{"strict": True, **options})  # fmt: skip
    return out


def halves(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 1 << 16, (rows, columns), dtype="u2")


def cut(data: np.ndarray, x: int, y: int, box: tuple[int, int]) -> np.ndarray:
    """The box at column x and row y, zeros outside."""
    around = 300
    padded = np.pad(data, around)
    return padded[around + y : around + y + box[0], around + x : around + x + box[1]]


def swizzled(values: np.ndarray, width: int) -> np.ndarray:
    """The box's bytes as they lie in shared memory: a pattern moves the chunks of each row of `width` bytes."""
    raw = np.ascontiguousarray(values).view("u1").reshape(-1, 16)
    if not width:
        return raw.reshape(-1)
    per, out = width // 16, np.empty_like(raw)
    for i, chunk in enumerate(raw):
        line, inside = divmod(i, per)
        out[line * per + (inside ^ MOVES[width](line))] = chunk
    return out.reshape(-1)


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
@pytest.mark.parametrize(("swizzle", "columns"), [(0, 8), (0, 64), (0, 256), (32, 16), (64, 32), (128, 64)])
def test_a_tile_lies_under_its_pattern(swizzle, columns, policy):
    data, box = halves(40, 264), (8, columns)
    size = 16 * columns
    got = execute(begin(BAR) + expect(size) + tile(8, 3) + wait(BAR, 0, "W"), data, box, swizzle, policy=policy)
    np.testing.assert_array_equal(got[:size], swizzled(cut(data, 8, 3, box), swizzle))
    assert (got[size:] == 255).all()


@pytest.mark.parametrize(
    ("x", "y"), [(-3, 0), (0, -5), (20, 2), (3, 38), (-8, -8), (100, 0), (0, 100), (-300, -1), (5, 5)]
)
def test_what_lies_outside_the_tensor_is_zeros_and_counts(x, y):
    data, box = halves(40, 24), (8, 16)
    got = execute(begin(BAR) + expect(256) + tile(x, y) + wait(BAR, 0, "W"), data, box, 32, size=1024)
    np.testing.assert_array_equal(got[:256], swizzled(cut(data, x, y, box), 32))


@pytest.mark.parametrize("dtype", ["u1", "u4", "u8"])
def test_elements_of_other_sizes(dtype):
    data = np.random.default_rng(0).integers(0, 200, (16, 32)).astype(dtype)
    box, size = (4, 16), 64 * data.itemsize
    got = execute(begin(BAR) + expect(size) + tile(16, 14) + wait(BAR, 0, "W"), data, box, size=1024)
    np.testing.assert_array_equal(got[:size], cut(data, 16, 14, box).reshape(-1).view("u1"))


def test_two_tiles_for_one_phase():
    data, box = halves(32, 16), (8, 16)
    body = begin(BAR) + expect(512) + tile(0, 0) + tile(0, 8, to=256) + wait(BAR, 0, "W")
    got = execute(body, data, box, size=1024)
    np.testing.assert_array_equal(got[:512], data[:16].reshape(-1).view("u1"))


def test_a_ring_of_one_stage_in_many_phases():
    data, box = halves(32, 16), (8, 16)
    body = begin(BAR)
    for i in range(4):
        body += expect(256) + tile(0, 8 * i) + wait(BAR, i & 1, f"W{i}") + "bar.sync 0;\n"
    np.testing.assert_array_equal(execute(body, data, box, size=1024)[:256], data[24:].reshape(-1).view("u1"))


def part(array: np.ndarray, box: tuple[int, int], swizzle: int = 0) -> tuple[np.ndarray, tuple[int, int], int]:
    return array, box, swizzle


@pytest.mark.parametrize(
    ("arguments", "to", "message"),
    [
        (part(halves(16, 64), (8, 32), 32), 0, "wider than the swizzle"),
        (part(halves(16, 64), (8, 4)), 0, "not a multiple of 16"),
        (part(halves(300, 64), (257, 8)), 0, "a side is 1 to 256"),
        (part(halves(16, 20), (8, 8)), 0, "multiples of 16 bytes"),
        (part(halves(16, 64), (8, 16)), 64, "multiples of 128"),
        (part(halves(16, 64), (8, 16)), BAR - 128, "over an mbarrier"),
        (part(halves(256, 64), (256, 64)), 0, "outside shared memory"),
        (part(np.zeros(64, "u2"), (16,)), 0, "of 1 dimensions"),
    ],
)
def test_what_the_driver_refuses_is_a_fault(arguments, to, message):
    with pytest.raises(Fault, match=message):
        execute(begin(BAR) + expect(256) + tile(0, 0, to) + wait(BAR, 0, "W"), *arguments)


def test_an_address_without_a_tensor_map_is_a_fault():
    with pytest.raises(Fault, match="no tensor map"):
        execute(begin(BAR) + "mov.b64 %map, 64;\n" + tile(0, 0), halves(16, 16), (8, 16))


STORE = "mov.u32 %r3, %tid.x; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r63; st.shared.b32 [%r3], %r3;\n"
LOAD = "mov.u32 %r3, %tid.x; shl.b32 %r3, %r3, 2; add.u32 %r3, %r3, %r63; ld.shared.b32 %r4, [%r3];\n"
COPY = expect(256) + tile(0, 0)
RIGHT = begin(BAR) + STORE + "fence.proxy.async.shared::cta;\nbar.sync 0;\n" + COPY + wait(BAR, 0, "W") + LOAD
WRONG = {
    "nobody waits": (begin(BAR) + COPY + LOAD + wait(BAR, 0, "W"), "race: read .* TMA"),
    "nobody waits before a store": (begin(BAR) + COPY + STORE + wait(BAR, 0, "W"), "race: write .* TMA"),
    "no proxy fence after a store": (
        RIGHT.replace("fence.proxy.async.shared::cta;\nbar.sync 0;\n" + COPY, "bar.sync 0;\n" + COPY),
        "no proxy fence",
    ),
    "no barrier after a store": (RIGHT.replace("bar.sync 0;\n" + COPY, COPY), "race: write .* unordered"),
    "no proxy fence after the initialisation": (
        begin(BAR, fence="") + COPY + wait(BAR, 0, "W"),
        "initialisation .*: no proxy fence",
    ),
    "still read by others": (RIGHT + expect(256) + tile(0, 8) + wait(BAR, 1, "V"), "race: write .* reads"),
    "half of the bytes": (begin(BAR) + expect(128) + tile(0, 0) + wait(BAR, 0, "W"), "deadlock"),
    "twice the bytes": (begin(BAR) + expect(512) + tile(0, 0) + wait(BAR, 0, "W"), "deadlock"),
    "no arrival": (begin(BAR) + tile(0, 0) + wait(BAR, 0, "W"), "deadlock"),
    "an mbarrier that does not exist": (begin(BAR) + tile(0, 0, barrier=BAR + 8), "no mbarrier"),
}


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
def test_the_right_order_is_accepted(policy):
    for seed in range(3):
        execute(
            RIGHT + "bar.sync 0;\n" + expect(256) + tile(0, 8) + wait(BAR, 1, "V"),
            halves(16, 16),
            (8, 16),
            policy=policy,
            seed=seed,
        )


@pytest.mark.parametrize("name", WRONG)
def test_planted_faults_are_noticed(name):
    body, message = WRONG[name]
    for policy in ("lazy", "random"):
        with pytest.raises(Fault, match=message):
            execute(body, halves(16, 16), (8, 16), policy=policy)


def test_copies_that_outlive_their_block_or_their_phase_are_faults():
    """Orders are not judged here, which would show it sooner. The second waits for a phase that never ends."""
    with pytest.raises(Fault, match="ended with 1 copies in flight"):
        execute(begin(BAR) + COPY, halves(16, 16), (8, 16), policy="lazy", races=False)
    arrive = f"@%p7 mbarrier.arrive.shared::cta.b64 _, [%r63+{BAR}];\n"
    body = begin(BAR) + tile(0, 0) + arrive + wait(BAR, 0, "W") + wait(BAR, 1, "V")
    with pytest.raises(Fault, match="another phase"):
        execute(body, halves(16, 16), (8, 16), policy="lazy", races=False)


def test_a_missing_fence_after_the_initialisation_is_a_warning_where_triton_leaves_it_out():
    stats: dict[str, Any] = {}
    execute(begin(BAR, fence="") + COPY + wait(BAR, 0, "W"), halves(16, 16), (8, 16), strict=False, stats=stats)
    assert any("without a proxy fence" in warning for warning in stats["warnings"])


@pytest.mark.parametrize(("policy", "early"), [("eager", {True}), ("lazy", {False}), ("random", {True, False})])
def test_policies_differ_in_when_a_tile_is_there(policy, early):
    body = begin(BAR) + COPY + "bar.sync 0;\n" * 3 + "ld.shared.b32 %got, [%r63];\n" + wait(BAR, 0, "W")
    found = set()
    for seed in range(12):
        given = {"memory": {"data": np.zeros((16, 16), "u2")}, "maps": {"map": {"array": "data", "box": (8, 16)}}}
        got = run(body, {"got": np.zeros(32, "u4")}, {"got": "u4"}, shared=BAR + 64, policy=policy, seed=seed,
                  races=False, **given)  # fmt: skip
        found.add(int(got["got"][0]) == 0)
    assert found == early


@pytest.mark.parametrize(
    "name",
    [
        "1d.shared::cta.global",
        "3d.shared::cta.global",
        "2d.shared::cta.global.im2col",
        "2d.global.shared::cta",
        "2d.shared::cta.global.tile::gather4",
    ],
)
def test_other_tiles_are_refused_by_name(name):
    with pytest.raises(Unsupported, match=r"cp.async.bulk"):
        execute(begin(BAR) + tile(0, 0, name=name), halves(16, 16), (8, 16))


@pytest.mark.parametrize("end", [".multicast::cluster", ".L2::cache_hint", ".cta_group::1"])
def test_hints_and_multicast_are_refused_by_name(end):
    text = tile(0, 0).replace("complete_tx::bytes", "complete_tx::bytes" + end)
    with pytest.raises(Unsupported, match=r"cp.async.bulk"):
        execute(begin(BAR) + text, halves(16, 16), (8, 16))
