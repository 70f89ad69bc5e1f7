"""tcgen05: tensor memory as threads see it."""

from typing import Any

import numpy as np

from tests.softgpu.numbers import i4, u4
from tests.softgpu.state import TeamState


class Tcgen05(TeamState):
    """Mixed into `team.Team`."""

    def tmem_alloc(self, at: int, address: np.ndarray, columns: int, mask: np.ndarray | None) -> None:
        if mask is not None and not mask.any():
            return
        first = self.block.tmem_alloc(at, columns)
        # Which proxy writes the address is not documented: its order is not judged.
        lane = 0 if mask is None else int(mask.argmax())
        offset = self._shared(at, address[lane : lane + 1], 4)
        self.block.views[4][offset // 4] = first
        warp = self.warp[lane : lane + 1]
        self.block.write(at, warp, offset, 4, actor=self.block.clocks.products(warp), time=np.zeros(1, i4))

    def tmem_dealloc(self, at: int, address: np.ndarray, columns: int, mask: np.ndarray | None) -> None:
        if mask is None or mask.any():
            self.block.tmem_dealloc(at, int(address[0 if mask is None else mask.argmax()]), columns)

    def _tmem_place(self, at: int, address: np.ndarray, count: int, half: int | None, mask: Any) -> tuple:
        """Lanes (L) and columns (L, count) of a .16x32bx2 or .32x32b access."""
        lane, column = (address >> u4(16)).astype(np.intp), (address & u4(0xFFFF)).astype(np.intp)
        if mask is not None:
            self._whole_warps(at, mask)
        if (lane // 32 != self.warp % 4)[slice(None) if mask is None else mask].any():
            self.block.fault(at, "a warp reaches for tensor memory of another")
        inside = self.lane % 32
        if half is None:  # .32x32b: a lane of the memory per thread
            return lane + inside, column[:, None] + np.arange(count)
        return lane + inside % 16, (column + inside // 16 * half)[:, None] + np.arange(count)

    def tmem_load(self, at: int, address: np.ndarray, count: int, half: int | None, mask: Any) -> np.ndarray:
        lane, column = self._tmem_place(at, address, count, half, mask)
        self.block.tmem_check(at, column if mask is None else column[mask])
        return np.ascontiguousarray(self.block.tmem[lane[:, None], column % 512].T)

    def tmem_store(self, at: int, address: np.ndarray, values: tuple, half: int | None, mask: Any) -> None:
        lane, column = self._tmem_place(at, address, len(values), half, mask)
        data = np.stack(values, 1)
        if mask is not None:
            lane, column, data = lane[mask], column[mask], data[mask]
        self.block.tmem_check(at, column)
        self.block.tmem[lane[:, None], column] = data

    def tcgen05_mma(self, at: int, d: Any, memory: bool, a: Any, b: Any, form: Any, keep: Any, mask: Any) -> None:
        for lane in self.lane if mask is None else np.flatnonzero(mask):
            self.block.products.append(
                (
                    at,
                    int(self.warp[lane]),
                    int(d[lane]),
                    memory,
                    int(a[lane]),
                    int(b[lane]),
                    int(form[lane]),
                    bool(keep[lane]),
                )
            )

    def tcgen05_commit(self, at: int, barrier: np.ndarray, mask: Any) -> None:
        for lane in self.lane if mask is None else np.flatnonzero(mask):
            self.block.tcgen05_commit(at, int(self.warp[lane]), int(barrier[lane]))
