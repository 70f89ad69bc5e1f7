"""What is in flight: the TMA's copies and tcgen05 products, and their landing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.softgpu.block_mbarriers import Barrier
from tests.softgpu.clocks import LANES
from tests.softgpu.memory import TensorMap
from tests.softgpu.numbers import u1
from tests.softgpu.state import BlockState
from tests.softgpu.swizzle import swizzle
from tests.softgpu.writer import SMEM_BASE


@dataclass
class Flight:
    """An operation that tells an mbarrier of its end. land: does it.

    phase: of the mbarrier when it was issued. actor, time: the event that the mbarrier's waiters then know of. bytes:
    that the mbarrier waits for; 0 for an arrival. in_turn: after all earlier ones of its kind.
    """

    at: int
    barrier: Barrier
    phase: int
    actor: int
    time: int
    land: Callable[[], None]
    bytes: int = 0
    in_turn: bool = False


class Flights(BlockState):
    """Mixed into `block.Block`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.flights: list[Flight] = []

    def at_once(self) -> bool:
        """Whether the policy has an asynchronous operation done where it is issued, and not as late as allowed."""
        return self.eager or (self.policy == "random" and self.random.random() < 0.5)

    def fly(self, flight: Flight) -> None:
        self.flights.append(flight)
        if self.eager:
            self._land()

    def tma_issue(self, at: int, thread: int, shared: int, source: int, x: int, y: int, address: int) -> None:
        """Copy a tile that starts at column x and row y to shared memory. What lies outside the tensor is zeros."""
        tensor = self.maps.get(source)
        if tensor is None:
            self.fault(at, "no tensor map at this address")
        self._check_map(at, tensor)
        barrier = self._barrier(at, thread, address, asynchronous=True)
        target = self._target(at, tensor, shared)
        actor, each = self.clocks.barrier(barrier.number), np.ones(len(target), int)
        self.write(at, each * (thread // LANES), target, 16, actor=each * actor, time=each * barrier.time,
                   asynchronous=True, lane=each * (thread % LANES))  # fmt: skip
        data = self._box(at, thread, tensor, x, y)

        def land() -> None:
            self.shared[target[:, None] + np.arange(16)] = data

        self.fly(Flight(at, barrier, barrier.phase, actor, barrier.time, land, bytes=data.size))

    def _check_map(self, at: int, tensor: TensorMap) -> None:
        """What cuTensorMapEncodeTiled refuses, for two dimensions without interleaving."""
        if len(tensor.shape) != 2 or len(tensor.box) != 2:
            self.fault(at, f"a tensor map of {len(tensor.shape)} dimensions, a copy of 2")
        rows, columns = tensor.box
        inner, pitch = columns * tensor.element, tensor.strides[0] * tensor.element
        if not (1 <= rows <= 256 and 1 <= columns <= 256):
            self.fault(at, f"a box of {rows} x {columns}: a side is 1 to 256")
        if inner % 16:
            self.fault(at, f"rows of a box have {inner} bytes, not a multiple of 16")
        if tensor.swizzle and inner > tensor.swizzle:
            self.fault(at, f"box of {inner} bytes is wider than the swizzle of {tensor.swizzle}")
        if tensor.base % 16 or pitch % 16 or not 0 < pitch < 1 << 40:
            self.fault(at, "a tensor map needs an address and a stride that are multiples of 16 bytes")
        if tensor.strides[1] != 1:
            self.fault(at, "the innermost stride of a tensor map is one element")

    def _target(self, at: int, tensor: TensorMap, shared: int) -> np.ndarray:
        """Offsets in shared memory of the box's 16-byte chunks, (chunks,)."""
        if shared % 128:
            self.fault(at, "TMA needs shared addresses that are multiples of 128")
        size = tensor.box[0] * tensor.box[1] * tensor.element
        target = swizzle(np.arange(shared, shared + size, 16), tensor.swizzle) - SMEM_BASE
        if target.min() < 0 or target.max() + 16 > self.shared.size:
            self.fault(at, "TMA writes outside shared memory")
        return target

    def _box(self, at: int, thread: int, tensor: TensorMap, x: int, y: int) -> np.ndarray:
        """The tile's bytes, (chunks, 16)."""
        found = self.memory.find(tensor.base)
        e, (high, wide), (rows, columns) = tensor.element, tensor.box, tensor.shape
        data = np.zeros((high, wide * e), u1)
        y0, y1, x0, x1 = max(y, 0), min(y + high, rows), max(x, 0), min(x + wide, columns)
        if y0 < y1 and x0 < x1:
            start = tensor.base - found.base + x0 * e + np.arange(y0, y1) * tensor.strides[0] * e
            size = (x1 - x0) * e
            self.read_global(at, found, np.full(y1 - y0, thread), start, size)
            data[y0 - y : y1 - y, (x0 - x) * e : (x1 - x) * e] = found.views[1][start[:, None] + np.arange(size)]
        return data.reshape(-1, 16)

    def _land(self) -> bool:
        """One operation in flight ends, any of them, but products in their order. False without any."""
        if not self.flights:
            return False
        at = self.random.randrange(len(self.flights))
        if self.flights[at].in_turn:
            at = next(i for i, flight in enumerate(self.flights) if flight.in_turn)
        flight = self.flights.pop(at)
        barrier = flight.barrier
        if barrier.phase != flight.phase:
            self.fault(flight.at, "a copy arrives in another phase of its mbarrier than it was issued in")
        flight.land()
        barrier.known = barrier.known.copy()
        barrier.known[flight.actor] = max(barrier.known[flight.actor], flight.time)
        self.progress += 1
        if flight.bytes:
            barrier.bytes -= flight.bytes
            self._complete(barrier)
        else:
            self._arrive(flight.at, barrier, 1)
        return True
