"""Ahead-of-time compilation of every Triton kernel for a GPU architecture, with no GPU: registers, memory, spills.

`bingo bench aot` prints the table. TRITON_INTERPRET must not be set: interpreted kernels have no code.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bingo.kernels import triton_queue_softmax as kernels

TYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
# dtype, channels, whether the queue is a whole number of tiles (otherwise loads are masked).
VARIANTS = [(dtype, channels, True) for channels in (64, 128) for dtype in TYPE_NAMES] + [(torch.bfloat16, 128, False)]
WARP_SIZE = 32


def compile_report(arch: int) -> list[dict[str, Any]]:
    """Compile each kernel variant for compute capability `arch` (80, 90, 100: ten times the usual number).

    One record per variant: kernel, arch, dtype, channels, whole_tiles, registers per thread, shared_bytes per block,
    spill_bytes (stack and local memory) per thread. ValueError when TRITON_INTERPRET is set.
    """
    if kernels.is_interpreted():
        raise ValueError("TRITON_INTERPRET is set, so there is nothing to compile; unset it and start Python again")
    records = []
    for dtype, channels, whole in VARIANTS:
        name = {"kernel": "split", "arch": arch, "dtype": TYPE_NAMES[dtype], "channels": channels, "whole_tiles": whole}
        records.append(name | _usage(_compile_split(arch, dtype, channels, whole)))
    for channels in (64, 128):
        name = {"kernel": "combine", "arch": arch, "dtype": "fp32", "channels": channels, "whole_tiles": True}
        records.append(name | _usage(_compile_combine(arch, channels)))
    return records


def _compile_split(arch: int, dtype: torch.dtype, channels: int, whole_tiles: bool) -> Any:
    tile = kernels.choose_tile(dtype, channels)
    inputs = dict.fromkeys(("q_ptr", "queue_ptr"), f"*{TYPE_NAMES[dtype]}")
    partials = dict.fromkeys(("max_ptr", "sum_ptr", "mean_ptr"), "*fp32")
    scalars = {"R": "i32", "K": "i32", "tiles_per_split": "i32", "scale": "fp32"}
    constants = {"C": channels, "BC": channels, "BM": tile.rows, "BN": tile.keys, "EVEN_K": whole_tiles}
    return _compile(kernels.split_kernel, arch, inputs | partials | scalars, constants, tile.warps, tile.stages)


def _compile_combine(arch: int, channels: int) -> Any:
    pointers = dict.fromkeys(("max_ptr", "sum_ptr", "mean_ptr", "lse_ptr", "out_ptr"), "*fp32")
    constants = {"C": channels, "BC": channels, "BR": kernels.COMBINE_ROWS}
    return _compile(kernels.combine_kernel, arch, pointers | {"R": "i32", "S": "i32"}, constants, 4, 1)


def _compile(
    kernel: Any, arch: int, signature: dict[str, str], constants: dict[str, Any], warps: int, stages: int
) -> Any:
    # PyTorch's allocations are aligned to 16 bytes and more; the launcher specialises on it, so this must as well.
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    names = signature | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=names, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages}
    return triton.compile(source, target=GPUTarget("cuda", arch, WARP_SIZE), options=options)


def _usage(compiled: Any) -> dict[str, int]:
    """What the assembler allotted, read from the binary by the cuobjdump that Triton ships."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return {
        "registers": used["REG"],
        "shared_bytes": compiled.metadata.shared,
        "spill_bytes": used["STACK"] + used["LOCAL"],
    }


def print_table(records: list[dict[str, Any]]) -> None:
    """Print what `compile_report` returned."""
    print("  ".join(f"{name:>12}" for name in records[0]))
    for record in records:
        print("  ".join(f"{value!s:>12}" for value in record.values()))
