"""Compiles every Triton kernel for a GPU architecture with no GPU at hand: resources, hot loop, gates.

`bingo bench aot` prints the table. TRITON_INTERPRET must not be set: interpreted kernels have no code.
What is compiled is the table of `variants.py`.
"""

import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bingo.kernels.cycles import PIPES, Body, Cost, Work, blocks_per_sm, opcode, tile_cost, unknown
from bingo.kernels.device import is_interpreted
from bingo.kernels.variants import (
    TILE_KEYS,
    TILE_ROWS,
    TILE_WARPS,
    Variant,
    augment_variants,
    hopper_variants,
    portable_variants,
)

WARP_SIZE = 32
# Gates. Matrix products in half precision must run on the generation's own tensor-core instruction; the most shared
# memory that one block may use: CUDA programming guide, table of compute capabilities.
TENSOR_CORE = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}

NAMES = ("kernel", "arch", "dtype", "channels", "variant")
COSTS = ("barriers", "binds", "overlap", "expected", "peak")
DETAIL = ("cost", "unknown_opcodes")


def compile_report(arch: int) -> list[dict[str, Any]]:
    """Compile each kernel variant for compute capability `arch` (80, 90, 100: ten times the usual number).

    One record per variant: kernel, arch, dtype, channels, variant, registers per thread, shared_bytes per block,
    spill_bytes (stack and local memory) per thread, bare_arrivals (see there), tensor_core (its instruction, or
    "none"), loop_instructions of the hot loop per warp, loop_per_tile (the same per 64 x 128 tile; None without matrix
    products), loop_limit, register_limit, cost (the fields of `cycles.Cost`; None without tensor cores),
    expected_cycles (of it), unknown_opcodes of the hot loop and gate ("ok", or what fails). ValueError when
    TRITON_INTERPRET is set.
    """
    if is_interpreted():
        raise ValueError("TRITON_INTERPRET is set, so there is nothing to compile; unset it and start Python again")
    variants = portable_variants(arch) + augment_variants() + (hopper_variants() if arch == 90 else [])
    return [report(variant, arch) for variant in variants]


def gate(record: dict[str, Any]) -> str:
    """The verdict on one record: "ok", or the first thing that fails, in a sentence."""
    arch, limit = record["arch"], record["loop_limit"]
    core = TENSOR_CORE.get(arch) if record["dtype"] in ("bf16", "fp16") else "none"
    if record["spill_bytes"]:
        return f"spills {record['spill_bytes']} bytes per thread"
    if core not in (None, record["tensor_core"]):
        return f"its products run on {record['tensor_core']}, not on {core}"
    if record["bare_arrivals"]:
        return f"{record['bare_arrivals']} arrivals may hand back memory that a warp still reads"
    if record["shared_bytes"] > SHARED_LIMIT.get(arch, record["shared_bytes"]):
        return f"needs {record['shared_bytes']} bytes of shared memory, above {SHARED_LIMIT[arch]}"
    if record["registers"] > record["register_limit"]:
        return f"uses {record['registers']} registers, above {record['register_limit']}"
    if arch == 90 and limit and record["loop_per_tile"] > limit:
        return f"{record['loop_per_tile']} instructions per tile, above {limit}"
    if record["unknown_opcodes"]:
        return f"no pipe is known for {', '.join(record['unknown_opcodes'])}; add it to kernels/cycles.py"
    return "ok"


def report(variant: Variant, arch: int) -> dict[str, Any]:
    """Compile one variant: its record, see `compile_report`."""
    usage = _usage(_compile(variant, arch))
    loop, launch = usage.pop("loop"), usage.pop("launch")
    names = unknown(loop.body)
    cost = None if names or loop.tensor_core == "none" else _cost(variant, arch, loop, launch)
    record = {
        "kernel": variant.kernel,
        "arch": arch,
        "dtype": variant.dtype,
        "channels": variant.channels,
        "variant": variant.name,
        **usage,
        "tensor_core": loop.tensor_core,
        "loop_instructions": loop.instructions,
        "loop_per_tile": loop_per_tile(loop, variant),
        "loop_limit": variant.loop_limit,
        "register_limit": variant.register_limit,
        "expected_cycles": cost and round(cost.expected),
        "unknown_opcodes": names,
        "cost": cost and asdict(cost),
    }
    return record | {"gate": gate(record)}


