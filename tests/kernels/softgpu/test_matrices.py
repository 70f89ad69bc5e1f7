"""mma.sync, ldmatrix and stmatrix: fragments as the PTX manual's tables have them, written out here once more."""

import numpy as np
import pytest
import torch

from tests.softgpu.harness import run
from tests.softgpu.parse import Unsupported
from tests.softgpu.snippets import dump, fill
from tests.softgpu.state import Fault

KINDS = {"f16": torch.float16, "bf16": torch.bfloat16}
MMA = "mma.sync.aligned.m16n8k16.row.col.f32.{0}.{0}.f32 "
MMA += "{{%d0, %d1, %d2, %d3}}, {{%a0, %a1, %a2, %a3}}, {{%b0, %b1}}, {{%c0, %c1, %c2, %c3}};"


def bits(numbers: np.ndarray, kind: str) -> np.ndarray:
    """Halves as 16-bit patterns."""
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(KINDS[kind]).view(torch.int16).numpy().view(np.uint16)


def pairs(fragment: np.ndarray) -> np.ndarray:
    """(threads, 2 n) halves -> n registers (threads,), the first half in the low bits."""
    return np.ascontiguousarray(fragment).view(np.uint32).T


def multiply(a: np.ndarray, b: np.ndarray, c: np.ndarray, kind: str, **options: int) -> np.ndarray:
    """a (warps, 16, 16), b (warps, 16, 8), c (warps, 16, 8) in the manual's fragments; returns d."""
    warps = len(a)
    left, right, third = (np.zeros((32 * warps, n), t) for n, t in ((8, "u2"), (4, "u2"), (4, "f4")))
    a, b = bits(a, kind), bits(b, kind)
    places = []
    for thread in range(32 * warps):
        warp, group, place = thread // 32, thread % 32 // 4, thread % 4
        for i in range(8):
            row = group if i in (0, 1, 4, 5) else group + 8
            left[thread, i] = a[warp, row, place * 2 + i % 2 + (8 if i >= 4 else 0)]
        for i in range(4):
            right[thread, i] = b[warp, place * 2 + i % 2 + (8 if i >= 2 else 0), group]
            where = warp, group + (8 if i >= 2 else 0), place * 2 + i % 2
            third[thread, i] = c[where]
            places.append((thread, i, where))
    inputs = {f"a{i}": r for i, r in enumerate(pairs(left))} | {f"b{i}": r for i, r in enumerate(pairs(right))}
    inputs |= {f"c{i}": np.ascontiguousarray(third[:, i]) for i in range(4)}
    got = run(MMA.format(kind), inputs, {f"d{i}": "f4" for i in range(4)}, threads=32 * warps, **options)
    d = np.zeros((warps, 16, 8), np.float32)
    for thread, i, where in places:
        d[where] = got[f"d{i}"][thread]
    return d


@pytest.mark.parametrize("kind", KINDS)
def test_mma_multiplies_the_fragments_of_the_manual(kind):
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-8, 9, shape).astype("f4") for shape in ((2, 16, 16), (2, 16, 8), (2, 16, 8)))
    np.testing.assert_array_equal(multiply(a, b, c, kind), a @ b + c)


@pytest.mark.parametrize("kind", KINDS)
def test_mma_of_any_numbers_is_within_fp32_of_the_exact_product(kind):
    rng = np.random.default_rng(1)
    a, b, c = (rng.normal(size=shape).astype("f4") for shape in ((1, 16, 16), (1, 16, 8), (1, 16, 8)))
    a, b = (torch.from_numpy(x).to(KINDS[kind]).double().numpy() for x in (a, b))
    size = np.abs(a) @ np.abs(b) + np.abs(c)
    assert (np.abs(multiply(a, b, c, kind) - (a @ b + c.astype("f8"))) <= 17 * 2**-24 * size).all()


def test_mma_takes_infinities_and_nan_as_arithmetic_does():
    a, b, c = np.zeros((1, 16, 16), "f4"), np.ones((1, 16, 8), "f4"), np.zeros((1, 16, 8), "f4")
    a[0, 1, 2], a[0, 2, 3], a[0, 3, 4], a[0, 3, 5] = np.inf, np.nan, np.inf, -np.inf
    c[0, 4, 0] = np.inf
    d = multiply(a, b, c, "bf16")[0]
    assert (d[1] == np.inf).all()
    assert np.isnan(d[2:4]).all()
    assert d[4, 0] == np.inf
    assert (d[4, 1:] == 0).all()
    assert (d[0] == 0).all()


def test_mma_keeps_denormal_halves():
    a, b = np.zeros((1, 16, 16), "f4"), np.zeros((1, 16, 8), "f4")
    a[0, :, 0], b[0, 0] = 2.0**-24, 1
    assert (multiply(a, b, np.zeros((1, 16, 8), "f4"), "f16") == 2.0**-24).all()


@pytest.mark.parametrize(
    "form",
    [
        "m16n8k8.row.col.f32.tf32.tf32.f32",
        "m16n8k16.row.col.f16.f16.f16.f16",
        "m16n8k16.col.col.f32.f16.f16.f32",
        "m16n8k16.row.col.f32.f16.bf16.f32",
        "m16n8k16.row.col.satfinite.f32.f16.f16.f32",
    ],
)
def test_other_products_are_refused_by_name(form):
    text = MMA.replace("m16n8k16.row.col.f32.{0}.{0}.f32", form).format()
    inputs = {f"{n}{i}": np.zeros(32, "u4") for n, count in (("a", 4), ("b", 2), ("c", 4)) for i in range(count)}
    with pytest.raises(Unsupported, match="mma"):
        run(text, inputs, {f"d{i}": "f4" for i in range(4)})


