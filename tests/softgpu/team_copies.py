"""Copies that threads start: cp.async from global to shared memory, and the TMA's tiles."""

from collections import deque
from typing import Any

import numpy as np

from tests.softgpu.clocks import LANES
from tests.softgpu.numbers import u1
from tests.softgpu.parse import Unsupported
from tests.softgpu.state import TeamState


class Copies(TeamState):
    """Mixed into `team.Team`. The threads of a warp commit and await their cp.async together."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.copy_open: dict[int, list] = {w: [] for w in self.own}  # (offsets, data) of copies that are not committed
        self.copy_groups: dict[int, deque] = {w: deque() for w in self.own}
        self.copy_count = dict.fromkeys(self.own, 0)  # groups that were committed

    def cp_async(self, at: int, shared: np.ndarray, source: np.ndarray, size: int, present: Any, mask: Any) -> None:
        """size: 4, 8 or 16 bytes are written. present: bytes that are read, the rest are zeros; None for all."""
        everyone = np.ones(self.lanes, bool) if mask is None else mask
        length = np.full(self.lanes, size) if present is None else present.astype(int)
        if (length[everyone] > size).any():
            self.block.fault(at, "cp.async reads more bytes than it writes")
        data = self._source(at, source, size, length, everyone)
        offset = self._shared(at, shared[everyone], size)
        warp = self.warp[everyone]
        time = np.array([self.copy_count[w] + 1 for w in warp])
        thread = self.thread[everyone]
        self.block.write(at, warp, offset, size, actor=self.block.clocks.copies(thread), time=time, lane=thread % LANES)
        if self.block.at_once():
            self.block.shared[offset[:, None] + np.arange(size)] = data
            return
        for w in np.unique(warp):
            self.copy_open[w].append((offset[warp == w], data[warp == w]))

    def _source(self, at: int, source: np.ndarray, size: int, length: np.ndarray, everyone: np.ndarray) -> np.ndarray:
        """What the threads of `everyone` copy, (threads, size). Nothing is read for a length of 0."""
        data = np.zeros((self.lanes, size), u1)
        if (source[everyone] % size).any():
            self.block.fault(at, f"global address is not a multiple of {size} bytes")
        for count in np.unique(length[everyone & (length > 0)]):
            reads = everyone & (length == count)
            found, index = self._global(at, source, 1, int(count) if count == size else 1, reads)
            if int(index.max()) + count > found.size:
                self.block.fault(at, f"cp.async reads behind {found.name} of {found.size} bytes")
            data[np.flatnonzero(reads)[:, None], np.arange(count)] = found.views[1][index[:, None] + np.arange(count)]
        return data[everyone]

    def cp_commit(self, at: int, mask: np.ndarray | None) -> None:
        for w in self._copying(at, mask):
            self.copy_groups[w].append(self.copy_open[w])
            self.copy_open[w] = []
            self.copy_count[w] += 1

    def cp_wait(self, at: int, allowed: int, mask: np.ndarray | None) -> None:
        """Until at most `allowed` of a thread's newest groups are in flight."""
        for w in self._copying(at, mask):
            while len(self.copy_groups[w]) > allowed:
                for offset, data in self.copy_groups[w].popleft():
                    self.block.shared[offset[:, None] + np.arange(data.shape[1])] = data
            done = self.copy_count[w] - len(self.copy_groups[w])
            self.block.clocks.finish_copies(self.thread[self.warp == w], done)

    def _copying(self, at: int, mask: np.ndarray | None) -> np.ndarray:
        """The warps that execute a commit or a wait, whose threads must do it together."""
        if mask is not None and (mask.reshape(-1, LANES).any(1) != mask.reshape(-1, LANES).all(1)).any():
            raise Unsupported(f"groups of cp.async of some threads of a warp: {self.block.place(at)}")
        return self._active_warps(mask)

    def cp_wait_all(self, at: int, mask: np.ndarray | None) -> None:
        """Like a commit and a wait for everything."""
        self.cp_commit(at, mask)
        self.cp_wait(at, 0, mask)

    def tma_load(self, at: int, shared: np.ndarray, source: np.ndarray, x: Any, y: Any, barrier: np.ndarray,
                 mask: Any) -> None:  # fmt: skip
        """Each thread copies a tile of its own: x and y are where it starts, the innermost dimension first."""
        for lane in self.lane if mask is None else np.flatnonzero(mask):
            place = int(x[lane]), int(y[lane])
            where = int(shared[lane]), int(source[lane])
            self.block.tma_issue(at, int(self.thread[lane]), *where, *place, int(barrier[lane]))
