"""tcgen05: columns of tensor memory, loads and stores, products in every layout, and refusals."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from tests.softgpu.harness import run
from tests.softgpu.operands import Operand
from tests.softgpu.parse import Unsupported
from tests.softgpu.snippets import ADDRESS, begin, fill, wait
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
    bits,
    execute,
    form,
    load,
    mma,
    operands,
    store,
)


def numbers(count: int, threads: int = 128) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 1 << 32, (threads, count), dtype="u4")


def places(count: int, half: int | None, threads: int = 128, lane: int = 0) -> np.ndarray:
    """(threads, count, 2): lane and column that a register is of, by the manual's figures of the two shapes."""
    result = np.zeros((threads, count, 2), int)
    for thread in range(threads):
        own, t = 32 * (thread // 32 % 4), thread % 32
        for i in range(count):
            result[thread, i] = (own + t, i) if half is None else (own + lane + t % 16, i + half * (t // 16))
    return result


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
@pytest.mark.parametrize(("count", "half"), [(1, None), (4, None), (128, None), (1, 1), (8, 8), (64, 64), (2, 40)])
def test_stores_and_loads_of_a_shape_reach_the_same_places(count, half, policy):
    """What .32x32b stores .16x32bx2 loads, and the other way round."""
    wide = 128 if half is None else half + count
    whole = 1 << (wide - 1).bit_length()
    values = numbers(whole)
    body = store(whole) + STORED + load(count, half) + LOADED
    inputs = {f"u{i}": np.ascontiguousarray(values[:, i]) for i in range(whole)}
    got = execute(body, inputs, {f"v{i}": "u4" for i in range(count)}, policy=policy, seed=count)
    for i, place in enumerate(places(count, half).transpose(1, 2, 0)):
        np.testing.assert_array_equal(got[f"v{i}"], values[place[0], place[1]])


@pytest.mark.parametrize(("count", "half", "lane"), [(2, 2, 0), (4, 4, 16), (1, 3, 16)])
def test_a_store_changes_its_places_and_no_others(count, half, lane):
    values, new = numbers(8), numbers(count) ^ np.uint32(1)
    inputs = {f"u{i}": np.ascontiguousarray(values[:, i]) for i in range(8)}
    inputs |= {f"n{i}": np.ascontiguousarray(new[:, i]) for i in range(count)}
    body = (
        store(8)
        + STORED
        + f"add.u32 %r52, %r51, {lane << 16};\n"
        + store(count, half, "%r52", "n")
        + STORED
        + load(8)
        + LOADED
    )
    got = execute(body, inputs, {f"v{i}": "u4" for i in range(8)})
    want = values.copy()
    for thread, i in np.ndindex(128, count):
        want[tuple(places(count, half, lane=lane)[thread, i])] = new[thread, i]
    np.testing.assert_array_equal(np.stack([got[f"v{i}"] for i in range(8)], 1), want)


def test_warps_of_two_groups_share_lanes():
    values = numbers(1, 256)
    body = (
        "setp.lt.u32 %p0, %tid, 128;\n@!%p0 bra WAIT;\n"
        + store(1)
        + STORED
        + BEFORE
        + "WAIT:\nbar.sync 0;\n"
        + AFTER
        + load(1)
        + LOADED
    )
    body = body.replace("%tid,", "%r59,")
    got = execute("mov.u32 %r59, %tid.x;\n" + body + BEFORE, {"u0": values[:, 0].copy()}, {"v0": "u4"}, threads=256)
    np.testing.assert_array_equal(got["v0"], np.tile(values[:128, 0], 2))


FAULTS = {
    "lanes of another warp": (load(1, address="%r50") + LOADED, "reaches for lane 0"),
    "lanes in the middle": ("add.u32 %r51, %r51, 0x80000;\n" + load(1) + LOADED, "reaches for lane 8"),
    "threads differ": ("mov.u32 %r52, %laneid; add.u32 %r51, %r51, %r52;\n" + load(1) + LOADED, "different addresses"),
    "outside": (f"add.u32 %r51, %r51, 510;\n{load(4)}" + LOADED, "outside the allocation"),
    "some threads": (
        "setp.lt.u32 %p0, %r60, 1; mov.u32 %r52, %laneid; setp.lt.u32 %p0, %r52, 5;\n@%p0 " + load(1),
        "part of a warp",
    ),
    "used before the wait": (store(1) + STORED + load(1) + "add.u32 %v0, %v0, 1;\n" + LOADED, "in flight"),
    "written before the wait": (
        store(1) + STORED + load(1) + "mov.b32 %v0, 1;\n" + LOADED,
        "written while it is in flight",
    ),
    "never awaited": (store(1) + STORED + load(1), "in flight"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_loads(name):
    body, message = FAULTS[name]
    with pytest.raises(Fault, match=message):
        execute(body, {"u0": np.zeros(128, "u4")}, {f"v{i}": "u4" for i in range(4)})


PACK = "mov.b64 %d1, {%v0, %v1};\n"


def test_a_copy_before_the_wait_is_made_behind_it_with_a_warning():
    """As in code that Triton compiles; the manual does not allow it."""
    values, stats = numbers(2), {}
    body = store(2) + STORED + load(2) + PACK + "mov.b64 %d2, %d1;\n" + LOADED + "mov.b64 {%w1, %w0}, %d2;\n"
    inputs = {f"u{i}": np.ascontiguousarray(values[:, i]) for i in range(2)}
    outputs = dict.fromkeys(("v0", "v1", "w0", "w1"), "u4")
    got = execute(body, inputs, outputs, strict=False, stats=stats)
    np.testing.assert_array_equal(np.stack([got["w1"], got["w0"]], 1), values)
    assert any("in flight is copied" in text for text in stats["warnings"])
    with pytest.raises(Fault, match="in flight is copied"):
        execute(body, inputs, outputs)


@pytest.mark.parametrize("use", ["add.u64 %d3, %d1, 1;\n", "mov.b64 {%v0, %w0}, %d4;\n"])
def test_such_a_copy_may_not_be_used_nor_its_source_changed(use):
    body = store(2) + STORED + load(2) + PACK + use + LOADED
    with pytest.raises(Fault, match="in flight"):
        execute(body, {f"u{i}": np.zeros(128, "u4") for i in range(2)},
                dict.fromkeys(("v0", "v1", "w0"), "u4"), strict=False)  # fmt: skip


ALLOC = "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r63], {};\n"
FREE = "tcgen05.dealloc.cta_group::1.sync.aligned.b32 {}, {};\n"
RELINQUISH = "tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;\n"


def allocate(body: str, threads: int = 32) -> None:
    run(f"{ADDRESS}\n" + body, {}, {}, threads=threads, arch=100, shared=64)


def test_columns_may_be_taken_and_given_back_in_any_order():
    take = [ALLOC.format(n) + f"ld.shared.b32 %r{i}, [%r63];\nbar.warp.sync -1;\n" for i, n in enumerate((32, 64, 256))]
    again = ALLOC.format(64) + "ld.shared.b32 %r3, [%r63];\nsetp.ne.u32 %p0, %r3, %r1;\n@%p0 st.shared.b32 [%r3], 0;\n"
    end = "".join(FREE.format(f"%r{i}", n) for i, n in ((0, 32), (2, 256), (3, 64)))
    allocate("".join(take) + FREE.format("%r1", 64) + again + RELINQUISH + end)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (ALLOC.format(48), "power of two"),
        (ALLOC.format(1024), "power of two"),
        (ALLOC.format(512) + ALLOC.format(32), "used up"),
        (RELINQUISH + ALLOC.format(32), "permit"),
        (ALLOC.format(64) + FREE.format("0", 32), "not held like this"),
        (FREE.format("0", 32), "not held like this"),
        (ALLOC.format(32), "still holds tensor memory"),
        ("mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 5;\n@%p0 " + ALLOC.format(32), "part of a warp"),
    ],
)
def test_faults_of_allocations(body, message):
    with pytest.raises(Fault, match=message):
        allocate(body)


@pytest.mark.parametrize("barrier", ["bar.sync 0;\n", ""])
def test_other_warps_read_the_address_behind_a_barrier(barrier):
    """The allocating warp may read it at once, another one must not."""
    expected = nullcontext() if barrier else pytest.raises(Fault, match=r"read by warp 1 .* unordered")
    body = "mov.u32 %r0, %warpid; setp.eq.u32 %p0, %r0, 0;\n@%p0 " + ALLOC.format(32)
    body += "@%p0 ld.shared.b32 %r1, [%r63];\n" + barrier + "ld.shared.b32 %r1, [%r63];\n"
    with expected:
        allocate(body + "@%p0 " + FREE.format("%r1", 32), threads=64)


def test_two_warps_may_not_allocate_at_once():
    with pytest.raises(Fault, match="more than one warp"):
        allocate(ALLOC.format(32), threads=64)


# Products


DONE = COMMIT + wait(BAR, 0, "MULTIPLIED") + AFTER


def multiply(body: str, m: int, n: int, a: Operand, b: Operand, instruction: int, inputs: dict | None = None,
             k: int = 0, **options: Any) -> np.ndarray:  # fmt: skip
    """Fill shared memory with A and B, run the body, load D (m, n) from column 0 on: one row per lane, or 16 of 32."""
    image = np.zeros(SIZE, "u1")
    a.place(image)
    b.place(image)
    given = {"da": np.uint64(a.descriptor("tcgen05", k)), "db": np.uint64(b.descriptor("tcgen05", k)),
             "form": np.uint32(instruction)}  # fmt: skip
    text = fill("data", SIZE, 128) + "\n" + begin(BAR) + START + body
    step = min(n, 64)
    text += "".join(
        f"add.u32 %r52, %r51, {at};\n" + load(step, address="%r52", name=f"v{at}_") for at in range(0, n, step)
    )
    outputs = {f"v{at}_{i}": "f4" for at in range(0, n, step) for i in range(step)}
    got = execute(text + LOADED + BEFORE, given | (inputs or {}), outputs, memory={"data": image}, **options)
    lanes = np.stack([got[f"v{at}_{i}"] for at in range(0, n, step) for i in range(step)], 1)
    return lanes if m == 128 else lanes.reshape(4, 2, 16, n)[:, options.get("lane", 0) // 16].reshape(64, n)


@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("width", [0, 32, 64, 128])
def test_operands_in_every_layout(width, transposed):
    left, right, a, b = operands(128, 64, width, transposed)
    got = multiply(mma() + DONE, 128, 64, a, b, form(128, 64, transposed=transposed))
    np.testing.assert_array_equal(got, left @ right.T)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize(("m", "n"), [(64, 8), (64, 64), (64, 256), (128, 16), (128, 128), (128, 256)])
def test_shapes_and_kinds(m, n, kind):
    left, right, a, b = operands(m, n, 32, kind=kind)
    got = multiply(mma() + DONE, m, n, a, b, form(m, n, kind))
    np.testing.assert_array_equal(got, left @ right.T)


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
def test_products_of_one_accumulator_are_executed_in_turn(policy):
    left, right, a, b = operands(128, 64, 64, k=32)
    body = mma() + "add.u64 %d0, %da, 2; add.u64 %d1, %db, 2;\n" + mma(a="%d0", b="%d1", add="%p1") + DONE
    np.testing.assert_array_equal(multiply(body, 128, 64, a, b, form(128, 64), policy=policy, seed=1), left @ right.T)


@pytest.mark.parametrize("m", [64, 128])
def test_a_may_lie_in_tensor_memory(m):
    """Row r of A lies in the lane of row r of D, two columns of K in each column."""
    left, right, a, b = operands(m, 32)
    rows = np.arange(128) if m == 128 else np.concatenate([16 * w + np.arange(32) % 16 for w in range(4)])
    words = np.ascontiguousarray(bits(left)[rows]).view("u4")
    put = (
        "add.u32 %r53, %r51, 256; add.u32 %r54, %r50, 256;\n"
        + store(8, address="%r53")
        + STORED
        + BEFORE
        + "bar.sync 0;\n"
        + AFTER
    )
    got = multiply(
        put + mma(a="[%r54]") + DONE, m, 32, a, b, form(m, 32), {f"u{i}": words[:, i].copy() for i in range(8)}
    )
    np.testing.assert_array_equal(got, left @ right.T)


def test_64_rows_may_begin_at_lane_16():
    left, right, a, b = operands(64, 32)
    upper = "add.u32 %r53, %r50, 0x100000;\n" + mma("%r53") + DONE + "add.u32 %r51, %r51, 0x100000;\n"
    image = np.zeros(SIZE, "u1")
    a.place(image)
    b.place(image)
    given = {
        "da": np.uint64(a.descriptor("tcgen05")),
        "db": np.uint64(b.descriptor("tcgen05")),
        "form": np.uint32(form(64, 32)),
    }
    text = fill("data", SIZE, 128) + "\n" + begin(BAR) + START + upper + load(16, 16) + LOADED + BEFORE
    got = execute(text, given, {f"v{i}": "f4" for i in range(16)}, memory={"data": image})
    want = left @ right.T
    for thread, i in np.ndindex(128, 16):
        warp, t = divmod(thread, 32)
        assert got[f"v{i}"][thread] == want[16 * warp + t % 16, i + 16 * (t // 16)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("add.u32 %r53, %r50, 0x100000;\n" + mma("%r53") + DONE, "begins at lane 16"),
        (mma(b="%da").replace("%da, %da", "%da, %d0") + DONE, "points outside|Unsupported"),
        ("add.u32 %r53, %r50, 480;\n" + mma("%r53") + DONE, "outside the allocation"),
        (mma() + COMMIT.replace("@%p7", "@%p3") + wait(BAR, 0, "X"), "deadlock|another thread"),
        (
            "mov.u32 %r53, %tid.x; setp.eq.u32 %p3, %r53, 1;\n"
            + mma()
            + COMMIT.replace("@%p7", "@%p3")
            + wait(BAR, 0, "X"),
            "another thread",
        ),
    ],
)
def test_faults_of_products(body, message):
    _, _, a, b = operands(128, 64)
    body = f"mov.b64 %d0, {hex(b.descriptor('tcgen05') | 0x3FFF)};\nsetp.eq.u32 %p3, 1, 0;\n" + body
    with pytest.raises(Fault, match=message):
        multiply(body, 128, 64, a, b, form(128, 64))


@pytest.mark.parametrize(
    "change",
    [1 << 3, 1 << 2, 1 << 13, 1 << 14, 2 << 4, 2 << 7, 1 << 23, 1 << 30, 3 << 24, 1 << 17],
    ids=[
        "saturate",
        "sparse",
        "negative A",
        "negative B",
        "another D",
        "another A",
        "reserved",
        "shift",
        "another M",
        "another N",
    ],
)
def test_other_instruction_descriptors_are_refused(change):
    _, _, a, b = operands(128, 64)
    with pytest.raises(Unsupported, match="instruction descriptor"):
        multiply(mma() + DONE, 128, 64, a, b, form(128, 64) ^ change)


@pytest.mark.parametrize("change", [1 << 46, 1 << 52, 1 << 49, 1 << 14, 7 << 61, 1 << 61], ids=hex)
def test_other_matrix_descriptors_are_refused(change):
    _, _, a, b = operands(128, 64, 32)
    with pytest.raises(Unsupported, match=r"tcgen05.mma with the"):
        multiply(f"xor.b64 %db, %db, {change};\n" + mma() + DONE, 128, 64, a, b, form(128, 64))


@pytest.mark.parametrize(
    "text",
    [
        "tcgen05.alloc.cta_group::2.sync.aligned.shared::cta.b32 [%r63], 32;",
        "tcgen05.alloc.cta_group::1.sync.aligned.b32 [%r63], 32;",
        "tcgen05.ld.sync.aligned.16x64b.x1.b32 {%r0}, [%r51];",
        "tcgen05.ld.sync.aligned.32x32b.x2.b32 {%r0}, [%r51];",
        "tcgen05.ld.sync.aligned.32x32b.x1.pack::16b.b32 {%r0}, [%r51];",
        "tcgen05.ld.red.sync.aligned.32x32b.x2.b32 {%r0, %r1}, [%r51];",
        "tcgen05.st.sync.aligned.32x32b.x1.unpack::16b.b32 [%r51], {%r0};",
        "tcgen05.cp.cta_group::1.128x256b [%r50], %d0;",
        "tcgen05.shift.cta_group::1.down [%r50];",
        "tcgen05.mma.cta_group::2.kind::f16 [%r50], %d0, %d0, %r0, %p0;",
        "tcgen05.mma.cta_group::1.kind::tf32 [%r50], %d0, %d0, %r0, %p0;",
        "tcgen05.mma.cta_group::1.kind::f16 [%r50], %d0, %d0, %r0, %p0, 1;",
        "tcgen05.mma.ws.cta_group::1.kind::f16 [%r50], %d0, %d0, %r0, %p0;",
        "tcgen05.mma.sp.cta_group::1.kind::f16 [%r50], %d0, %d0, [%r50], %r0, %p0;",
        "tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.multicast::cluster.b64 [%r63], %h0;",
        "tcgen05.wait::ld.sync;",
    ],
)
def test_other_forms_are_refused_by_name(text):
    with pytest.raises(Unsupported, match="tcgen05"):
        execute(
            "mov.b32 %r0, 0; mov.b32 %r1, 0; mov.b64 %d0, 0; mov.b16 %h0, 0; setp.eq.u32 %p0, 0, 0;\n" + text + "\n",
            {},
            {},
        )
