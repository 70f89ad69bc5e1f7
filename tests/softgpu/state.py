"""What a team and a block hold: the fields that their parts share. A part is a class in a file of its own, mixed in."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.softgpu.clocks import GRANULE, LANES, Clocks
from tests.softgpu.memory import GlobalMemory, TensorMap
from tests.softgpu.numbers import UNSIGNED, UNWRITTEN, u1, u4
from tests.softgpu.parse import Instruction
from tests.softgpu.program import Program


class Fault(Exception):
    """Something that a device would not do right. The message names the PTX line and the source line."""


@dataclass
class Fragment:
    """Threads of a team at one place. mask: None for the whole team. tried: progress count when it last blocked.

    arrived, generation: whether it has arrived at the barrier that it stands at, and which use of the barrier that is.
    """

    at: int
    mask: np.ndarray | None = None
    arrived: bool = False
    generation: int = 0
    tried: int = -1
    waits_for: str = ""


class TeamState:
    """Warps `first` .. `first` + `count` - 1 of a block, with one register file.

    Arrays over the team have one entry per thread: `lane` counts in the team, `thread` in the block, `warp` is the warp
    in the block. alive: threads that have not returned.
    """

    def __init__(self, block: "BlockState", first: int, count: int) -> None:
        self.block, self.first, self.count = block, first, count
        self.lanes = LANES * count
        self.R: list[Any] = [UNWRITTEN] * len(block.program.number)
        for name in block.program.undefined:
            kind = block.program.canon[name]
            if kind != "p":
                self.R[block.program.number[name]] = np.full(self.lanes, 0xEE, u1).repeat(int(kind[1])).view(kind)
        self.lane = np.arange(self.lanes)
        self.thread = self.lane + LANES * first
        self.warp = self.thread // LANES
        self.own = np.arange(first, first + count)
        self.alive = np.ones(self.lanes, bool)
        self.special = self._special()
        self.fragments = [Fragment(0)]
        self.pending_registers: dict[int, int] = {}  # of asynchronous instructions in flight -> the instruction

    def _special(self) -> dict[str, np.ndarray]:
        block, thread = self.block, self.thread.astype(u4)
        same = {"%tid.y": 0, "%tid.z": 0, "%ntid.x": block.threads, "%ntid.y": 1, "%ntid.z": 1}
        same |= {f"%ctaid.{axis}": n for axis, n in zip("xyz", block.index, strict=True)}
        same |= {f"%nctaid.{axis}": n for axis, n in zip("xyz", block.grid, strict=True)}
        own = {"%tid.x": thread, "%laneid": thread % LANES, "%warpid": thread // LANES}
        return own | {name: np.full(self.lanes, value, u4) for name, value in same.items()}


class BlockState:
    """One thread block, at `index` in the grid, the `number`th to be run. `block.launch` says what the rest is."""

    def __init__(
        self,
        program: Program,
        memory: GlobalMemory,
        parameters: dict[str, Any],
        shared: int,
        index: tuple[int, int, int],
        grid: tuple[int, int, int],
        number: int = 0,
        *,
        seed: int = 0,
        policy: str = "random",
        races: bool = True,
        strict: bool = False,
        differing: str = "fault",
        copies: bool = True,
        tensor: bool = True,
    ) -> None:
        self.program, self.memory, self.parameters = program, memory, parameters
        self.index, self.grid, self.number = index, grid, number
        self.threads = program.kernel.threads
        self.random = random.Random(seed)
        self.policy, self.races, self.strict, self.differing = policy, races, strict, differing
        self.warnings: set[str] = set()
        self.eager = policy == "eager"
        size = -(-max(shared, 16) // 16) * 16
        self.shared = np.full(size, 0xFF, u1)  # NaN in every floating-point type
        self.views = {1: self.shared} | {n: self.shared.view(UNSIGNED[n]) for n in (2, 4, 8)}
        warps = self.threads // LANES
        self.clocks = Clocks(warps, size // GRANULE, copies, tensor)
        self.bars: dict[int, dict] = {}
        self.registers = dict.fromkeys(range(warps), program.kernel.max_registers)
        self.pool = 0
        self.progress = 0
        # What atomic operations of this block have learnt: (thread, time, block -> newest time of each thread).
        self.acquired: list[tuple[int, int, dict[int, np.ndarray]]] = []
        self.maps: dict[int, TensorMap] = {}
        self.operands: dict[tuple, np.ndarray] = {}
        self.steps = 0
        self.teams: list[Any] = []

    def fault(self, at: int, text: str) -> None:
        """Raise Fault, with where it happened."""
        ins = self.program.kernel.code[at]
        raise Fault(f"{text} (block {self.index}, PTX line {ins.line}: {ins.op}, {_source(ins)})")

    def place(self, at: int) -> str:
        """An instruction in words."""
        ins = self.program.kernel.code[at]
        return f"PTX line {ins.line} {ins.op} ({_source(ins)})"

    def map_address(self, name: str) -> int:
        """The address by which the kernel knows the tensor map that is the parameter `name`."""
        address = 0x7000_0000_0000 + 64 * list(self.parameters).index(name)
        self.maps[address] = self.parameters[name]
        return address


def _source(ins: Instruction) -> str:
    return f"{ins.source[0].rsplit('/', 1)[-1]}:{ins.source[1]}"
