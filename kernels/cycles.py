"""What a hot loop costs a multiprocessor, pipe by pipe, from its machine code alone: no GPU and no clock.

`aot.py` hands over the loop of a binary; docs/cost-model.md says how far the figures are from published kernels.
Everything is in cycles of one multiprocessor per tile of 64 rows and 128 keys. Four warps, one for each scheduler,
share a tile: so one instruction per warp and tile is one cycle of `issue`.

Rates per multiprocessor and clock. Lanes of 32-bit arithmetic: CUDA programming guide, throughput of arithmetic
instructions. Which pipe runs what: Nsight Compute's guide to kernel profiling. Half-precision products: datasheets,
the dense peak over multiprocessors and boost clock. Shared memory, 128 bytes, and 16 exponentials: FlashAttention-4.
Assumed, for want of a published figure: 4 bytes per lane from tensor memory, and 32 bytes from L2 (a kernel of
published speed moves 25 of them on an H100).
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

SCHEDULERS, LANES = 4, 32
PRODUCTS = {80: 1024, 90: 2048, 100: 4096}
"""Multiply-adds in half precision by compute capability times ten."""
FMA_LANES = {80: 64, 90: 128, 100: 128}
ALU_LANES, MUFU_LANES = 64, 16
SHARED_BYTES, L2_BYTES = 128, 32
TCGEN05_ROWS = 128
"""Rows of tensor memory. A product of 64 rows uses half of them and is assumed to take as long."""
SHARED_MEMORY = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}
"""Bytes of shared memory of a multiprocessor. CUDA programming guide, table of compute capabilities."""
PIPES = ("tensor", "mufu", "fma", "alu", "shared", "tmem", "l2", "issue")
EXPOSED = {"warp": 0.43, "blocks": 0.85, "little": 1.0}
"""What share of the shorter side, products or arithmetic, does not hide under the longer one; fitted to published
attention kernels. warp: a warp computes while its own products are in flight. blocks: only warps that no barrier ties
to it fill the gap. little: there are none."""

_OPCODES = {
    "tensor": "HGMMA HMMA UTCHMMA",
    "fma": "FADD FFMA FMUL HADD2 HFMA2 HMUL2",
    # Two results per lane, or only on the half of the pipe that multiplies integers.
    "fma twice": "FADD2 FFMA2 FMUL2 IMAD IMUL",
    "alu": "BMSK F2FP FMNMX FMNMX3 FSEL FSET FSETP I2FP IABS IADD3 IMNMX ISETP LEA LOP3 MOV P2R PLOP3 PRMT R2P SEL "
    "SGXT SHF VIADD VIADDMNMX VIMNMX VIMNMX3 VOTE",
    "mufu": "BREV F2F F2I FCHK FLO FRND I2F MUFU POPC",
    "shared": "ATOMG ATOMS LDG LDGSTS LDL LDS LDSM RED REDG SHFL STG STL STS STSM",
    "tmem": "LDTM STTM",
    # Scalars of a warp, jumps, barriers, orders to the copy engine: a slot each, and no pipe that could bind.
    "issue": "BAR BRA BREAK BRX BSSY BSYNC CALL CCTL CGAERRBAR CS2R DEPBAR ELECT ERRBAR FENCE LDC LDCU LDGDEPBAR "
    "MEMBAR NOP R2UR REDUX S2R S2UR SYNCS UFLO UIADD3 UIMAD UISETP ULDC ULEA ULOP3 UMOV UPLOP3 UPOPC UPRMT USEL USGXT "
    "USHF UTCBAR UTMALDG UTMASTG UVIADD VOTEU WARPGROUP WARPSYNC YIELD",
}
_PIPE_OF = {name: pipe for pipe, names in _OPCODES.items() for name in names.split()}
_ARITHMETIC = ("fma", "fma twice", "alu", "mufu")

Body = Sequence[tuple[str, str]]
"""Instructions of a loop: full name and operands."""


@dataclass(frozen=True)
class Work:
    """What one turn of the loop does: rows x keys scores over `channels` channels, `products` products of them.

    bytes: of a number. copied: whether the copy engine brings the keys, which then shows in no instruction of the
    loop. loads_rows: whether a turn brings its rows too. consumers: groups of warps, of `rows` rows each, that share
    the keys. matrices: tiles that a turn brings, 2 where values lie beside the keys.
    """

    rows: int
    keys: int
    channels: int
    products: int
    bytes: int = 2
    copied: bool = False
    loads_rows: bool = False
    consumers: int = 1
    matrices: int = 1


@dataclass(frozen=True)
class Cost:
    """Cycles per tile. pipes: of each alone; binds: the longest of them; expected: of all together.

    barriers: waits of a warp, for other warps, for copies and for products. overlap: a key of `EXPOSED`. peak: the
    share of the tensor cores' peak that `expected` leaves.
    """

    pipes: dict[str, float]
    barriers: float
    binds: str
    overlap: str
    expected: float
    peak: float


def opcode(name: str) -> str:
    """HGMMA of HGMMA.64x128x16.F32."""
    return name.split(".")[0]


def unknown(body: Body) -> list[str]:
    """Opcodes of which this model knows no pipe, sorted."""
    return sorted({opcode(name) for name, _ in body} - _PIPE_OF.keys())


def tile_cost(body: Body, arch: int, tiles: float, work: Work, blocks: int) -> Cost:
    """The cost of a loop whose turn makes `tiles` tiles per four warps. blocks: that share a multiprocessor.

    ValueError, by name, for an opcode of which no pipe is known.
    """
    if names := unknown(body):
        raise ValueError(f"no pipe is known for {', '.join(names)}; add it to kernels/cycles.py")
    counted: defaultdict[str, float] = defaultdict(float, issue=len(body))
    for name, operands in body:
        for pipe, cycles in _cycles(name, operands, arch).items():
            counted[pipe] += cycles
    hidden = _unseen(body, arch, work)
    pipes = {pipe: counted[pipe] / tiles + hidden.get(pipe, 0.0) for pipe in PIPES}
    overlap = "warp" if _in_flight(body) else "blocks" if blocks * work.consumers > 1 else "little"
    expected = together(pipes, overlap)
    barriers = sum(name.startswith(("BAR.", "SYNCS.PHASECHK", "WARPGROUP.DEPBAR")) for name, _ in body)
    peak = _products(arch, work) / expected
    return Cost(pipes, barriers / tiles, max(pipes, key=pipes.__getitem__), overlap, expected, peak)


def together(pipes: dict[str, float], overlap: str) -> float:
    """Cycles of all pipes: memory runs ahead and can only bind; products and arithmetic hide each other in part."""
    arithmetic = max(cycles for pipe, cycles in pipes.items() if pipe not in ("tensor", "shared", "l2"))
    shorter, longer = sorted((pipes["tensor"], arithmetic))
    return max(pipes.get("shared", 0.0), pipes.get("l2", 0.0), longer + EXPOSED[overlap] * shorter)


def blocks_per_sm(threads: int, registers: int, shared_bytes: int, arch: int) -> int:
    """Blocks that fit a multiprocessor by registers (allotted by 8), threads and shared memory (1 KB more each)."""
    allotted = threads * -(-registers // 8) * 8
    return min(65536 // allotted, 2048 // threads, SHARED_MEMORY[arch] // (shared_bytes + 1024))


def _cycles(name: str, operands: str, arch: int) -> dict[str, float]:
    """Pipe -> cycles that the instruction takes of it, in each of four warps on four schedulers; without its slot."""
    pipe = _PIPE_OF[opcode(name)]
    warps = SCHEDULERS * LANES
    if pipe == "fma twice":
        return {"fma": 2.0}
    if pipe == "fma":
        return {"fma": warps / FMA_LANES[arch]}
    if pipe in ("alu", "mufu"):
        return {pipe: warps / (ALU_LANES if pipe == "alu" else MUFU_LANES)}
    if pipe == "shared":
        return {pipe: SCHEDULERS * max(1.0, _bytes_of_a_warp(name) / SHARED_BYTES)}
    if pipe == "tmem":
        columns = re.search(r"\.x(\d+)", name)
        return {pipe: int(columns[1] if columns else 1) / (2 if ".16dp" in name else 1)}
    return {"shared": _operand_bytes(name, operands) / SHARED_BYTES} if name.startswith("HGMMA") else {}


def _bytes_of_a_warp(name: str) -> int:
    """Of one access; every lane its own address."""
    if matrices := re.search(r"\.MT?88(?:\.(\d))?", name):
        return int(matrices[1] or 1) * 8 * 8 * 2
    width = re.search(r"\.(128|64)\b", name)
    return LANES * (int(width[1]) // 8 if width else 4)


def _operand_bytes(name: str, operands: str) -> int:
    """Shared memory that a wgmma, one of four warps, reads: keys, and rows where those are not in registers."""
    rows, keys, depth = (int(size) for size in name.split(".")[1].split("x"))
    from_shared = operands.split(",")[1].strip().startswith("gdesc")
    return (keys + rows * from_shared) * depth * 2


def _products(arch: int, work: Work) -> float:
    """Cycles of a tile's products at the peak of the tensor cores."""
    return 64 * 128 * work.channels * work.products / PRODUCTS[arch]