def matrices(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random matrices (count, 8, 8), each row at a place of its own in shared memory; addresses (32,) of the rows."""
    rng = np.random.default_rng(2)
    places = rng.permutation(64)[:32] * 16
    return rng.integers(0, 1 << 16, (count, 8, 8), dtype="u2"), places


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_gives_each_thread_its_two_elements(count, transposed):
    values, places = matrices(count)
    memory = np.zeros(1024, "u1")
    for i in range(8 * count):
        memory[places[i] : places[i] + 16] = values[i // 8, i % 8].view("u1")
    registers = ", ".join(f"%v{i}" for i in range(count))
    name = f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16"
    body = fill("data", 1024, 32) + f"add.u32 %r0, %r63, %place; {name} {{{registers}}}, [%r0];"
    got = run(body, {"place": places.astype("u4")}, {f"v{i}": "u4" for i in range(count)},
              memory={"data": memory}, shared=1024)  # fmt: skip
    for i in range(count):
        matrix = values[i].T if transposed else values[i]
        for thread in range(32):
            low, high = (int(matrix[thread // 4, 2 * (thread % 4) + k]) for k in range(2))
            assert got[f"v{i}"][thread] == low | high << 16


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_stmatrix_stores_what_ldmatrix_loads(count, transposed):
    values, places = matrices(count)
    inputs = {"place": places.astype("u4")}
    for i in range(count):
        matrix = values[i].T if transposed else values[i]
        halves = [[matrix[t // 4, 2 * (t % 4) + k] for k in range(2)] for t in range(32)]
        inputs[f"v{i}"] = np.array(halves, "u2").view("u4").reshape(-1)
    registers = ", ".join(f"%v{i}" for i in range(count))
    name = f"stmatrix.sync.aligned.m8n8.x{count}{'.trans' if transposed else ''}.shared.b16"
    out = np.zeros(1024, "u1")
    body = (
        fill("zeros", 1024, 32) + f"add.u32 %r0, %r63, %place; {name} [%r0], {{{registers}}};" + dump("out", 1024, 32)
    )
    run(body, inputs, {}, memory={"zeros": np.zeros(1024, "u1"), "out": out}, shared=1024)
    want = np.zeros(1024, "u1")
    for i in range(8 * count):
        want[places[i] : places[i] + 16] = values[i // 8, i % 8].view("u1")
    np.testing.assert_array_equal(out, want)


LOAD = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%v}, [%r0];"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("mov.u32 %r0, global_smem; add.u32 %r0, %r0, 8;" + LOAD, "not a multiple of 16"),
        ("mov.u32 %r0, global_smem; add.u32 %r0, %r0, 1024;" + LOAD, "out of bounds"),
        ("mov.u32 %r0, %tid.x; setp.lt.u32 %p0, %r0, 16; mov.u32 %r0, global_smem; @%p0 " + LOAD, "part of a warp"),
    ],
)
def test_ldmatrix_checks_addresses_and_threads(body, message):
    with pytest.raises(Fault, match=message):
        run(body, {"v": np.zeros(32, "u4")}, {"v": "u4"}, shared=1024)


@pytest.mark.parametrize(
    "form",
    [
        "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%v}",
        "ldmatrix.sync.aligned.m8n8.x1.b16 {%v}",
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%v}",
    ],
)
def test_other_loads_of_matrices_are_refused_by_name(form):
    with pytest.raises(Unsupported, match="ldmatrix"):
        run(f"mov.u32 %r0, global_smem; {form}, [%r0];", {"v": np.zeros(32, "u4")}, {"v": "u4"}, shared=1024)


def test_two_warps_that_load_what_the_other_stores_race():
    place = "mov.u32 %r2, global_smem; mov.u32 %r0, %tid.x; and.b32 %r0, %r0, 7; shl.b32 %r0, %r0, 4;"
    place += "add.u32 %r0, %r0, %r2;"
    store = place + "{0} stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r0], {{%v}};"
    ask = "mov.u32 %r1, %tid.x; setp.lt.u32 %p0, %r1, 32;"
    options = {"threads": 64, "shared": 1024}
    right = ask + store.format("@%p0") + "bar.sync 0;" + LOAD
    got = run(right, {"v": np.arange(64, dtype="u4")}, {"v": "u4"}, **options)
    np.testing.assert_array_equal(got["v"], np.tile(np.arange(32), 2))
    with pytest.raises(Fault, match="race"):
        run(right.replace("bar.sync 0;", ""), {"v": np.arange(64, dtype="u4")}, {"v": "u4"}, **options)


def test_rows_of_a_stmatrix_that_differ_at_one_place_are_a_fault():
    body = "mov.u32 %r0, global_smem; stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r0], {%v};"
    with pytest.raises(Fault, match="differ"):
        run(body, {"v": np.arange(32, dtype="u4")}, {"v": "u4"}, shared=1024)
    run(body, {"v": np.zeros(32, "u4")}, {"v": "u4"}, shared=1024)
