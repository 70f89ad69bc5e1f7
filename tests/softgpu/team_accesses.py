"""Loads, stores and atomics of threads, in global and shared memory."""

from typing import Any

import numpy as np

from tests.softgpu.clocks import LANES
from tests.softgpu.numbers import UNSIGNED, u4, u8
from tests.softgpu.team_control import Control
from tests.softgpu.writer import SMEM_BASE

ATOMICS = {
    "add": lambda old, new: old + new, "exch": lambda old, new: new, "min": min, "max": max,
    "and": lambda old, new: old & new, "or": lambda old, new: old | new, "xor": lambda old, new: old ^ new,
    "inc": lambda old, new: old * 0 if old >= new else old + old.dtype.type(1),
    "dec": lambda old, new: new if old == 0 or old > new else old - old.dtype.type(1),
    "cas": lambda old, both: both[1] if old == both[0] else old,
}  # fmt: skip


class Accesses(Control):
    """Mixed into `team.Team`.

    size: bytes of an element. count: elements of a thread, side by side. Values are unsigned integers, an array over
    the threads of the team per element; an inactive thread loads 0.
    """

    # Global memory

    def _global(self, at: int, address: np.ndarray, size: int, extent: int, mask: np.ndarray | None) -> tuple:
        """The allocation that active threads read `extent` bytes of, and at which elements (None, None: no thread)."""
        found, index = self._find(at, address, size, extent, mask)
        if found is not None:
            self.block.read_global(at, found, self._active_threads(mask), index * size, extent)
        return found, index

    def _find(self, at: int, address: np.ndarray, size: int, extent: int, mask: np.ndarray | None) -> tuple:
        where = address if mask is None else address[mask]
        if not where.size:
            return None, None
        if (where & u8(extent - 1)).any():
            self.block.fault(at, f"global address is not a multiple of {extent} bytes")
        found = self.block.memory.find(int(where.min()))
        if found is None or int(where.max()) + extent > found.base + found.size:
            self._outside(at, where, extent)
        return found, ((where - u8(found.base)) // u8(size)).astype(np.intp)

    def _outside(self, at: int, where: np.ndarray, extent: int) -> None:
        find = self.block.memory.find
        bad = [(a, f) for a in where.tolist() if not (f := find(a)) or a + extent > f.base + f.size]
        if not bad:
            raise NotImplementedError(f"one access to several tensors at {self.block.place(at)}")
        a, f = bad[0]
        near = f"{a - f.base} bytes into {f.name} of {f.size} bytes" if f else "before every tensor"
        self.block.fault(at, f"{len(bad)} global accesses out of bounds, the first {near}")

    def load_global(self, at: int, address: np.ndarray, size: int, count: int, mask: np.ndarray | None) -> list:
        found, index = self._global(at, address, size, size * count, mask)
        if found is None:
            return [np.zeros(self.lanes, UNSIGNED[size])] * count
        return [self._everywhere(found.views[size][index + i], mask) for i in range(count)]

    def store_global(self, at: int, address: np.ndarray, size: int, values: tuple, mask: np.ndarray | None) -> None:
        found, index = self._find(at, address, size, size * len(values), mask)
        if found is None:
            return
        view = found.views[size]
        values = [value if mask is None else value[mask] for value in values]
        idle = np.all([view[index + i] == value for i, value in enumerate(values)], 0)
        threads = self._active_threads(mask)
        self.block.write_global(at, found, threads, index * size, size * len(values), idle)
        self._put(at, view, index, values, threads, found.name)

    def atomic(self, at: int, action: str, address: np.ndarray, value: Any, mask: np.ndarray | None,
               order: str = "relaxed", scope: str = "gpu") -> np.ndarray:  # fmt: skip
        """What was there before. value: of cas a pair, what is expected and what replaces it."""
        first = value[0] if isinstance(value, tuple) else value
        size = first.dtype.itemsize
        found, index = self._find(at, address, size, size, mask)
        old = np.zeros(self.lanes, first.dtype)
        if found is None:
            return old
        self.block.atomic_global(at, found, self._active_threads(mask), index * size, size, order, scope)
        view = found.views[size].view(first.dtype)
        lanes = self.lane if mask is None else self.lane[mask]
        for lane, place in zip(lanes, index, strict=True):
            old[lane] = view[place]
            new = (value[0][lane], value[1][lane]) if isinstance(value, tuple) else value[lane]
            view[place] = ATOMICS[action](view[place], new)
        return old

    # Shared memory

    def _shared(self, at: int, address: np.ndarray, extent: int) -> np.ndarray:
        """Offsets in the block's shared memory."""
        offset = address.astype(np.int64) - SMEM_BASE
        if (address & u4(extent - 1)).any():
            self.block.fault(at, f"shared address is not a multiple of {extent} bytes")
        if offset.size and (offset.min() < 0 or offset.max() + extent > self.block.shared.size):
            self.block.fault(at, f"shared access out of bounds: offsets {offset.min()} .. {offset.max()} + {extent}")
        return offset

    def load_shared(self, at: int, address: np.ndarray, size: int, count: int, mask: np.ndarray | None) -> list:
        threads = self._active_threads(mask)
        offset = self._shared(at, address if mask is None else address[mask], size * count)
        self.block.read(at, threads // LANES, offset, size * count, lane=threads % LANES)
        view, index = self.block.views[size], offset // size
        return [self._everywhere(view[index + i], mask) for i in range(count)]

    def store_shared(self, at: int, address: np.ndarray, size: int, values: tuple, mask: np.ndarray | None) -> None:
        threads = self._active_threads(mask)
        offset = self._shared(at, address if mask is None else address[mask], size * len(values))
        view, index = self.block.views[size], offset // size
        values = [value if mask is None else value[mask] for value in values]
        # Threads that write what is already there do no harm: Triton has several warps store the same result.
        idle = np.all([view[index + i] == value for i, value in enumerate(values)], 0)
        self.block.write(at, threads // LANES, offset, size * len(values), idle=idle, lane=threads % LANES)
        self._put(at, view, index, values, threads, "shared memory")

    # Both

    def _active_threads(self, mask: np.ndarray | None) -> np.ndarray:
        return self.thread if mask is None else self.thread[mask]

    def _everywhere(self, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Values of the active threads as an array over the team."""
        if mask is None:
            return values
        result = np.zeros(self.lanes, values.dtype)
        result[mask] = values
        return result

    def _put(self, at: int, view: np.ndarray, index: np.ndarray, values: list, threads: np.ndarray, name: str) -> None:
        """Store, and see whether threads wrote different values to one place at once: it is open which one stays."""
        for i, value in enumerate(values):
            view[index + i] = value
            lost = view[index + i] != value
            if lost.any():
                place = index[lost][0]
                who = np.unique(threads[index == place] // LANES).tolist()
                text = f"threads of warps {who} write different values to one place of {name}"
                if len(who) > 1 or self.block.differing == "fault":
                    self.block.fault(at, text)
                self.block.warnings.add(f"{text} at {self.block.place(at)}")
