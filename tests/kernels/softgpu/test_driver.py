"""The pretended GPU's driver: arguments of every kind, several devices, refusals, and Triton as it was afterwards."""

from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.compiler.compiler import max_shared_mem
from triton.tools.tensor_descriptor import TensorDescriptor

from tests.softgpu.arguments import memory_of, pack, scalar
from tests.softgpu.driver import SHARED_LIMIT, SoftGPU, pretend
from tests.softgpu.parse import Unsupported, parse
from tests.softgpu.state import Fault


@triton.jit
def probe(whole_ptr, real_ptr, n, x, flag, maybe_ptr, pair, N: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store every argument."""
    tl.store(whole_ptr, n)
    tl.store(whole_ptr + 1, tl.where(flag, 7, 8))
    tl.store(whole_ptr + 2, pair[0] * N)
    tl.store(real_ptr, x)
    tl.store(real_ptr + 1, pair[1])
    if maybe_ptr is not None:
        tl.store(maybe_ptr, 5)


@triton.jit
def add(a_ptr, b_ptr, out_ptr, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    tl.store(out_ptr + at, tl.load(a_ptr + at, mask=live) + tl.load(b_ptr + at, mask=live), mask=live)


@triton.jit
def copy_tile(source, out_ptr, row, column, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    tile = source.load([row, column])
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    tl.store(out_ptr + rows[:, None] * COLUMNS + columns[None, :], tile)


@triton.jit
def store_tile(target, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    target.store([0, 0], tl.zeros([ROWS, COLUMNS], tl.float16))


def sum_of(gpu: SoftGPU, count: int = 40, block: int = 32) -> bool:
    """Whether one launch of `add` is right."""
    a, b, out = torch.arange(count), torch.arange(count) * 100, torch.zeros(count, dtype=torch.int64)
    launches = len(gpu.log)
    add[(triton.cdiv(count, block),)](a, b, out, count, BLOCK=block, num_warps=1)
    return torch.equal(out, a + b) and len(gpu.log) == launches + 1


@pytest.mark.parametrize("n", [0, 1, 16, 17, -5, 2**31, -(2**40), 2**63])
@pytest.mark.parametrize(("x", "flag", "given"), [(0.1, True, False), (-3.0, False, True)])
def test_arguments_arrive(n: int, x: float, flag: bool, given: bool) -> None:
    """Triton makes constants of 1 and None, and other types of wide numbers: each is another compilation."""
    whole, real = torch.zeros(3, dtype=torch.uint64 if n == 2**63 else torch.int64), torch.zeros(2)
    maybe = torch.zeros(1, dtype=torch.int32) if given else None
    with pretend(80):
        probe[(1,)](whole, real, n, x, flag, maybe, (n % 1000 + 2, x / 2), N=3, num_warps=1)
    assert whole.tolist() == [n, 7 if flag else 8, 3 * (n % 1000 + 2)]
    assert real.tolist() == [torch.tensor(x).item(), torch.tensor(x / 2).item()]
    assert maybe is None or maybe.item() == 5


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("i1", True, b"\1"),
        ("i32", -2, b"\xfe\xff\xff\xff"),
        ("u32", 2**32 - 1, b"\xff" * 4),
        ("i64", -1, b"\xff" * 8),
        ("fp16", 1.5, np.float16(1.5).tobytes()),
        ("bf16", 1.5, b"\xc0\x3f"),
        ("fp32", 0.1, np.float32(0.1).tobytes()),
        ("fp64", 0.1, np.float64(0.1).tobytes()),
    ],
)
def test_scalars_are_little_endian(kind: str, value: float, expected: bytes) -> None:
    assert scalar(kind, value) == expected


def test_scalars_that_do_not_fit() -> None:
    with pytest.raises(OverflowError):
        scalar("i32", 2**40)
    with pytest.raises(Unsupported, match="type fp8"):
        scalar("fp8", 1.0)
    with pytest.raises(Unsupported, match="4 bytes for the parameter a of 8"):
        pack({"a": ("u64", 8)}, [b"1234"])


def test_parameters_without_an_argument_are_null() -> None:
    parameters = {"a": ("u32", 4), "scratch": ("u64", 8)}
    assert pack(parameters, [b"1234"]) == {"a": b"1234", "scratch": bytes(8)}


@pytest.mark.parametrize("arch", [80, 90])
def test_descriptors(arch: int) -> None:
    """A tile over the edge. On sm_90 the copy engine takes a tensor map, on sm_80 the kernel a pointer and sizes."""
    source, out = torch.randn(20, 48).to(torch.float16), torch.zeros(16, 32, dtype=torch.float16)
    descriptor = TensorDescriptor.from_tensor(source, [16, 32])
    with pretend(arch) as gpu:
        copy_tile[(1,)](descriptor, out, 10, 32, ROWS=16, COLUMNS=32, num_warps=1)
    expected = torch.zeros(16, 32, dtype=torch.float16)
    expected[:10, :16] = source[10:, 32:]
    assert torch.equal(out, expected)
    assert ("cp.async.bulk.tensor" in gpu.log[0]["ptx"]) == (arch == 90)


@pytest.mark.parametrize(("name", "value"), [("padding", "nan"), ("round_f32_to_tf32", True)])
def test_descriptors_of_other_kinds_are_refused(name: str, value: Any) -> None:
    descriptor = TensorDescriptor.from_tensor(torch.zeros(20, 48), [16, 32])
    setattr(descriptor, name, value)
    with pretend(90), pytest.raises(Unsupported, match="a descriptor with"):
        copy_tile[(1,)](descriptor, torch.zeros(16, 32), 0, 0, ROWS=16, COLUMNS=32, num_warps=1)


def test_a_descriptor_lies_at_a_multiple_of_16_bytes() -> None:
    descriptor = TensorDescriptor.from_tensor(torch.zeros(20, 48), [16, 32])
    descriptor.base = torch.zeros(20 * 48 + 1)[1:].view(20, 48)
    with pretend(90), pytest.raises(Fault, match="multiples of 16 bytes"):
        copy_tile[(1,)](descriptor, torch.zeros(16, 32), 0, 0, ROWS=16, COLUMNS=32, num_warps=1)


def test_devices_in_turn() -> None:
    """Each gets code of its own, and none is compiled or translated again."""
    codes = {}
    for arch in (80, 90, 100, 80, 90, 100):
        with pretend(arch, multiprocessors=3) as gpu:
            assert sum_of(gpu)
            assert max_shared_mem(gpu.get_current_device()) == SHARED_LIMIT[arch]
        text = gpu.log[0]["ptx"]
        assert f".target sm_{arch}" in text
        assert codes.setdefault(arch, parse(text)) is parse(text)
    assert len(set(codes.values())) == 3


def test_nested_devices() -> None:
    with pretend(80) as outer:
        with pretend(90) as inner:
            assert sum_of(inner)
        assert sum_of(outer)
    assert [".target sm_80" in r["ptx"] for r in outer.log] == [True]
    assert [".target sm_90" in r["ptx"] for r in inner.log] == [True]


def test_log_of_a_launch() -> None:
    with pretend(80, seed=3) as gpu:
        assert sum_of(gpu, 100)
    (record,) = gpu.log
    assert (record["kernel"], record["grid"], record["blocks"]) == ("add", (4, 1, 1), 4)
    assert record["steps"] > 0
    assert min(record["seconds"], record["cpu"]) > 0


def test_an_empty_grid_is_no_launch() -> None:
    with pretend(80) as gpu:
        add[(0,)](*torch.zeros(3, 1, dtype=torch.int64), 0, BLOCK=32, num_warps=1)
    assert gpu.log == []


def test_launch_hooks_are_called() -> None:
    seen: list[str] = []
    runtime = triton.knobs.runtime
    enter, leave = (lambda data: seen.append("enter"), lambda data: seen.append("leave"))
    runtime.launch_enter_hook.add(enter)
    runtime.launch_exit_hook.add(leave)
    try:
        with pretend(80) as gpu:
            assert sum_of(gpu)
    finally:
        runtime.launch_enter_hook.remove(enter)
        runtime.launch_exit_hook.remove(leave)
    assert seen == ["enter", "leave"]


def test_edited_code_runs_and_is_translated_apart() -> None:
    with pretend(80) as gpu:
        gpu.edit = lambda text: text.replace("add.s64 \t%rd", "sub.s64 \t%rd")  # type: ignore[method-assign]
        a, out = torch.arange(8), torch.zeros(8, dtype=torch.int64)
        with pytest.raises(Fault):  # the addresses are sums, too
            add[(1,)](a, a, out, 8, BLOCK=32, num_warps=1)
        gpu.edit = lambda text: text  # type: ignore[method-assign]
        assert sum_of(gpu)


def test_triton_is_as_it_was_after_an_error() -> None:
    """A fault in a kernel ends the launch, not the pretended device; leaving that by an error restores Triton."""
    active, runtime = triton.runtime.driver, triton.knobs.runtime
    before = active._active, runtime.add_stages_inspection_hook
    a = torch.zeros(8, dtype=torch.int64)

    def fail() -> None:
        with pretend(80) as gpu:
            with pytest.raises(Fault, match="out of bounds"):
                add[(1,)](a, a, a, 9, BLOCK=32, num_warps=1)
            assert gpu.log == []
            assert sum_of(gpu)
            assert active.active is gpu
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert (active._active, runtime.add_stages_inspection_hook) == before


def test_another_hook_on_the_stages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.runtime, "add_stages_inspection_hook", lambda *_: ("", ""))
    with pytest.raises(Unsupported, match="another hook"), pretend(80):
        pass


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(Unsupported, match="sm_70; there are sm_80, sm_90, sm_100"), pretend(70):
        pass
    with pretend(80) as gpu, pytest.raises(Unsupported, match="device 90; this one is 80"):
        gpu.set_current_device(90)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_ctas": 2}, "clusters"),
        ({"launch_pdl": True}, "dependent"),
        ({"launch_cooperative_grid": True}, "cooperative"),
    ],
)
def test_launches_of_other_kinds_are_refused(options: dict[str, Any], name: str) -> None:
    a = torch.zeros(32, dtype=torch.int64)
    with pretend(90) as gpu, pytest.raises(Unsupported, match=name):
        add[(1,)](a, a, a, 32, BLOCK=32, num_warps=1, **options)
    assert gpu.log == []


def test_tma_stores_are_refused() -> None:
    target = TensorDescriptor.from_tensor(torch.zeros(16, 32, dtype=torch.float16), [16, 32])
    with pretend(90), pytest.raises(Unsupported, match=r"cp\.async\.bulk\.tensor"):
        store_tile[(1,)](target, ROWS=16, COLUMNS=32, num_warps=1)


def test_pointers_are_cpu_tensors() -> None:
    a = torch.zeros(32, dtype=torch.int64)
    elsewhere = torch.zeros(32, dtype=torch.int64, device="meta")
    with pretend(80), pytest.raises(Unsupported, match="no CPU tensor"):
        add[(1,)](a, elsewhere, a, 32, BLOCK=32, num_warps=1)


def test_views_of_one_memory_are_one_allocation() -> None:
    """Slices of a tensor share its storage; those of a NumPy array have storages that overlap."""
    array = np.arange(40, dtype=np.int64)
    a, b = torch.from_numpy(array[:30]), torch.from_numpy(array[10:])
    memory = memory_of([a, b, a[3:], torch.zeros(4), torch.zeros(0)])
    sizes = sorted(allocation.size for allocation in memory.allocations)
    assert sizes == [16, 320]
    assert memory.find(b.data_ptr()) is memory.find(a.data_ptr())
