"""Ahead-of-time compilation of every Triton kernel for a GPU architecture, with no GPU: resources, hot loop, gates.

`bingo bench aot` prints the table. TRITON_INTERPRET must not be set: interpreted kernels have no code.
To add a kernel or a specialisation, add a `Variant` to `portable_variants` or `hopper_variants`.
"""

import itertools
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bingo.kernels import hopper_queue_softmax as hopper
from bingo.kernels import triton_combine as ends
from bingo.kernels import triton_knn as knn
from bingo.kernels import triton_queue_softmax as kernels

TYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
WARP_SIZE = 32
# Gates. Matrix products in half precision must run on the generation's own tensor-core instruction; the most shared
# memory that one block may use: CUDA programming guide, table of compute capabilities.
TENSOR_CORE = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
LOOP_LIMIT = 250
# Triton keeps an operand that it computed (the scaled queries) in registers and reloads it for every tile: 8
# instructions more than for one that it only loaded. The Hopper kernel avoids them.
PORTABLE_LOOP_LIMIT = 256
# The unit of `loop_per_tile`: the products of 64 rows and 128 keys, shared by four warps.
TILE_ROWS, TILE_KEYS, TILE_WARPS = 64, 128, 4


@dataclass(frozen=True)
class Variant:
    """One specialisation of a kernel, as a launch would ask for it.

    dtype: the queue's (the partials' for a kernel that reads no queue). signature: run-time arguments in order, with
    their Triton types. tile: rows and keys of one turn of the hot loop, where its instructions do not say (see `Loop`).
    products: matrix products per tile. loop_limit: the most that `loop_per_tile` may be on sm_90.
    """

    kernel: str
    name: str
    dtype: str
    channels: int
    function: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    warps: int
    stages: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    tile: tuple[int, int] = (0, 0)
    products: int = 0
    loop_limit: int | None = None


def portable_variants(arch: int) -> list[Variant]:
    """Those of the portable kernels."""
    pairs = itertools.product((64, 128, 256), TYPE_NAMES)
    plain = [_split("gradient", dtype, channels, arch) for channels, dtype in pairs]
    padded = _split("48 of 64 channels", torch.bfloat16, 64, arch, C=48)
    main = [
        _split(name, dtype, 128, arch, **changes) for dtype in TYPE_NAMES for name, changes in SPECIAL_SPLITS.items()
    ]
    last = [end for channels in (64, 128, 256) for end in (_combine(channels), _bag(channels))]
    lists = [_nearest(dtype, places, arch, 2048) for dtype in TYPE_NAMES for places in (16, 32)]
    lists.append(_nearest(torch.float16, 16, arch, 1000))
    return [*plain, padded, *main, _ranks(arch), *last, _combine(128, GRAD=False), _bag(128, **NOTHING_MORE), *lists]


SPECIAL_SPLITS: dict[str, dict[str, Any]] = {
    "gradient, raw fp32 rows": {"q_dtype": torch.float32, "NORMALIZE": True},
    "loss only": {"GRAD": False},
    "ragged": {"EVEN": False},
    "running maximum": {"SAFE": True},
    "repair, ragged": {"SAFE": True, "REPAIR": True, "EVEN": False},
    "6 excluded ids": {"E": 6},
    "6 excluded ids, running maximum, ragged": {"E": 6, "SAFE": True, "EVEN": False},
    "loss only, 3 excluded ids, ragged": {"E": 3, "GRAD": False, "EVEN": False},
}


def _split(
    name: str, dtype: torch.dtype, channels: int, arch: int, q_dtype: torch.dtype | None = None, **changes: Any
) -> Variant:
    constants: dict[str, Any] = {
        "E": 0,
        "GRAD": True,
        "NORMALIZE": False,
        "SAFE": False,
        "REPAIR": False,
        "EVEN": True,
    } | changes
    busy = bool(constants["E"] or constants["SAFE"])
    tile = kernels.choose_tile(dtype, channels, arch, busy=busy)
    half = dtype != torch.float32
    tma = arch >= 90 and half
    queue = f"tensordesc<{TYPE_NAMES[dtype]}[{tile.keys},{channels}]>" if tma else f"*{TYPE_NAMES[dtype]}"
    signature = {"q_ptr": f"*{TYPE_NAMES[q_dtype or dtype]}", "queue": queue} | SPLIT_ARGUMENTS
    constants = {"C": channels, "BC": channels, "BM": tile.rows, "BN": tile.keys, "TMA": tma} | constants
    if not constants["E"]:
        constants |= {"ids_ptr": None, "exclude_ptr": None}
    return Variant(
        "split", name, TYPE_NAMES[dtype], channels, kernels.split_kernel, signature, constants, tile.warps, tile.stages,
        tile=(tile.rows, tile.keys), products=1 + constants["GRAD"],
        loop_limit=PORTABLE_LOOP_LIMIT if half and channels <= 128 and not busy and constants["EVEN"] else None,
    )  # fmt: skip


