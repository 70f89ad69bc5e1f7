"""What is in flight: TMA copies and committed tcgen05 products, and their landing."""

import numpy as np

from tests.softgpu.memory import TensorMap
from tests.softgpu.numbers import u1
from tests.softgpu.state import BlockState
from tests.softgpu.swizzle import swizzle
from tests.softgpu.translate import SMEM_BASE


class Flights(BlockState):
    """Mixed into `block.Block`."""

    def tma_issue(self, at: int, warp: int, shared: int, source: int, x: int, y: int, address: int) -> None:
        tensor = self.maps.get(source)
        if tensor is None:
            self.fault(at, "no tensor map at this address")
        barrier = self._barrier(at, warp, address, asynchronous=True)
        inner = tensor.box[1] * tensor.element
        if tensor.swizzle and inner > tensor.swizzle:
            self.fault(at, f"box of {inner} bytes is wider than the swizzle of {tensor.swizzle}")
        if shared % 128:
            self.fault(at, "TMA needs shared addresses that are multiples of 128")
        rows = np.arange(tensor.box[0])
        chunk = np.arange(0, inner, 16)
        linear = (shared + rows[:, None] * inner + chunk[None, :]).reshape(-1)
        target = swizzle(linear, tensor.swizzle) - SMEM_BASE
        if target.min() < 0 or target.max() + 16 > self.shared.size:
            self.fault(at, "TMA writes outside shared memory")
        actor, time = self.clocks.barrier(barrier.number), barrier.earlier + barrier.phase + 1
        self.write(
            at,
            np.full(len(target), warp),
            target,
            16,
            actor=np.full(len(target), actor),
            time=np.full(len(target), time),
            asynchronous=True,
        )
        data = self._box(tensor, x, y)
        self.flights.append(
            {
                "barrier": address,
                "phase": barrier.phase,
                "actor": actor,
                "time": time,
                "target": target,
                "data": data,
                "at": at,
            }
        )
        if self.eager:
            self._land()

    def _box(self, tensor: TensorMap, x: int, y: int) -> np.ndarray:
        found = self.memory.find(tensor.base)
        e = tensor.element
        data = np.zeros((tensor.box[0], tensor.box[1] * e), u1)
        rows, columns = tensor.shape
        y0, y1, x0, x1 = max(y, 0), min(y + tensor.box[0], rows), max(x, 0), min(x + tensor.box[1], columns)
        if y0 < y1 and x0 < x1:
            pitch = tensor.strides[0] * e
            start = tensor.base - found.base
            index = start + np.arange(y0, y1)[:, None] * pitch + np.arange(x0 * e, x1 * e)
            data[y0 - y : y1 - y, (x0 - x) * e : (x1 - x) * e] = found.views[1][index]
        return data.reshape(-1, 16)

    def _land(self) -> bool:
        """One copy in flight arrives, any of them."""
        if not self.flights:
            return False
        at = self.random.randrange(len(self.flights))
        if "products" in self.flights[at]:  # products finish in order
            at = next(i for i, flight in enumerate(self.flights) if "products" in flight)
        flight = self.flights.pop(at)
        barrier = self.mbarriers.get(flight["barrier"])
        if barrier is None or barrier.phase != flight["phase"]:
            self.fault(flight["at"], "a copy arrives in another phase of its mbarrier than it was issued in")
        if "products" in flight:
            for entry in flight["products"]:
                self._multiply(entry)
            barrier.pending -= 1
            if barrier.pending < 0:
                self.fault(flight["at"], "more arrivals than the mbarrier counts")
        else:
            self.shared[flight["target"][:, None] + np.arange(16)] = flight["data"]
            barrier.bytes -= flight["data"].size
        barrier.seen[flight["actor"]] = max(barrier.seen[flight["actor"]], flight["time"])
        self._complete(barrier)
        self.progress += 1
        return True
