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
    spill_bytes (stack and local memory) per thread, tensor_core (its instruction, or "none") and loop_instructions of
    the hot loop (see `hot_loop`). ValueError when TRITON_INTERPRET is set.
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


def _usage(compiled: Any) -> dict[str, Any]:
    """What the assembler allotted and the shape of the hot loop, read from the binary by tools that Triton ships."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = _tool("cuobjdump", "--dump-resource-usage", file.name)
        unit, loop = hot_loop(_tool("nvdisasm", "-c", file.name))
    used = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return {
        "registers": used["REG"],
        "shared_bytes": compiled.metadata.shared,
        "spill_bytes": used["STACK"] + used["LOCAL"],
        "tensor_core": unit,
        "loop_instructions": loop,
    }


def _tool(name: str, *arguments: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([str(tool), *arguments], capture_output=True, text=True, check=True).stdout


def hot_loop(assembly: str) -> tuple[str, int]:
    """(tensor-core instruction, number of instructions) of the loop with the most arithmetic.

    The loop is the stretch between a label and a branch back to it that holds the most matrix products, or, without
    any ("none"), the most fused multiply-adds. 0 where there is no loop.
    """
    instruction = r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z][\w.]*)([^;]*);"
    lines = re.findall(rf"^(\.L\w+):|{instruction}", assembly, re.M)
    labels = {label: at for at, (label, _, _) in enumerate(lines) if label}
    best: tuple[int, int, str, int] = (0, 0, "none", 0)
    for at, (_, name, operands) in enumerate(lines):
        target = re.search(r"\.L\w+", operands) if name.startswith("BRA") else None
        first = labels.get(target[0], at) if target else at
        body = [found for _, found, _ in lines[first : at + 1] if found]
        products = [found.split(".")[0] for found in body if found.split(".")[0].endswith("MMA")]
        score = (len(products), sum(found.startswith("FFMA") for found in body))
        if first < at and score > best[:2]:
            best = (*score, products[0] if products else "none", len(body))
    return best[2], best[3]


def print_table(records: list[dict[str, Any]]) -> None:
    """Print what `compile_report` returned."""
    print("  ".join(f"{name:>12}" for name in records[0]))
    for record in records:
        print("  ".join(f"{value!s:>12}" for value in record.values()))
