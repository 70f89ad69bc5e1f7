"""A Triton driver that poses as a GPU: kernels are compiled for it as usual and their PTX runs on the CPU.

`with pretend(90) as gpu:` makes every `kernel[grid](...)` of CPU tensors go through Triton's own binder, compiler and
argument handling, up to the launch.
"""

import contextlib
import ctypes
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import wrap_handle_tensordesc_impl

from tests.softgpu.block import launch as launch_blocks
from tests.softgpu.memory import GlobalMemory, TensorMap
from tests.softgpu.parse import Kernel, parse
from tests.softgpu.state import Fault

SHARED_LIMIT = {80: 166912, 90: 232448, 100: 232448}
SWIZZLE = {0: 0, 1: 32, 2: 64, 3: 128}  # CUtensorMapSwizzle


# What was read and translated stays for the next `pretend`, as compiled kernels stay in Triton.
_texts: dict[str, str] = {}  # PTX by the hash of a compilation
_kernels: dict[str, Kernel] = {}
_programs: dict = {}


class Utils:
    def __init__(self, gpu: "SoftGPU") -> None:
        self.gpu = gpu

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_LIMIT[self.gpu.arch], "multiprocessor_count": self.gpu.multiprocessors,
                "max_num_regs": 65536, "warpSize": 32}  # fmt: skip

    def load_binary(self, name: str, kernel: Any, shared: int, device: int) -> tuple:
        return None, None, 0, 0, 1024


class SoftGPU:
    """The driver. After each launch `log` has a record of it."""

    def __init__(self, arch: int, multiprocessors: int = 2, **options: Any) -> None:
        self.arch, self.multiprocessors, self.options = arch, multiprocessors, options
        self.utils = Utils(self)
        self.log: list[dict[str, Any]] = []

        class Launcher:
            def __init__(self, source: Any, metadata: Any) -> None:
                self.signature, self.metadata, self.source = source.signature, metadata, source
                self.text = None
                meta = getattr(metadata, "tensordesc_meta", None)
                self.inner = wrap_handle_tensordesc_impl(self._launch, self.signature, meta, self._map)

            def __call__(
                self,
                x: int,
                y: int,
                z: int,
                stream: Any,
                function: Any,
                packed: Any,
                launch_metadata: Any,
                enter: Any,
                leave: Any,
                *args: Any,
            ) -> None:
                self.inner((x, y, z), args)

            # Triton keeps launchers, so the GPU is the one of now.
            def _map(self, *arguments: Any) -> list:
                return triton.runtime.driver.active.tensor_map(*arguments)

            def _launch(self, grid: tuple, args: tuple) -> None:
                triton.runtime.driver.active.launch(self, grid, args)

        self.launcher_cls = Launcher

    # What Triton asks a driver

    def get_current_device(self) -> int:
        return self.arch  # Triton keeps what it compiled by this number

    def set_current_device(self, device: int) -> None:
        return

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    # Launch

    def tensor_map(self, arg: Any, meta: Any, _: Any) -> list:
        if meta is None:
            raise NotImplementedError("descriptors without metadata")
        box = tuple(meta["block_size"])
        tensor = TensorMap(
            arg.base.data_ptr(), tuple(arg.shape), tuple(arg.strides), box, meta["elem_size"], SWIZZLE[meta["swizzle"]]
        )
        if arg.base.data_ptr() % 16 or any(s * meta["elem_size"] % 16 for s in arg.strides[:-1]):
            raise Fault("a tensor map needs addresses and strides that are multiples of 16 bytes")
        self._tensors.append(arg.base)
        return [tensor, *arg.shape, *arg.strides]

    _tensors: list = []

    def edit(self, text: str) -> str:
        """The PTX to run instead; tests of the executor replace this to plant faults."""
        return text

    def launch(self, launcher: Any, grid: tuple, args: tuple) -> None:
        text = self.edit(self.find_ptx(launcher))
        kernel = _kernels.get(text)
        if kernel is None:
            kernel = _kernels[text] = parse(text)
        kinds = [k for k in flat(launcher.signature.values())]
        memory = GlobalMemory()
        values: list[Any] = []
        tensors = list(self._tensors)
        self._tensors.clear()
        # Arguments in the order of the signature; descriptors have been expanded.
        it = iter(list(flat(args)))
        for kind in kinds:
            value = next(it)
            if kind == "constexpr":
                continue
            if kind.startswith("tensordesc"):
                values.append(value)
                for _ in range(2 * len(value.shape)):
                    n = next(it)
                    values.append(n)
            elif kind.startswith("*"):
                tensors.append(value)
                values.append(value.data_ptr() if hasattr(value, "data_ptr") else int(value))
            elif kind.startswith(("fp", "f3", "bf")):
                values.append(struct.pack("<f", float(value)))
            else:
                values.append(int(value))
        storages: dict[int, tuple[int, str]] = {}
        for i, tensor in enumerate(tensors):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = (storage.nbytes(), f"tensor {i} {tuple(tensor.shape)}")
        for base, (size, name) in storages.items():
            if size:
                raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(base))
                memory.add(base, raw, name)
        names = list(kernel.params)
        values += [0] * (len(names) - len(values))
        parameters = {}
        for name, value in zip(names, values, strict=True):
            if isinstance(value, int):
                size = kernel.params[name][1]
                value = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            parameters[name] = value
        start, cpu = time.perf_counter(), time.process_time()
        stats = launch_blocks(
            kernel, memory, parameters, launcher.metadata.shared, grid, programs=_programs, **self.options
        )
        self.log.append(
            {
                "kernel": kernel.name,
                "grid": grid,
                "seconds": time.perf_counter() - start,
                "cpu": time.process_time() - cpu,
                **stats,
            }
        )

    def find_ptx(self, launcher: Any) -> str:
        if launcher.text is None:
            launcher.text = _texts[launcher.metadata.hash]
        return launcher.text


def flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from flat(value)
        else:
            yield value


@contextlib.contextmanager
def pretend(arch: int, **options: Any) -> Iterator[SoftGPU]:
    """Triton launches on a pretended GPU of compute capability `arch` (times ten) inside the block."""
    gpu = SoftGPU(arch, **options)

    def remember(module: Any, function: Any, name: str, files: dict[str, str], digest: str) -> None:
        path = next(path for file, path in files.items() if file.endswith(".ptx"))
        _texts[digest] = Path(path).read_text()

    def without_assembler(*arguments: Any) -> tuple[str, str] | None:
        if not arguments:
            return "no assembler", "no assembler"
        arguments[1]["cubin"] = lambda source, metadata: b""
        return None

    before, hook = triton.runtime.driver._active, triton.knobs.runtime.kernel_load_start_hook
    stages = triton.knobs.runtime.add_stages_inspection_hook
    triton.knobs.runtime.add_stages_inspection_hook = without_assembler
    triton.knobs.runtime.kernel_load_start_hook = remember
    triton.runtime.driver.set_active(gpu)
    try:
        yield gpu
    finally:
        triton.knobs.runtime.kernel_load_start_hook = hook
        triton.knobs.runtime.add_stages_inspection_hook = stages
        triton.runtime.driver._active = before


def forget(*functions: Any) -> None:
    """Drop what Triton remembers of kernels (another pretended GPU needs another binder)."""
    for function in functions:
        function.device_caches.clear()
