"""wgmma: operands in every layout, accumulators, and what may not be done while it runs."""

import numpy as np
import pytest
import torch

from tests.softgpu.harness import run
from tests.softgpu.operands import Operand, small
from tests.softgpu.parse import Unsupported
from tests.softgpu.snippets import fill
from tests.softgpu.state import Fault

SIZE = 16384  # bytes of shared memory that a test fills
FENCE, COMMIT = "wgmma.fence.sync.aligned;\n", "wgmma.commit_group.sync.aligned;\n"
PROXY = "fence.proxy.async.shared::cta;\nbar.sync 0;\n"


def wait(left: int = 0) -> str:
    return f"wgmma.wait_group.sync.aligned {left};\n"


def bits(numbers: np.ndarray, kind: str = "bf16") -> np.ndarray:
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(dtype).view(torch.int16).numpy().view("u2")


def product(n: int, a: str = "%da", b: str = "%db", *, kind: str = "bf16", add: str = "0", transposed: str = "0, 0",
            d: str = "x", signs: str = "1, 1") -> str:  # fmt: skip
    registers = ", ".join(f"%{d}{i}" for i in range(n // 2))
    name = f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{kind}.{kind}"
    return f"{name} {{{registers}}}, {a}, {b}, {add}, {signs}, {transposed};\n"


def fragment(got: dict[str, np.ndarray], n: int, d: str = "x") -> np.ndarray:
    """D (64, n) out of the registers, by the manual's figure of the accumulator."""
    result = np.zeros((64, n), "f4")
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for i in range(n // 2):
            row = 16 * warp + lane // 4 + (8 if i & 2 else 0)
            result[row, i // 4 * 8 + lane % 4 * 2 + i % 2] = got[f"{d}{i}"][thread]
    return result


def execute(body: str, a: Operand, b: Operand, n: int, k: tuple[int, int] = (0, 0), more: dict | None = None,
            outputs: tuple[str, ...] = ("x",), **options: object) -> dict[str, np.ndarray]:  # fmt: skip
    """Fill shared memory with A and B, run the body with their descriptors in %da and %db; 0 in the accumulators."""
    image = np.zeros(SIZE, "u1")
    a.place(image)
    b.place(image)
    inputs = {"da": np.uint64(a.descriptor("wgmma", k[0])), "db": np.uint64(b.descriptor("wgmma", k[1]))}
    inputs |= {f"{d}{i}": np.float32(0) for d in outputs for i in range(n // 2)} | (more or {})
    results = {f"{d}{i}": "f4" for d in outputs for i in range(n // 2)}
    text = fill("data", SIZE, 128) + "\n" + PROXY + body
    return run(text, inputs, results, threads=128, shared=SIZE, memory={"data": image}, **options)


def operands(rng: np.random.Generator, n: int, width: int = 128, transposed: tuple[bool, bool] = (False, False),
             columns: int = 16) -> tuple[np.ndarray, np.ndarray, Operand, Operand]:  # fmt: skip
    """Numbers A (64, columns) and B (n, columns), and where they lie."""
    left, right = small(rng, 64, columns), small(rng, n, columns)
    a = Operand(bits(left), width, transposed[0])
    return left, right, a, Operand(bits(right), width, transposed[1], start=8192)


@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("width", [0, 32, 64, 128])
def test_operands_in_every_layout(width, transposed):
    left, right, a, b = operands(np.random.default_rng(width), 64, width, transposed)
    order = ", ".join(str(int(t)) for t in transposed)
    got = execute(FENCE + product(64, transposed=order) + COMMIT + wait(), a, b, 64)
    np.testing.assert_array_equal(fragment(got, 64), left @ right.T)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("width", [32, 64, 128])
def test_later_columns_begin_inside_a_row_of_the_pattern(width, transposed):
    left, right, a, b = operands(np.random.default_rng(1), 64, width, (False, transposed), columns=64)
    got = execute(FENCE + product(64, transposed=f"0, {int(transposed)}") + COMMIT + wait(), a, b, 64, k=(3, 2))
    np.testing.assert_array_equal(fragment(got, 64), left[:, 48:] @ right[:, 32:48].T)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("n", [8, 24, 64, 128, 192, 256])
def test_shapes_and_kinds(n, kind):
    rng = np.random.default_rng(n)
    left, right = small(rng, 64, 16), small(rng, n, 16)
    a, b = Operand(bits(left, kind), 32, False), Operand(bits(right, kind), 32, False, start=8192)
    start = {f"x{i}": np.full(128, i, "f4") for i in range(n // 2)}
    got = execute(FENCE + product(n, kind=kind, add="1") + COMMIT + wait(), a, b, n, more=start)
    np.testing.assert_array_equal(fragment(got, n), left @ right.T + fragment(start, n))


def left_registers(left: np.ndarray) -> dict[str, np.ndarray]:
    """A (64, 16) in the four registers of the manual's figure."""
    halves, values = np.zeros((128, 8), "u2"), bits(left)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for i in range(8):
            row = 16 * warp + lane // 4 + (8 if i // 2 % 2 else 0)
            halves[thread, i] = values[row, lane % 4 * 2 + i % 2 + (8 if i >= 4 else 0)]
    return {f"a{i}": np.ascontiguousarray(r) for i, r in enumerate(halves.view("u4").T)}


A = "{%a0, %a1, %a2, %a3}"


def test_a_in_registers():
    left, right, a, b = operands(np.random.default_rng(3), 16, transposed=(False, True))
    body = FENCE + product(16, A, transposed="1") + COMMIT + wait()
    got = execute(body, a, b, 16, more=left_registers(left))
    np.testing.assert_array_equal(fragment(got, 16), left @ right.T)


@pytest.mark.parametrize("policy", ["eager", "lazy", "random"])
def test_products_in_flight_add_up_and_a_predicate_says_to_what(policy):
    left, right, a, b = operands(np.random.default_rng(4), 16, columns=32)
    body = "setp.eq.u32 %p0, 1, 0; setp.eq.u32 %p1, 1, 1; add.u64 %d0, %da, 2; add.u64 %d1, %db, 2;\n" + FENCE
    body += product(16, add="%p0") + product(16, "%d0", "%d1", add="%p1") + COMMIT + wait()
    got = execute(body, a, b, 16, more={f"x{i}": np.float32(100) for i in range(8)}, policy=policy, seed=3)
    np.testing.assert_array_equal(fragment(got, 16), left @ right.T)


def test_a_wait_leaves_the_newest_groups():
    left, right, a, b = operands(np.random.default_rng(5), 16)
    start = FENCE + product(16) + COMMIT + product(16, d="y") + COMMIT
    end = FENCE + wait()
    got = execute(start + wait(1) + "add.f32 %x0, %x0, 0f3F800000;\n" + end, a, b, 16, outputs=("x", "y"))
    np.testing.assert_array_equal(fragment(got, 16, "y"), left @ right.T)
    assert (fragment(got, 16) - left @ right.T).sum() == 128
    with pytest.raises(Fault, match="in flight"):
        execute(start + wait(1) + "add.f32 %y0, %y0, 0f3F800000;\n" + end, a, b, 16, outputs=("x", "y"))


CHANGE = "mov.b32 %x0, 0f3F800000;\n"
HAZARDS = {
    "no fence": (product(16) + COMMIT + wait(), "after the last wgmma.fence"),
    "accumulator set after the fence": (
        FENCE + CHANGE + product(16, add="1") + COMMIT + wait(),
        "after the last wgmma.fence",
    ),
    "A set after the fence": (
        FENCE + "mov.b32 %a0, 0;\n" + product(16, A, transposed="0") + COMMIT + wait(),
        "after the last wgmma.fence",
    ),
    "A changed in flight": (
        FENCE + product(16, A, transposed="0") + "mov.b32 %a0, 0;\n" + COMMIT + wait(),
        "changed while it is in flight",
    ),
    "accumulator read in flight": (FENCE + product(16) + COMMIT + "add.f32 %y0, %x0, %x0;\n" + wait(), "in flight"),
    "accumulator written in flight": (FENCE + product(16) + COMMIT + CHANGE + wait(), "written while it is in flight"),
    "not committed": (FENCE + product(16) + wait(), "in flight"),
    "A is an accumulator in flight": (
        FENCE + product(16) + product(16, "{%x0, %x1, %x2, %x3}", d="y", transposed="0") + COMMIT + wait(),
        "accumulator of one in flight",
    ),
    "another shape in flight": (FENCE + product(16) + product(8, add="1") + COMMIT + wait(), "another shape"),
    "threads differ in scale-d": (
        "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 32;\n" + FENCE + product(16, add="%p0") + COMMIT + wait(),
        "different values of scale-d",
    ),
    "threads differ in a descriptor": (
        "mov.u32 %r0, %tid.x; cvt.u64.u32 %d0, %r0; add.u64 %d0, %d0, %db;\n"
        + FENCE
        + product(16, b="%d0")
        + COMMIT
        + wait(),
        "different values of a descriptor",
    ),
    "some threads": (
        "mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 64;\n@%p0 bra SKIP;\n" + FENCE + "SKIP:\n",
        "whole warp group",
    ),
    "outside shared memory": (
        f"add.u64 %d0, %db, {SIZE >> 4};\n" + FENCE + product(16, b="%d0") + COMMIT + wait(),
        "outside shared memory",
    ),
}


@pytest.mark.parametrize("name", HAZARDS)
def test_hazards_of_registers_and_threads_are_faults(name):
    left, _, a, b = operands(np.random.default_rng(6), 16)
    body, message = HAZARDS[name]
    with pytest.raises(Fault, match=message):
        execute(body, a, b, 16, outputs=("x", "y"), more=left_registers(left))


def test_an_accumulator_without_a_value_is_a_fault():
    _, _, a, b = operands(np.random.default_rng(6), 8)
    body = (
        FENCE + "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f0, %f1, %f2, %f3}, %da, %db, {}, 1, 1, 0, 0;\n"
    )
    body = ".reg .f32 %f<4>;\n" + body + COMMIT + wait()
    execute(body.replace("{}", "0"), a, b, 8)
    with pytest.raises(Fault, match="read before it was written"):
        execute(body.replace("{}", "1"), a, b, 8)


STORE = "mov.u32 %r0, %tid.x; shl.b32 %r0, %r0, 2; mov.u32 %r1, global_smem;\n"
STORE += "add.u32 %r0, %r0, %r1; st.shared.b32 [%r0{}], %r0;\n"


@pytest.mark.parametrize("place", ["+8192", ""])
def test_shared_memory_may_not_change_under_a_product(place):
    _, _, a, b = operands(np.random.default_rng(7), 16)
    store, end = STORE.format(place), "bar.sync 0;\n"
    execute(FENCE + product(16) + COMMIT + wait() + end + store, a, b, 16)
    start = FENCE + product(16) + COMMIT
    for body in (start + store + wait(), start + wait(1) + end + store + wait(), start + wait() + store):
        with pytest.raises(Fault, match=r"race: write .* wgmma"):
            execute(body, a, b, 16)


def test_what_threads_store_needs_a_proxy_fence_and_a_barrier():
    _, _, a, b = operands(np.random.default_rng(8), 16)
    end = FENCE + product(16) + COMMIT + wait()
    execute(STORE.format("") + PROXY + end, a, b, 16)
    with pytest.raises(Fault, match=r"race: wgmma read .*: no proxy fence"):
        execute(STORE.format("") + "bar.sync 0;\n" + end, a, b, 16)
    with pytest.raises(Fault, match=r"race: wgmma read .*: unordered"):
        execute(STORE.format("") + "fence.proxy.async;\n" + end, a, b, 16)
    # A fence before the store is not enough, nor one of a thread that does not know of it yet.
    with pytest.raises(Fault, match="race: wgmma read"):
        execute("fence.proxy.async;\n" + STORE.format("") + "bar.sync 0;\n" + end, a, b, 16)


@pytest.mark.parametrize(("policy", "old"), [("eager", {True}), ("lazy", {False}), ("random", {True, False})])
@pytest.mark.parametrize("place", ["+8192", ""])
def test_policies_differ_in_when_operands_are_read(policy, old, place):
    left, right, a, b = operands(np.random.default_rng(9), 16)
    body = FENCE + product(16) + COMMIT + "bar.sync 0;\n" + STORE.format(place) + wait()
    found = set()
    for seed in range(8):
        got = execute(body, a, b, 16, policy=policy, seed=seed, races=False)
        found.add(np.array_equal(fragment(got, 16), left @ right.T))
    assert found == old


REFUSED = {
    "negative A": product(16, signs="-1, 1"),
    "a mixture": product(16).replace("bf16.bf16", "bf16.f16"),
    "tf32": product(16).replace("k16.f32.bf16.bf16", "k8.f32.tf32.tf32"),
    "fp16 accumulators": product(16).replace(".f32.bf16.bf16", ".f16.f16.f16"),
    "sparse": product(16).replace("mma_async", "mma_async.sp"),
    "264 columns": product(16).replace("n16", "n264"),
    "12 columns": product(16).replace("n16", "n12"),
    "registers of another shape": product(16).replace("n16", "n24"),
    "under a predicate": "@%p0 " + product(16),
    "waiting under a predicate": "@%p0 " + wait(),
    "A in registers, transposed": product(16, A, transposed="1, 0"),
    "transposed by 2": product(16, transposed="0, 2"),
    "base offset": "or.b64 %da, %da, 0x2000000000000;\n" + product(16),
    "reserved bits": "or.b64 %da, %da, 0x10000000000000;\n" + product(16),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_modelled_is_refused_by_name(name):
    left, _, a, b = operands(np.random.default_rng(10), 16)
    with pytest.raises(Unsupported, match="wgmma"):
        execute(
            "setp.eq.u32 %p0, 0, 0;\n" + FENCE + REFUSED[name] + COMMIT + wait(), a, b, 16, more=left_registers(left)
        )