def _unseen(body: Body, arch: int, work: Work) -> dict[str, float]:
    """What the instructions do not tell, per 64 x 128 tile: products, and keys that other engines bring and read."""
    tiles = work.rows * work.keys / (64 * 128)
    keys = work.keys * work.channels * work.bytes
    brought = work.matrices * keys / work.consumers + work.loads_rows * work.rows * work.channels * work.bytes
    tensor, read = _products(arch, work), 0
    tcgen05 = [operands.strip() for name, operands in body if opcode(name) == "UTCHMMA"]
    if tcgen05:
        tensor *= max(1.0, TCGEN05_ROWS / work.rows)
        # Keys always; rows (in steps of 16 channels) unless they lie in tensor memory.
        read = work.products * keys + sum(at.startswith("gdesc") for at in tcgen05) * work.rows * 16 * work.bytes
    shared = (read + brought * work.copied) / SHARED_BYTES
    return {"tensor": tensor, "shared": shared / tiles, "l2": brought / L2_BYTES / tiles}


def _in_flight(body: Body) -> bool:
    """Whether most of a warp's arithmetic runs while a wgmma of its own is outstanding, from the second turn on."""
    outstanding, beside, all_of_it = 0, 0, 0
    for turn in range(2):
        for name, operands in body:
            if opcode(name) == "HGMMA":
                outstanding += "gsb" in operands
            elif name.startswith("WARPGROUP.DEPBAR"):
                outstanding = min(outstanding, int(operands.split(",")[1], 16))
            elif turn and _PIPE_OF[opcode(name)] in _ARITHMETIC:
                beside, all_of_it = beside + (outstanding > 0), all_of_it + 1
    return 2 * beside > all_of_it
