"""What a team and a block hold: the fields that their parts share. A part is a class in a file of its own, mixed in."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.softgpu.clocks import GRANULE, Clocks
from tests.softgpu.memory import GlobalMemory, TensorMap
from tests.softgpu.numbers import UNSIGNED, u1, u4
from tests.softgpu.translate import Program


class Fault(Exception):
    """Something that a device would not do right. The message names the PTX line and the source line."""


@dataclass
class Barrier:
    """An mbarrier. seen and fenced: what its current phase has gathered; done: the same of the last two phases."""

    number: int
    count: int
    phase: int = 0
    pending: int = 0
    bytes: int = 0
    seen: Any = None
    fenced: Any = None
    done: dict[int, Any] = field(default_factory=dict)
    earlier: int = 0  # phases of earlier mbarriers at this address


@dataclass
class Fragment:
    """Threads of a team at one place. mask: None for the whole team. tried: progress count when it last blocked."""

    at: int
    mask: np.ndarray | None = None
    arrived: bool = False
    tried: int = -1
    waits_for: str = ""


class TeamState:
    """Warps `first` .. `first` + `count` - 1 of a block, with one register file."""

    def __init__(self, block: Any, first: int, count: int) -> None:
        self.block, self.first, self.count = block, first, count
        self.lanes = 32 * count
        self.R: list[Any] = [None] * len(block.program.number)
        for name in block.program.undefined:
            kind = block.program.canon[name]
            if kind != "p":
                self.R[block.program.number[name]] = np.full(self.lanes, 0xEE, u1).repeat(int(kind[1])).view(kind)
        thread = np.arange(32 * first, 32 * (first + count), dtype=u4)
        self.warp = (thread // 32).astype(np.intp)
        self.own = np.arange(first, first + count)
        full = lambda value: np.full(self.lanes, value, u4)
        x, y, z = block.index
        self.special = {
            "%tid.x": thread, "%tid.y": full(0), "%tid.z": full(0), "%laneid": thread % 32, "%warpid": thread // 32,
            "%ctaid.x": full(x), "%ctaid.y": full(y), "%ctaid.z": full(z), "%ntid.x": full(block.threads),
            **{f"%nctaid.{axis}": full(n) for axis, n in zip("xyz", block.grid, strict=True)},
        }  # fmt: skip
        self.fragments = [Fragment(0)]
        self.lane = np.arange(self.lanes)
        self.copy_groups: dict[int, deque] = {w: deque() for w in self.own}
        self.copy_open: dict[int, list] = {w: [] for w in self.own}
        self.copy_count = {w: 0 for w in self.own}
        self.product_open: list = []
        self.product_groups: deque = deque()
        self.product_count = 0
        self.pending_registers: dict[int, Any] = {}
        self.finished: dict[int, np.ndarray] = {}
        self.fenced: list[Any] | None = None  # registers at the last wgmma.fence


class BlockState:
    """One thread block. team_warps: warps per team. lazy: asynchronous results come as late as allowed."""

    def __init__(self, program: Program, memory: GlobalMemory, parameters: dict[str, Any], shared: int, index: tuple,
                 grid: tuple, seed: int, team_warps: int, policy: str, races: bool = True, number: int = 0,
                 strict: bool = True) -> None:  # fmt: skip
        self.program, self.memory, self.parameters = program, memory, parameters
        self.index, self.grid, self.number = index, grid, number
        self.threads, self.team_warps = program.kernel.threads, team_warps
        self.random = random.Random(seed)
        self.policy, self.races, self.strict = policy, races, strict
        self.warnings: set[str] = set()
        self.eager = policy == "eager"
        size = -(-max(shared, 16) // 16) * 16
        self.shared = np.frombuffer(np.random.default_rng(seed).bytes(size), u1).copy()
        self.shared[:] = 0xFF  # NaN in every floating-point type
        self.views = {1: self.shared} | {n: self.shared.view(UNSIGNED[n]) for n in (2, 4, 8)}
        warps = self.threads // 32
        self.clocks = Clocks(warps, size // GRANULE)
        self.mbarriers: dict[int, Barrier] = {}
        self.live = np.zeros(size // GRANULE, bool)  # granules of mbarriers
        self.bars: dict[int, dict] = {}
        self.flights: list[dict] = []
        self.registers = {w: program.kernel.max_registers for w in range(warps)}
        self.pool = 0
        self.progress = 0
        self.maps: dict[int, TensorMap] = {}
        self.operands: dict[tuple, np.ndarray] = {}
        self.tmem = np.full((128, 512), 0xFFFFFFFF, u4)
        self.tmem_held: dict[int, int] = {}  # first column -> columns
        self.products: list[tuple] = []  # issued and not committed
        self.steps = self.instructions = 0
        self.places: dict[int, list[int]] = {}  # of mbarriers: address -> [number, phases of earlier lives]
        self.teams: list[Any] = []

    def fault(self, at: int, text: str) -> None:
        ins = self.program.kernel.code[at]
        raise Fault(
            f"{text} (block {self.index}, PTX line {ins.line}: {ins.op}, {ins.source[0].rsplit('/', 1)[-1]}:{ins.source[1]})"
        )

    def place(self, at: int) -> str:
        ins = self.program.kernel.code[at]
        return f"PTX line {ins.line} {ins.op} ({ins.source[0].rsplit('/', 1)[-1]}:{ins.source[1]})"

    def map_address(self, name: str) -> int:
        address = 0x7000_0000_0000 + 64 * list(self.parameters).index(name)
        self.maps[address] = self.parameters[name]
        return address
