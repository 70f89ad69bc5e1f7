"""mbarriers of a block."""

from typing import Any

import numpy as np

from tests.softgpu.clocks import GRANULE, LANES, MAX_BARRIERS
from tests.softgpu.numbers import i4
from tests.softgpu.state import Barrier, BlockState
from tests.softgpu.writer import SMEM_BASE


class Mbarriers(BlockState):
    """Mixed into `block.Block`."""

    def _barrier(self, at: int, threads: Any, address: int, asynchronous: bool = False) -> Barrier:
        barrier = self.mbarriers.get(address)
        if barrier is None:
            self.fault(at, f"no mbarrier at shared + {address - SMEM_BASE}")
        if self.races:
            threads = np.atleast_1d(threads)
            g = np.full(len(threads), (address - SMEM_BASE) // GRANULE)
            bad = self.clocks.unordered(threads, g, asynchronous)
            if asynchronous and not self.strict and bad.any() and not self.clocks.unordered(threads, g, False).any():
                self.warnings.add(f"mbarrier initialised without a proxy fence before its use at {self.place(at)}")
            elif bad.any():
                self._race(at, threads, g, bad, "use of an mbarrier", "initialisation")
        return barrier

    def mbarrier_init(self, at: int, thread: int, address: int, count: int) -> None:
        self._write_barrier(at, thread, address)
        at_granule = (address - SMEM_BASE) // GRANULE
        self.live[at_granule : at_granule + 2] = True
        number, phases = self.places.setdefault(address, [len(self.places), 0])
        if number >= MAX_BARRIERS:
            raise NotImplementedError(f"more than {MAX_BARRIERS} mbarriers")
        nothing = np.zeros(self.clocks.actors, i4)
        self.mbarriers[address] = Barrier(number, count, 0, count, 0, nothing.copy(), nothing.copy(), earlier=phases)

    def _write_barrier(self, at: int, thread: int, address: int) -> None:
        warp, lane = divmod(np.array([thread]), LANES)
        self.write(at, warp, np.array([address - SMEM_BASE]), 8, lane=lane)

    def mbarrier_inval(self, at: int, thread: int, address: int) -> None:
        barrier = self._barrier(at, thread, address)
        if barrier.bytes or any(f["barrier"] == address for f in self.flights):
            self.fault(at, "mbarrier ends with copies in flight")
        at_granule = (address - SMEM_BASE) // GRANULE
        self.live[at_granule : at_granule + 2] = False
        self._write_barrier(at, thread, address)
        self.places[address][1] += barrier.phase + 1
        del self.mbarriers[address]

    def mbarrier_arrive(self, at: int, thread: int, address: int, expect: int) -> None:
        barrier = self._barrier(at, thread, address)
        barrier.bytes += expect
        barrier.pending -= 1
        if barrier.pending < 0:
            self.fault(at, "more arrivals than the mbarrier counts")
        known, flushed = self.clocks.release(np.array([thread]))
        barrier.seen = np.maximum(barrier.seen, known)
        barrier.fenced = np.maximum(barrier.fenced, flushed)
        self._complete(barrier)

    def _complete(self, barrier: Barrier) -> None:
        if barrier.pending == 0 and barrier.bytes == 0:
            barrier.done[barrier.phase & 1] = (barrier.seen.copy(), barrier.fenced.copy())
            barrier.phase += 1
            barrier.pending = barrier.count
            self.progress += 1

    def mbarrier_test(self, at: int, threads: np.ndarray, address: int, parity: int) -> bool:
        barrier = self._barrier(at, threads, address)
        if barrier.phase & 1 == parity:
            return False
        if parity in barrier.done:
            self.clocks.acquire(threads, *barrier.done[parity])
        return True
