"""Loads, stores and atomics of threads, in global and shared memory."""

import numpy as np

from tests.softgpu.numbers import UNSIGNED, u2, u4, u8
from tests.softgpu.state import TeamState
from tests.softgpu.translate import SMEM_BASE


class Accesses(TeamState):
    """Mixed into `team.Team`."""

    def _global(self, at: int, address: np.ndarray, size: int, extent: int, mask: np.ndarray | None) -> tuple:
        where = address if mask is None else address[mask]
        if not where.size:
            return None, None
        if (where & u8(extent - 1)).any():
            self.block.fault(at, f"global address is not a multiple of {extent} bytes")
        low, high = int(where.min()), int(where.max())
        found = self.block.memory.find(low)
        if found is None or high + extent > found.base + found.size:
            groups = [self.block.memory.find(int(a)) for a in where]
            bad = [
                (int(a), f)
                for a, f in zip(where, groups, strict=True)
                if f is None or int(a) + extent > f.base + f.size
            ]
            if bad:
                a, f = bad[0]
                near = f"{a - f.base} bytes into {f.name} of {f.size} bytes" if f else "before every tensor"
                self.block.fault(at, f"{len(bad)} global accesses out of bounds, the first {near}")
            raise NotImplementedError("one access to several tensors")
        return found, ((where - u8(found.base)) // u8(size)).astype(np.intp)

    def load_global(self, at: int, address: np.ndarray, size: int, count: int, mask: np.ndarray | None) -> list:
        found, index = self._global(at, address, size, size * count, mask)
        values = []
        for i in range(count):
            if found is None:
                values.append(np.zeros(self.lanes, UNSIGNED[size]))
            elif mask is None:
                values.append(found.views[size][index + i])
            else:
                value = np.zeros(self.lanes, UNSIGNED[size])
                value[mask] = found.views[size][index + i]
                values.append(value)
        if found is not None and found.writers is not None and not found.atomics:
            self.block.check_global(at, found, index * size, size * count, "read")
        return values

    def store_global(self, at: int, address: np.ndarray, size: int, values: tuple, mask: np.ndarray | None) -> None:
        found, index = self._global(at, address, size, size * len(values), mask)
        if found is None:
            return
        for i, value in enumerate(values):
            found.views[size][index + i] = value if mask is None else value[mask]
        if not found.atomics:
            self.block.check_global(at, found, index * size, size * len(values), "write")

    def atomic(
        self, at: int, action: str, address: np.ndarray, value: np.ndarray, mask: np.ndarray | None
    ) -> np.ndarray:
        size = value.dtype.itemsize
        found, index = self._global(at, address, size, size, mask)
        old = np.zeros(self.lanes, value.dtype)
        if found is None:
            return old
        found.atomics = True
        view = found.views[size].view(value.dtype)
        lanes = self.lane if mask is None else self.lane[mask]
        for lane, place in zip(lanes, index, strict=True):
            old[lane] = view[place]
            view[place] = {"add": lambda a, b: a + b, "max": max, "min": min, "exch": lambda _, b: b}[action](
                view[place], value[lane]
            )
        return old

    def _shared(self, at: int, address: np.ndarray, extent: int) -> np.ndarray:
        offset = address.astype(np.int64) - SMEM_BASE
        if (address & u4(extent - 1)).any():
            self.block.fault(at, f"shared address is not a multiple of {extent} bytes")
        if offset.size and (offset.min() < 0 or offset.max() + extent > self.block.shared.size):
            self.block.fault(at, f"shared access out of bounds: offsets {offset.min()} .. {offset.max()} + {extent}")
        return offset

    def load_shared(self, at: int, address: np.ndarray, size: int, count: int, mask: np.ndarray | None) -> list:
        where = address if mask is None else address[mask]
        warp = self.warp if mask is None else self.warp[mask]
        offset = self._shared(at, where, size * count)
        self.block.read(at, warp, offset, size * count)
        view, index = self.block.views[size], offset // size
        values = []
        for i in range(count):
            if mask is None:
                values.append(view[index + i])
            else:
                value = np.zeros(self.lanes, UNSIGNED[size])
                value[mask] = view[index + i]
                values.append(value)
        return values

    def store_shared(self, at: int, address: np.ndarray, size: int, values: tuple, mask: np.ndarray | None) -> None:
        where = address if mask is None else address[mask]
        warp = self.warp if mask is None else self.warp[mask]
        offset = self._shared(at, where, size * len(values))
        view, index = self.block.views[size], offset // size
        values = tuple(value if mask is None else value[mask] for value in values)
        # Threads that write what is already there do no harm: Triton has several warps store the same result.
        idle = np.ones(len(index), bool)
        for i, value in enumerate(values):
            idle &= view[index + i] == value
        for i, value in enumerate(values):
            view[index + i] = value
            lost = view[index + i] != value
            if lost.any():
                self._conflict(at, index + i, warp, value, lost)
        self.block.write(at, warp, offset, size * len(values), idle=idle)

    def _conflict(self, at: int, index: np.ndarray, warp: np.ndarray, value: np.ndarray, lost: np.ndarray) -> None:
        """Threads wrote different values to one place at once. Within a warp it is open which one stays."""
        for place in np.unique(index[lost]):
            here = index == place
            last = {int(w): v for w, v in zip(warp[here], value[here], strict=True)}  # as devices do: one fixed thread
            if len({int(v) for v in last.values()}) > 1:
                self.block.fault(
                    at, f"warps {sorted(last)} write different values to one place of shared memory at once"
                )
        self.block.warnings.add(f"threads of a warp write different values to one place at {self.block.place(at)}")

    def ldmatrix(self, at: int, address: np.ndarray, count: int, transposed: bool, mask: np.ndarray | None) -> list:
        warps = self._whole_warps(at, mask)
        rows = address.reshape(-1, 32)[warps, : 8 * count]  # (W, 8 count)
        offset = self._shared(at, rows.reshape(-1), 16)
        self.block.read(at, np.repeat(self.own[warps], 8 * count), offset, 16)
        words = self.block.views[4][(offset // 4)[:, None] + np.arange(4)].reshape(-1, count, 8, 4)
        if transposed:
            halves = words.view(u2).reshape(-1, count, 8, 8).transpose(0, 1, 3, 2)
            words = np.ascontiguousarray(halves).view(u4)
        values = []
        for i in range(count):
            value = np.zeros((self.count, 32), u4)
            value[warps] = words[:, i].reshape(-1, 32)
            values.append(value.reshape(-1))
        return values

    def stmatrix(self, at: int, address: np.ndarray, values: tuple, transposed: bool, mask: np.ndarray | None) -> None:
        warps = self._whole_warps(at, mask)
        count = len(values)
        rows = address.reshape(-1, 32)[warps, : 8 * count]
        offset = self._shared(at, rows.reshape(-1), 16)
        words = np.stack([v.reshape(-1, 32)[warps] for v in values], 1).reshape(-1, count, 8, 4)
        if transposed:
            halves = np.ascontiguousarray(words).view(u2).reshape(-1, count, 8, 8).transpose(0, 1, 3, 2)
            words = np.ascontiguousarray(halves).view(u4)
        self.block.views[4][(offset // 4)[:, None] + np.arange(4)] = words.reshape(-1, 4)
        self.block.write(at, np.repeat(self.own[warps], 8 * count), offset, 16)