def _cost(variant: Variant, arch: int, loop: "Loop", launch: dict[str, int]) -> Cost:
    by_engine = bool(launch["consumers"] > 1 or variant.constants.get("TMA"))
    work = Work(
        *variant.tile, variant.channels, variant.products, copied=by_engine, loads_rows=variant.kernel == "nearest",
        consumers=launch["consumers"], matrices=variant.matrices,
    )  # fmt: skip
    return tile_cost(loop.body, arch, tiles_per_turn(loop, variant), work, launch["blocks"])


def _compile(variant: Variant, arch: int) -> Any:
    names = variant.signature | dict.fromkeys(variant.constants, "constexpr")
    # PyTorch's allocations are aligned to 16 bytes and more; the launcher specialises on it, so this must as well.
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(names.values()) if kind.startswith("*")}
    source = _source_class(variant.function)(variant.function, names, variant.constants, aligned)
    options = {"num_warps": variant.warps, "num_stages": variant.stages, **variant.options}
    return triton.compile(source, target=GPUTarget("cuda", arch, WARP_SIZE), options=options)


def _source_class(function: Any) -> Any:
    if not function.is_gluon():
        return ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    return GluonASTSource


def _usage(compiled: Any) -> dict[str, Any]:
    """What the assembler allotted and the hot loop, read from the binary by tools that Triton ships."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = _tool("cuobjdump", "--dump-resource-usage", file.name)
        assembly = _tool("nvdisasm", "-c", file.name)
    used = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    shared, warps = compiled.metadata.shared, compiled.metadata.num_warps
    launch = {
        "blocks": blocks_per_sm(warps * WARP_SIZE, used["REG"], shared, compiled.metadata.target.arch),
        # A warp-specialised kernel: all groups of four warps but the last, which brings the keys.
        "consumers": warps // 4 - 1 if "USETMAXREG" in assembly else 1,
    }
    if "USETMAXREG" in assembly:  # then REG is what a launch starts with, and warps change it: report what is in use
        used["REG"] = 1 + max(int(number) for number in re.findall(r"\bR(\d+)", assembly))
    return {
        "registers": used["REG"],
        "shared_bytes": shared,
        "spill_bytes": used["STACK"] + used["LOCAL"],
        "bare_arrivals": bare_arrivals(assembly),
        "loop": hot_loop(assembly),
        "launch": launch,
    }


def _tool(name: str, *arguments: str) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return subprocess.run([str(tool), *arguments], capture_output=True, text=True, check=True).stdout


def bare_arrivals(assembly: str) -> int:
    """Arrivals at an mbarrier since a wait for wgmma, with no barrier of the warps between the two.

    One thread arrives for four warps, each of which waited for its own share only: without a barrier, which the
    compiler places, the memory could be handed back while another warp reads it.
    """
    count, together = 0, True
    for name in re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z][\w.]*)", assembly, re.M):
        if name.startswith(("WARPGROUP.DEPBAR", "BAR.SYNC")):
            together = name.startswith("BAR")
        count += name.startswith("SYNCS.ARRIVE") and name.endswith("A1T0") and not together
    return count


@dataclass(frozen=True)
class Loop:
    """A loop of the binary, per warp: tensor-core instruction (or "none"), number of instructions, and the
    multiply-adds of its matrix products, 0 where the instructions do not name a shape (tcgen05, FFMA). body: names and
    operands, in order."""

    tensor_core: str = "none"
    instructions: int = 0
    multiply_adds: int = 0
    body: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)


def loop_per_tile(loop: Loop, variant: Variant) -> int | None:
    """Instructions per warp and 64 x 128 tile, whatever the tile and the unrolling; None without matrix products."""
    return round(loop.instructions / tiles_per_turn(loop, variant)) if variant.products else None


def tiles_per_turn(loop: Loop, variant: Variant) -> float:
    """Tiles of 64 x 128 that a turn of the loop makes, for every four warps of the block."""
    if loop.multiply_adds:
        return loop.multiply_adds * TILE_WARPS / (TILE_ROWS * TILE_KEYS * variant.channels * variant.products)
    return variant.tile[0] * variant.tile[1] * TILE_WARPS / (TILE_ROWS * TILE_KEYS * variant.warps)


def hot_loop(assembly: str) -> Loop:
    """The innermost loop with the most matrix products, or, in code without any, the most fused multiply-adds.

    A loop is the stretch between a label and a branch back to it. Not one: a stretch over the program's end, where
    waiting loops are put that return into the middle of the code. The consumers of a warp-specialised kernel lie inside
    the loop that hands out work to its warps; of those that are alike the longest counts.
    """
    instruction = r"^\s+/\*[0-9a-f]+\*/\s+(@!?U?P\d+\s+)?([A-Z][\w.]*)([^;]*);"
    lines = re.findall(rf"^(\.L\w+):|{instruction}", assembly, re.M)
    labels = {label: at for at, (label, *_) in enumerate(lines) if label}
    stretches = []
    for at, (_, _, name, operands) in enumerate(lines):
        target = re.search(r"\.L\w+", operands) if name.startswith("BRA") else None
        first = labels.get(target[0], at) if target else at
        ends = any(name == "EXIT" and not predicate for _, predicate, name, _ in lines[first:at])
        if first < at and not ends:
            stretches.append((first, at, [(name, rest) for _, _, name, rest in lines[first : at + 1] if name]))
    unit = "MMA" if any(_count(body, "MMA") for *_, body in stretches) else "FFMA"
    busy = [stretch for stretch in stretches if _count(stretch[2], unit)]
    inner = [s for s in busy if not any(o is not s and s[0] <= o[0] and o[1] <= s[1] for o in busy)]
    best = max((body for *_, body in inner), key=lambda body: (_count(body, unit), len(body)), default=[])
    return _describe(best)


def _count(body: Body, unit: str) -> int:
    return sum(opcode(name).endswith(unit) for name, _ in body)


def _describe(body: Body) -> Loop:
    products = [name for name, _ in body if opcode(name).endswith("MMA")]
    core = opcode(products[0]) if products else "none"
    return Loop(core, len(body), sum(_multiply_adds(name) for name in products), tuple(body))


def _multiply_adds(name: str) -> int:
    """Per warp: HGMMA.64x128x16 is issued by four warps at once, HMMA.16816 is 16 x 8 x 16 of one."""
    if shape := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", name):
        return int(shape[1]) * int(shape[2]) * int(shape[3]) // 4
    shape = re.match(r"HMMA\.16(8)(\d+)", name)
    return 16 * int(shape[1]) * int(shape[2]) if shape else 0


def print_table(records: list[dict[str, Any]]) -> None:
    """Print what `compile_report` returned: resources and gates, then what a tile costs by pipe."""
    plain = [{name: value for name, value in record.items() if name not in DETAIL} for record in records]
    _print_columns([list(plain[0]), *([str(value) for value in record.values()] for record in plain)])
    costs = [(record, record["cost"]) for record in records if record["cost"]]
    if costs:
        print(f"\nCycles of a multiprocessor per tile of {TILE_ROWS} rows and {TILE_KEYS} keys (docs/cost-model.md):")
        _print_columns([[*NAMES, *PIPES, *COSTS], *(_cost_cells(record, cost) for record, cost in costs)])


def _cost_cells(record: dict[str, Any], cost: dict[str, Any]) -> list[str]:
    names = [str(record[name]) for name in NAMES]
    pipes = [f"{cost['pipes'][pipe]:.0f}" for pipe in PIPES]
    last = [f"{cost['barriers']:.1f}", cost["binds"], cost["overlap"], f"{cost['expected']:.0f}", f"{cost['peak']:.0%}"]
    return [*names, *pipes, *last]


def _print_columns(rows: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
