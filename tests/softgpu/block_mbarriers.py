"""mbarriers of a block."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.softgpu.clocks import GRANULE, LANES, MAX_BARRIERS
from tests.softgpu.numbers import i4
from tests.softgpu.parse import Unsupported
from tests.softgpu.state import BlockState
from tests.softgpu.writer import SMEM_BASE

LIMIT = (1 << 20) - 1  # of arrivals and of bytes


@dataclass
class Barrier:
    """An mbarrier. number: of its place; earlier: phases of mbarriers that were at its place before.

    pending: arrivals and bytes: transfers that the current phase still waits for. known, flushed: the clocks that it
    has gathered; done: parity -> those of the newest phase of that parity that is over.
    """

    number: int
    count: int
    earlier: int
    known: np.ndarray
    flushed: np.ndarray
    phase: int = 0
    pending: int = 0
    bytes: int = 0
    done: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def time(self) -> int:
        """The clock of the current phase, of all mbarriers at this place."""
        return self.earlier + self.phase + 1


class Mbarriers(BlockState):
    """Mixed into `block.Block`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.mbarriers: dict[int, Barrier] = {}
        self.live = np.zeros(self.shared.size // GRANULE, bool)  # granules of mbarriers
        self.places: dict[int, list[int]] = {}  # address -> number, phases of earlier mbarriers

    def mbarrier_init(self, at: int, thread: int, address: int, count: int) -> None:
        if not 1 <= count <= LIMIT:
            self.fault(at, f"an mbarrier counts 1 to {LIMIT} arrivals, not {count}")
        self._touch(at, thread, address, True)
        number, phases = self.places.setdefault(address, [len(self.places), 0])
        if number >= MAX_BARRIERS:
            raise Unsupported(f"more than {MAX_BARRIERS} mbarriers")
        nothing = np.zeros(self.clocks.actors, i4)
        self.mbarriers[address] = Barrier(number, count, phases, nothing, nothing, pending=count)

    def mbarrier_inval(self, at: int, thread: int, address: int) -> None:
        barrier = self._barrier(at, thread, address)
        if barrier.bytes or any(flight.barrier is barrier for flight in self.flights):
            self.fault(at, "mbarrier ends with copies in flight")
        del self.mbarriers[address]
        self.live[self._granule(address) : self._granule(address) + 2] = False
        self._touch(at, thread, address, False)
        self.places[address][1] += barrier.phase + 1

    def mbarrier_expect(self, at: int, thread: int, address: int, expect: int) -> None:
        barrier = self._barrier(at, thread, address)
        barrier.bytes += expect
        if barrier.bytes > LIMIT:
            self.fault(at, f"an mbarrier counts at most {LIMIT} bytes, not {barrier.bytes}")

    def mbarrier_arrive(self, at: int, thread: int, address: int, expect: int, count: int = 1) -> None:
        self.mbarrier_expect(at, thread, address, expect)
        barrier = self.mbarriers[address]
        known, flushed = self.clocks.release(np.array([thread]))
        barrier.known, barrier.flushed = np.maximum(barrier.known, known), np.maximum(barrier.flushed, flushed)
        self._arrive(at, barrier, count)

    def mbarrier_test(self, at: int, threads: np.ndarray, address: int, parity: int) -> bool:
        """Whether the newest phase of this parity is over; the threads then know what was done before it ended."""
        barrier = self._barrier(at, threads, address)
        if barrier.phase & 1 == parity:
            return False
        if parity in barrier.done:
            self.clocks.acquire(threads, *barrier.done[parity])
        return True

    def _arrive(self, at: int, barrier: Barrier, count: int) -> None:
        barrier.pending -= count
        if barrier.pending < 0:
            self.fault(at, f"more arrivals than the {barrier.count} that the mbarrier counts")
        self._complete(barrier)

    def _complete(self, barrier: Barrier) -> None:
        if barrier.pending == 0 and barrier.bytes == 0:
            barrier.done[barrier.phase & 1] = (barrier.known, barrier.flushed)
            barrier.phase += 1
            barrier.pending = barrier.count
            self.progress += 1

    def _granule(self, address: int) -> int:
        return (address - SMEM_BASE) // GRANULE

    def _touch(self, at: int, thread: int, address: int, live: bool) -> None:
        """The 8 bytes are written by a thread: they become an mbarrier, or are free again."""
        offset = address - SMEM_BASE
        if address % 8 or not 0 <= offset <= self.shared.size - 8:
            self.fault(at, f"no place for an mbarrier: shared + {offset}")
        warp, lane = divmod(np.array([thread]), LANES)
        self.write(at, warp, np.array([offset]), 8, lane=lane)
        self.live[self._granule(address) : self._granule(address) + 2] = live

    def _barrier(self, at: int, threads: Any, address: int, asynchronous: bool = False) -> Barrier:
        """The mbarrier at an address, whose initialisation the threads must know of."""
        barrier = self.mbarriers.get(address)
        if barrier is None:
            self.fault(at, f"no mbarrier at shared + {address - SMEM_BASE}")
        if self.races:
            self._check_init(at, np.atleast_1d(threads), self._granule(address), asynchronous)
        return barrier

    def _check_init(self, at: int, threads: np.ndarray, granule: int, asynchronous: bool) -> None:
        """Triton's pipeliner leaves the proxy fence after the initialisation out: a fault for strict blocks only."""
        g = np.full(len(threads), granule)
        bad = self.clocks.unordered(threads, g, asynchronous)
        if asynchronous and not self.strict and bad.any() and not self.clocks.unordered(threads, g, False).any():
            self.warnings.add(f"mbarrier initialised without a proxy fence before its use at {self.place(at)}")
        elif bad.any():
            self._race(at, threads, g, bad, "use of an mbarrier", "initialisation")