SPLIT_ARGUMENTS = {
    **dict.fromkeys(("ids_ptr", "exclude_ptr"), "*i64"),
    **dict.fromkeys(("lse_ptr", "mean_ptr"), "*fp32"),
    **dict.fromkeys(("R", "K", "G", "keys_per_split"), "i32"),
    **dict.fromkeys(("scale", "low", "high"), "fp32"),
}


def _ranks(arch: int) -> Variant:
    tile = kernels.choose_tile(torch.bfloat16, 128, arch, busy=True)
    signature = {
        **dict.fromkeys(("q_ptr", "queue"), "*bf16"),
        **dict.fromkeys(("ids_ptr", "exclude_ptr"), "*i64"),
        "scores_ptr": "*fp32",
        "counts_ptr": "*i32",
        **dict.fromkeys(("R", "K", "G", "keys_per_split"), "i32"),
    }
    constants = {"C": 128, "BC": 128, "BM": tile.rows, "BN": tile.keys, "E": 6, "M": 2}
    return Variant(
        "ranks", "6 excluded ids", "bf16", 128, kernels.rank_kernel, signature, constants, tile.warps, tile.stages,
        tile=(tile.rows, tile.keys), products=1,
    )  # fmt: skip


def _nearest(dtype: torch.dtype, places: int, arch: int, channels: int) -> Variant:
    tile = knn.choose_tile(dtype, places, arch)
    signature = {
        **dict.fromkeys(("q_ptr", "database_ptr"), f"*{TYPE_NAMES[dtype]}"),
        "exclude_ptr": "*i32",
        "scores_ptr": "*fp32",
        "indices_ptr": "*i32",
        **dict.fromkeys(("Q", "N"), "i32"),
    }
    constants = {"D": channels, "BM": tile.queries, "BN": tile.rows, "BD": tile.channels, "K": places}
    return Variant(
        "nearest", f"best {places}, {channels} channels", TYPE_NAMES[dtype], tile.channels, knn.nearest_kernel,
        signature, constants, tile.warps, tile.stages, tile=(tile.queries, 2 * tile.rows), products=1,
    )  # fmt: skip


def _combine(channels: int, **changes: Any) -> Variant:
    pointers = dict.fromkeys(("lse_SR_ptr", "mean_SRC_ptr", "lse_ptr", "mean_ptr"), "*fp32")
    constants = {"C": channels, "BC": channels, "BS": ends.SPLITS_PER_STEP, "GRAD": True} | changes
    signature = pointers | {"R": "i32", "S": "i32"}
    name = "gradient" if constants["GRAD"] else "loss only"
    return Variant("combine", name, "fp32", channels, ends.combine_kernel, signature, constants, ends.WARPS)


NOTHING_MORE: dict[str, Any] = {
    **dict.fromkeys(("GRAD", "NORMALIZE", "WRITE", "IDS"), False),
    **dict.fromkeys(("new_keys_ptr", "new_ids_ptr", "ids_ptr", "cursor_ptr"), None),
}


def _bag(channels: int, **changes: Any) -> Variant:
    floats = ("lse_SR_ptr", "mean_SRC_ptr", "q_ptr", "keys_ptr", "weights_ptr", "loss_ptr", "grad_ptr", "new_keys_ptr")
    signature = {
        **dict.fromkeys(floats, "*fp32"),
        "new_ids_ptr": "*i64",
        "queue_ptr": "*bf16",
        **dict.fromkeys(("ids_ptr", "cursor_ptr"), "*i64"),
        **dict.fromkeys(("R", "S", "B", "rows_per_weight", "K", "N", "skipped"), "i32"),
        "inverse_temperature": "fp32",
    }
    flags = dict.fromkeys(("GRAD", "NORMALIZE", "WRITE", "IDS"), True)
    sizes: dict[str, Any] = {"C": channels, "BC": channels, "BS": ends.SPLITS_PER_STEP, "M": 2}
    constants = sizes | flags | changes
    name = "gradient, ring write" if constants["WRITE"] else "loss only"
    return Variant("bag", name, "fp32", channels, ends.bag_kernel, signature, constants, ends.WARPS)


def hopper_variants() -> list[Variant]:
    """Those of the Hopper kernel; none where Triton has no Gluon."""
    if not hopper.has_gluon():
        return []
    plain = itertools.product(hopper.CHANNELS, hopper.QUEUE_DTYPES, (True, False))
    raw = [(channels, dtype, True) for channels in hopper.CHANNELS for dtype in hopper.QUEUE_DTYPES]
    return [
        *(_hopper(queue_dtype, channels, queue_dtype, grad) for channels, queue_dtype, grad in plain),
        *(_hopper(queue_dtype, channels, torch.float32, grad) for channels, queue_dtype, grad in raw),
        _hopper(torch.bfloat16, 128, torch.float32, False),
    ]


