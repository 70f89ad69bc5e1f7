"""mbarriers of a block."""

from typing import Any

import numpy as np

from tests.softgpu.clocks import GRANULE, MAX_BARRIERS
from tests.softgpu.numbers import i4
from tests.softgpu.state import Barrier, BlockState
from tests.softgpu.translate import SMEM_BASE


class Mbarriers(BlockState):
    """Mixed into `block.Block`."""

    def _barrier(self, at: int, warps: Any, address: int, asynchronous: bool = False) -> Barrier:
        barrier = self.mbarriers.get(address)
        if barrier is None:
            self.fault(at, f"no mbarrier at shared + {address - SMEM_BASE}")
        if self.races:
            g = np.array([(address - SMEM_BASE) // GRANULE])
            for w in np.atleast_1d(warps):
                if asynchronous and not self.strict and not self.clocks.unordered_write(int(w), g, False).any():
                    if self.clocks.unordered_write(int(w), g, True).any():
                        self.warnings.add(
                            f"mbarrier initialised without a proxy fence before its use at {self.place(at)}"
                        )
                    continue
                bad = self.clocks.unordered_write(int(w), g, asynchronous)
                if bad.any():
                    self._race(at, np.array([w]), g, bad, "use of an mbarrier", "initialisation")
        return barrier

    def mbarrier_init(self, at: int, warp: int, address: int, count: int) -> None:
        self.write(at, np.array([warp]), np.array([address - SMEM_BASE]), 8)
        at_granule = (address - SMEM_BASE) // GRANULE
        self.live[at_granule : at_granule + 2] = True
        number, phases = self.places.setdefault(address, [len(self.places), 0])
        if number >= MAX_BARRIERS:
            raise NotImplementedError(f"more than {MAX_BARRIERS} mbarriers")
        nothing = np.zeros(self.clocks.actors, i4)
        self.mbarriers[address] = Barrier(number, count, 0, count, 0, nothing.copy(), nothing.copy(), earlier=phases)

    def mbarrier_inval(self, at: int, warp: int, address: int) -> None:
        barrier = self._barrier(at, warp, address)
        if barrier.bytes or any(f["barrier"] == address for f in self.flights):
            self.fault(at, "mbarrier ends with copies in flight")
        at_granule = (address - SMEM_BASE) // GRANULE
        self.live[at_granule : at_granule + 2] = False
        self.write(at, np.array([warp]), np.array([address - SMEM_BASE]), 8)
        self.places[address][1] += barrier.phase + 1
        del self.mbarriers[address]

    def mbarrier_arrive(self, at: int, warp: int, address: int, expect: int) -> None:
        barrier = self._barrier(at, warp, address)
        barrier.bytes += expect
        barrier.pending -= 1
        if barrier.pending < 0:
            self.fault(at, "more arrivals than the mbarrier counts")
        barrier.seen = np.maximum(barrier.seen, self.clocks.seen[warp])
        barrier.fenced = np.maximum(barrier.fenced, self.clocks.fenced[warp])
        self.clocks.tick(warp)
        self._complete(barrier)

    def _complete(self, barrier: Barrier) -> None:
        if barrier.pending == 0 and barrier.bytes == 0:
            barrier.done[barrier.phase & 1] = (barrier.seen.copy(), barrier.fenced.copy())
            barrier.phase += 1
            barrier.pending = barrier.count
            self.progress += 1

    def mbarrier_test(self, at: int, warps: np.ndarray, address: int, parity: int) -> bool:
        barrier = self._barrier(at, warps, address)
        if barrier.phase & 1 == parity:
            return False
        if parity in barrier.done:
            seen, fenced = barrier.done[parity]
            for w in warps:
                self.clocks.seen[w] = np.maximum(self.clocks.seen[w], seen)
                self.clocks.fenced[w] = np.maximum(self.clocks.fenced[w], fenced)
        return True
