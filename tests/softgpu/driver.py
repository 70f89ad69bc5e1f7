"""A Triton driver that poses as a GPU: kernels are compiled for it as usual and their PTX runs on the CPU.

`with pretend(90) as gpu:` sends every `kernel[grid](...)` of CPU tensors through Triton's own binder, compiler and
cache, up to the launch. The stage that would call the assembler hands the PTX on instead, so none is needed.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import decompose_descriptor, expand_signature, wrap_handle_tensordesc_impl

from tests.softgpu.arguments import flat, memory_of, pack, scalar
from tests.softgpu.block import launch as launch_blocks
from tests.softgpu.memory import TensorMap
from tests.softgpu.parse import Unsupported, parse
from tests.softgpu.state import Fault

# Shared memory that one block may ask for: CUDA programming guide, table of compute capabilities.
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
MAX_THREADS = 1024
SWIZZLE = {0: 0, 1: 32, 2: 64, 3: 128}  # CUtensorMapSwizzle: bytes of the pattern's row
MAP = "map"  # what a tensor map is called in an expanded signature


@dataclass
class Described:
    """A tensor map as a launch argument, with the tensor that it lies on."""

    map: TensorMap
    base: torch.Tensor


def describe(descriptor: Any, meta: dict[str, Any] | None, _: Any) -> list[Any]:
    """A host-side descriptor as kernel arguments; without `meta` the kernel wants a plain pointer."""
    if meta is None:
        return decompose_descriptor(descriptor)
    asked = {name: meta.get(name) for name in ("fp4_padded", "is_im2col")}
    asked |= {"padding with NaN": descriptor.padding == "nan", "round_f32_to_tf32": descriptor.round_f32_to_tf32}
    if found := [name for name, value in asked.items() if value]:
        raise Unsupported(f"a descriptor with {', '.join(found)}")
    base, size = descriptor.base, meta["elem_size"]
    if base.data_ptr() % 16 or any(stride * size % 16 for stride in descriptor.strides[:-1]):
        raise Fault("a tensor map needs an address and strides that are multiples of 16 bytes")
    tensor_map = TensorMap(
        base.data_ptr(), tuple(descriptor.shape), tuple(descriptor.strides), tuple(meta["block_size"]), size,
        SWIZZLE[meta["swizzle"]],
    )  # fmt: skip
    return [Described(tensor_map, base), *descriptor.shape, *descriptor.strides]


class Utils:
    """What Triton asks about the device, and the loader of binaries, which here are PTX."""

    def __init__(self, arch: int, multiprocessors: int) -> None:
        self.arch, self.multiprocessors = arch, multiprocessors

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_LIMIT[self.arch], "multiprocessor_count": self.multiprocessors,
                "max_num_regs": 65536, "warpSize": 32}  # fmt: skip

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[None, str, int, int, int]:
        # No module: Triton would ask the driver of that time to unload it.
        return None, binary.decode(), 0, 0, MAX_THREADS


class Launcher:
    """One compiled kernel's way from Triton's arguments to the GPU that is pretended when it is launched."""

    def __init__(self, source: Any, metadata: Any) -> None:
        refuse(metadata)
        meta = getattr(metadata, "tensordesc_meta", None)
        self.shared = metadata.shared
        self.kinds = list(flat(expand_signature(source.signature.values(), meta, MAP)))
        self.start = wrap_handle_tensordesc_impl(self._start, source.signature, meta, describe)

    def __call__(
        self, x: int, y: int, z: int, stream: Any, text: str, packed: Any, launched: Any, enter: Any, leave: Any,
        *arguments: Any,
    ) -> None:  # fmt: skip
        if enter is not None:
            enter(launched)
        self.start(text, (x, y, z), arguments)
        if leave is not None:
            leave(launched)

    def _start(self, text: str, grid: tuple[int, int, int], arguments: Any) -> None:
        gpu = triton.runtime.driver.active
        if min(grid) > 0:
            gpu.launch(text, grid, self.shared, self.kinds, list(flat(arguments)))


def refuse(metadata: Any) -> None:
    """`Unsupported` for what a launch may ask for and the executor does not have."""
    asked = {
        "clusters (num_ctas > 1)": metadata.num_ctas != 1,
        "cooperative launches": metadata.launch_cooperative_grid,
        "programmatic dependent launches": metadata.launch_pdl,
        "scratch memory": metadata.global_scratch_size or metadata.profile_scratch_size,
        f"instrumentation ({metadata.instrumentation_mode})": metadata.instrumentation_mode,
    }
    if found := [name for name, value in asked.items() if value]:
        raise Unsupported(", ".join(found))


class SoftGPU:
    """The driver. log: a dict for each launch that ended well (kernel, grid, ptx, seconds, cpu, and its counts).

    options: of the executor (`block.launch`: policy, seed, races, strict, ...); may be changed between launches.
    """

    def __init__(self, arch: int, multiprocessors: int = 2, **options: Any) -> None:
        if arch not in SHARED_LIMIT:
            raise Unsupported(f"sm_{arch}; there are {', '.join(f'sm_{known}' for known in SHARED_LIMIT)}")
        self.arch, self.multiprocessors, self.options = arch, multiprocessors, options
        self.utils, self.launcher_cls = Utils(arch, multiprocessors), Launcher
        self.log: list[dict[str, Any]] = []

    # What Triton asks a driver

    def get_current_device(self) -> int:
        return self.arch  # Triton remembers kernels and limits by device: one for each generation

    def set_current_device(self, device: int) -> None:
        if device != self.arch:
            raise Unsupported(f"device {device}; this one is {self.arch}")

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    # Launch

    def edit(self, text: str) -> str:
        """The PTX to run in place of `text`; tests replace this to plant faults."""
        return text

    def launch(self, text: str, grid: tuple[int, int, int], shared: int, kinds: list[str], arguments: list) -> None:
        """Run every block. kinds: types of the arguments, `constexpr` for those that the code does not have."""
        text = self.edit(text)
        kernel, tensors, values = parse(text), [], []
        for kind, argument in zip(kinds, arguments, strict=True):
            if kind.startswith("*"):
                tensors.append(argument)
                values.append(pointer(argument))
            elif kind == MAP:
                tensors.append(argument.base)
                values.append(argument.map)
            elif kind != "constexpr":
                values.append(scalar(kind, argument))
        parameters = pack(kernel.params, values)
        start, cpu = time.perf_counter(), time.process_time()
        counts = launch_blocks(kernel, memory_of(tensors), parameters, shared, grid, **self.options)
        took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        self.log.append({"kernel": kernel.name, "grid": grid, "ptx": text, **took, **counts})


def pointer(argument: Any) -> int:
    if not isinstance(argument, torch.Tensor) or argument.device.type != "cpu":
        raise Unsupported(f"a pointer that is no CPU tensor: {type(argument).__name__}")
    return argument.data_ptr()


def ptx_for_binary(*arguments: Any) -> tuple[str, str] | None:
    """Triton's hook on its stages: the last one gives the PTX itself. Without arguments: what tells its cache so."""
    if not arguments:
        return "ptx in place of a binary", "ptx in place of a binary"
    arguments[1]["cubin"] = lambda text, metadata: text.encode()
    return None


@contextlib.contextmanager
def pretend(arch: int, multiprocessors: int = 2, **options: Any) -> Iterator[SoftGPU]:
    """Inside the block Triton launches on a pretended GPU of compute capability `arch` (times ten: 80, 90, 100).

    options: policy ("eager": asynchronous results at once, "lazy": as late as allowed, "random"), seed (of the
    schedule), races (judge the order of accesses), strict (a missing proxy fence is a fault, not a warning). Blocks may
    be nested: the innermost counts. Afterwards Triton is as it was, whatever was raised. Not for two threads at once.
    """
    gpu = SoftGPU(arch, multiprocessors, **options)
    active, knobs = triton.runtime.driver, triton.knobs.runtime
    before, hook = active._active, knobs.add_stages_inspection_hook  # `active.active` would look for a real GPU
    if hook not in (None, ptx_for_binary):
        raise Unsupported("another hook on Triton's stages")
    knobs.add_stages_inspection_hook = ptx_for_binary
    active.set_active(gpu)
    try:
        yield gpu
    finally:
        active.set_active(before)
        knobs.add_stages_inspection_hook = hook
