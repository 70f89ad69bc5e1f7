"""tcgen05: tensor memory as threads see it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.softgpu.numbers import UNWRITTEN, f4, u4
from tests.softgpu.state import TeamState
from tests.softgpu.tensor_clocks import STRIP

POISON = u4(0xFFFFFFFF)
NAN = POISON.view(f4)


@dataclass
class Load:
    """A tcgen05.ld in flight. values: (registers, lanes) as far as they are known. lanes: that wait for theirs."""

    at: int
    registers: tuple[int, ...]
    values: np.ndarray
    late: list[tuple[int, list[np.ndarray]]]  # warp, parts of tensor memory that are read when it waits
    lanes: np.ndarray


class Tcgen05(TeamState):
    """Mixed into `team.Team`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tensor_loads: list[Load] = []
        self.tensor_stores: dict[int, list] = {w: [] for w in self.own}  # (part of tensor memory, data)

    # Columns

    def tmem_alloc(self, at: int, address: np.ndarray, columns: int, mask: np.ndarray | None) -> None:
        lane = self._one_warp(at, mask)
        if lane is None:
            return
        offset, warp = self._shared(at, address[lane : lane + 1], 4), self.warp[lane : lane + 1]
        # Other warps need a barrier before they read the address. A copy may take its place without a proxy fence: the
        # manual asks for none, and Triton puts none there.
        lanes = self.thread[lane : lane + 32]
        self.block.write(at, warp, offset, 4, lane=np.zeros(1, int))
        self.block.clocks.join(lanes)
        self.block.clocks.fence(lanes)
        self.block.views[4][offset // 4] = self.block.tmem_alloc(at, columns)

    def tmem_dealloc(self, at: int, address: np.ndarray, columns: int, mask: np.ndarray | None) -> None:
        lane = self._one_warp(at, mask)
        if lane is not None:
            self.block.tmem_dealloc(at, int(self.warp[lane]), int(address[lane]), columns)

    def tmem_relinquish(self, at: int, mask: np.ndarray | None) -> None:
        if self._one_warp(at, mask) is not None:
            self.block.tmem_permit = False

    def _one_warp(self, at: int, mask: np.ndarray | None) -> int | None:
        """The first lane of the warp that executes an allocation; None if no warp does."""
        self._whole_warps(at, mask)
        warps = np.flatnonzero(self._executing(mask))
        if len(warps) > 1:
            self.block.fault(at, "more than one warp of a block executes an instruction of tensor memory's allocation")
        return 32 * int(warps[0]) if len(warps) else None

    def _executing(self, mask: np.ndarray | None) -> np.ndarray:
        """Which warps of the team execute an instruction."""
        return np.ones(self.count, bool) if mask is None else mask.reshape(-1, 32).any(1)

    # Loads and stores

    def _parts(self, at: int, warp: int, address: np.ndarray, count: int, half: int | None) -> tuple[list, list]:
        """Views of tensor memory (lanes, count) that the warp's threads have in turn, and their regions."""
        if (address != address[0]).any():
            self.block.fault(at, "threads of a warp give different addresses in tensor memory")
        lane, column = int(address[0]) >> 16, int(address[0]) & 0xFFFF
        first = warp % 4 * 32
        if lane not in ((first,) if half is None else (first, first + 16)):
            self.block.fault(at, f"warp {warp} reaches for lane {lane} of tensor memory: its own begin at {first}")
        high = 32 if half is None else 16
        views, regions = [], []
        for start in (column,) if half is None else (column, column + half):
            self.block.tmem_check(at, lane, high, start, count)
            views.append(self.block.tmem[lane : lane + high, start : start + count])
            regions.append((slice(lane // STRIP, (lane + high) // STRIP), slice(start, start + count)))
        return views, regions

    def tmem_load(self, at: int, R: list, registers: tuple, address: np.ndarray, half: int | None, mask: Any) -> None:
        """.32x32b (half None: a lane of tensor memory per thread) or .16x32bx2 (16 lanes, the second 16 threads `half`
        columns further on), registers as many as columns. They hold nothing before tcgen05.wait::ld."""
        self._whole_warps(at, mask)
        clocks, active = self.block.tensor_clocks, self._executing(mask)
        load = Load(at, registers, np.full((len(registers), self.lanes), POISON), [], np.repeat(active, 32))
        for i in np.flatnonzero(active):
            warp, lanes = int(self.own[i]), slice(32 * i, 32 * i + 32)
            views, regions = self._parts(at, warp, address[lanes], len(registers), half)
            actor = clocks.loads(warp)
            for region in regions:
                self.block.tmem_read(at, self.block.clocks.warp(warp), actor, region, clocks.open_time(actor))
            if self.block.at_once():
                load.values[:, lanes] = np.concatenate(views).T
            else:
                load.late.append((int(i), views))
        self.tensor_loads.append(load)
        for number in registers:
            self._poison(R, number, load.lanes)
            self.pending_registers[number] = at

    def _poison(self, R: list, number: int, lanes: np.ndarray) -> None:
        """Nothing for all threads, so that any use is noticed; NaN where only some warps load."""
        if lanes.all():
            R[number] = UNWRITTEN
        else:
            R[number] = np.where(lanes, NAN, NAN if R[number] is UNWRITTEN else R[number])

    def tmem_store(self, at: int, address: np.ndarray, values: tuple, half: int | None, mask: Any) -> None:
        """The opposite of tmem_load. Registers are read at once."""
        self._whole_warps(at, mask)
        clocks = self.block.tensor_clocks
        for i in np.flatnonzero(self._executing(mask)):
            warp, lanes = int(self.own[i]), slice(32 * i, 32 * i + 32)
            views, regions = self._parts(at, warp, address[lanes], len(values), half)
            actor = clocks.stores(warp)
            for region in regions:
                self.block.tmem_write(at, self.block.clocks.warp(warp), actor, region, clocks.open_time(actor))
            data = np.stack([value[lanes] for value in values], 1)
            writes = list(zip(views, np.split(data, len(views)), strict=True))
            if self.block.at_once():
                self._write(writes)
            else:
                self.tensor_stores[warp] += writes

    @staticmethod
    def _write(writes: list) -> None:
        for view, data in writes:
            view[...] = data

    def tmem_wait_load(self, at: int, R: list, mask: Any) -> None:
        self._whole_warps(at, mask)
        active = self._executing(mask)
        for warp in self.own[active]:
            self.block.tensor_clocks.waited(self.block.tensor_clocks.loads(int(warp)))
        for load in self.tensor_loads:
            self._arrive_load(R, load, np.repeat(active, 32))
        self.tensor_loads = [load for load in self.tensor_loads if load.lanes.any()]

    def _arrive_load(self, R: list, load: Load, waiting: np.ndarray) -> None:
        """Warps that wait get what they loaded."""
        for i, views in load.late:
            if waiting[32 * i]:
                load.values[:, 32 * i : 32 * i + 32] = np.concatenate(views).T
        load.late = [(i, views) for i, views in load.late if not waiting[32 * i]]
        ready = load.lanes & waiting
        if not ready.any():
            return
        for number, value in zip(load.registers, load.values.view(f4), strict=True):
            if load.lanes.all() and R[number] is not UNWRITTEN:
                self.block.fault(load.at, "a register of a tcgen05.ld is written while it is in flight")
            self.pending_registers.pop(number, None)
            R[number] = value if ready.all() else np.where(ready, value, NAN if R[number] is UNWRITTEN else R[number])
        load.lanes = load.lanes & ~waiting

    def copied_early(self, at: int, R: list, targets: list[int]) -> None:
        """A register is copied before its tcgen05.ld was waited for: see `program.EarlyCopies`."""
        if self.block.strict:
            self.block.fault(at, "a register of a tcgen05.ld in flight is copied")
        self.block.warnings.add(f"a register of a tcgen05.ld in flight is copied at {self.block.place(at)}")
        for number in targets:
            R[number] = UNWRITTEN

    def tmem_wait_store(self, at: int, mask: Any) -> None:
        self._whole_warps(at, mask)
        for warp in self.own[self._executing(mask)]:
            self._write(self.tensor_stores[warp])
            self.tensor_stores[warp] = []
            self.block.tensor_clocks.waited(self.block.tensor_clocks.stores(int(warp)))

    def tcgen05_fence(self, before: bool, mask: Any) -> None:
        threads = self.thread if mask is None else self.thread[mask]
        clocks = self.block.tensor_clocks
        (clocks.fence_before if before else clocks.fence_after)(threads)

    # Products

    def tcgen05_mma(self, at: int, d: Any, memory: bool, a: Any, b: Any, form: Any, keep: Any, mask: Any) -> None:
        for lane in self.lane if mask is None else np.flatnonzero(mask):
            self.block.tcgen05_mma(at, int(self.thread[lane]), int(d[lane]), int(a[lane]), memory,
                                   int(b[lane]), int(form[lane]), bool(keep[lane]))  # fmt: skip

    def tcgen05_commit(self, at: int, barrier: np.ndarray, mask: Any) -> None:
        for lane in self.lane if mask is None else np.flatnonzero(mask):
            self.block.tcgen05_commit(at, int(self.thread[lane]), int(barrier[lane]))