def _hopper(queue_dtype: torch.dtype, channels: int, q_dtype: torch.dtype, grad: bool) -> Variant:
    """fp32 rows are compiled with the normalisation, rows in the queue's dtype without."""
    from bingo.kernels import hopper_kernel

    normalize = q_dtype == torch.float32
    name = ("gradient" if grad else "loss only") + (", raw fp32 rows" if normalize else "")
    queue = f"tensordesc<{TYPE_NAMES[queue_dtype]}[{hopper.KEYS_PER_TILE},{channels}]"
    signature = {
        "q_ptr": f"*{TYPE_NAMES[q_dtype]}",
        "queue": f"{queue},{hopper_kernel.queue_layout(queue_dtype, channels)!r}>",
        **dict.fromkeys(("lse_ptr", "mean_ptr"), "*fp32"),
        **dict.fromkeys(("R", "K", "keys_per_split"), "i32"),
        "scale": "fp32",
    }
    constants = {"C": channels, "NORMALIZE": normalize, "GRAD": grad}
    options = hopper.launch_options()
    return Variant(
        "hopper", name, TYPE_NAMES[queue_dtype], channels, hopper_kernel.partials_kernel, signature, constants,
        options.pop("num_warps"), options=options, tile=(TILE_ROWS, TILE_KEYS), products=2 if grad else 1,
        loop_limit=LOOP_LIMIT,
    )  # fmt: skip


def compile_report(arch: int) -> list[dict[str, Any]]:
    """Compile each kernel variant for compute capability `arch` (80, 90, 100: ten times the usual number).

    One record per variant: kernel, arch, dtype, channels, variant, registers per thread, shared_bytes per block,
    spill_bytes (stack and local memory) per thread, bare_arrivals (see there), tensor_core (its instruction, or
    "none"), loop_instructions of the hot loop per warp, loop_per_tile (the same per 64 x 128 tile; None without matrix
    products), loop_limit and gate ("ok", or what fails). ValueError when TRITON_INTERPRET is set.
    """
    if kernels.is_interpreted():
        raise ValueError("TRITON_INTERPRET is set, so there is nothing to compile; unset it and start Python again")
    return [_record(variant, arch) for variant in portable_variants(arch) + (hopper_variants() if arch == 90 else [])]


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
    if arch == 90 and limit and record["loop_per_tile"] > limit:
        return f"{record['loop_per_tile']} instructions per tile, above {limit}"
    return "ok"


def _record(variant: Variant, arch: int) -> dict[str, Any]:
    usage = _usage(_compile(variant, arch))
    loop = usage.pop("loop")
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
    }
    return record | {"gate": gate(record)}


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
    if "USETMAXREG" in assembly:  # then REG is what a launch starts with, and warps change it: report what is in use
        used["REG"] = 1 + max(int(number) for number in re.findall(r"\bR(\d+)", assembly))
    return {
        "registers": used["REG"],
        "shared_bytes": compiled.metadata.shared,
        "spill_bytes": used["STACK"] + used["LOCAL"],
        "bare_arrivals": bare_arrivals(assembly),
        "loop": hot_loop(assembly),
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
    multiply-adds of its matrix products, 0 where the instructions do not name a shape (tcgen05, FFMA)."""

    tensor_core: str = "none"
    instructions: int = 0
    multiply_adds: int = 0


def loop_per_tile(loop: Loop, variant: Variant) -> int | None:
    """Instructions per warp and 64 x 128 tile, whatever the tile and the unrolling; None without matrix products."""
    if not variant.products:
        return None
    tiles = variant.tile[0] * variant.tile[1] * TILE_WARPS / (TILE_ROWS * TILE_KEYS * variant.warps)
    if loop.multiply_adds:
        tiles = loop.multiply_adds * TILE_WARPS / (TILE_ROWS * TILE_KEYS * variant.channels * variant.products)
    return round(loop.instructions / tiles)


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
            stretches.append((first, at, [name for _, _, name, _ in lines[first : at + 1] if name]))
    unit = "MMA" if any(_count(body, "MMA") for *_, body in stretches) else "FFMA"
    busy = [stretch for stretch in stretches if _count(stretch[2], unit)]
    inner = [s for s in busy if not any(o is not s and s[0] <= o[0] and o[1] <= s[1] for o in busy)]
    best = max((body for *_, body in inner), key=lambda body: (_count(body, unit), len(body)), default=[])
    return _describe(best)


def _count(body: list[str], unit: str) -> int:
    return sum(_operation(name).endswith(unit) for name in body)


def _operation(name: str) -> str:
    return name.split(".")[0]


def _describe(body: list[str]) -> Loop:
    products = [name for name in body if _operation(name).endswith("MMA")]
    core = _operation(products[0]) if products else "none"
    return Loop(core, len(body), sum(_multiply_adds(name) for name in products))


def _multiply_adds(name: str) -> int:
    """Per warp: HGMMA.64x128x16 is issued by four warps at once, HMMA.16816 is 16 x 8 x 16 of one."""
    if shape := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", name):
        return int(shape[1]) * int(shape[2]) * int(shape[3]) // 4
    shape = re.match(r"HMMA\.16(8)(\d+)", name)
    return 16 * int(shape[1]) * int(shape[2]) if shape else 0


def print_table(records: list[dict[str, Any]]) -> None:
    """Print what `compile_report` returned."""
    rows = [list(records[0]), *([str(value) for value in record.values()] for record in records)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
