"""Copies in flight: cp.async of threads."""

from typing import Any

import numpy as np

from tests.softgpu.numbers import u1
from tests.softgpu.state import TeamState


class Copies(TeamState):
    """Mixed into `team.Team`."""

    def cp_async(self, at: int, shared: np.ndarray, source: np.ndarray, size: int, present: Any, mask: Any) -> None:
        everyone = np.ones(self.lanes, bool) if mask is None else mask
        length = np.full(self.lanes, size) if present is None else np.minimum(present, size).astype(int)
        reads = everyone & (length > 0)
        data = np.zeros((self.lanes, size), u1)
        found, index = self._global(at, source, 1, size, reads)
        if found is not None:
            data[reads] = found.views[1][index[:, None] + np.arange(size)]
            data[np.arange(size) >= length[:, None]] = 0
        offset = self._shared(at, shared[everyone], size)
        warp = self.warp[everyone]
        data = data[everyone]
        times = np.array([self.copy_count[w] + 1 for w in warp])
        self.block.write(at, warp, offset, size, actor=self.block.clocks.copies(warp), time=times, asynchronous=False)
        for w in np.unique(warp):
            self.copy_open[w].append((offset[warp == w], data[warp == w]))
        if self.block.eager:
            self.block.shared[offset[:, None] + np.arange(size)] = data

    def cp_commit(self, mask: np.ndarray | None) -> None:
        for w in self._active_warps(mask):
            self.copy_groups[w].append(self.copy_open[w])
            self.copy_open[w] = []
            self.copy_count[w] += 1

    def cp_wait(self, allowed: int, mask: np.ndarray | None) -> None:
        for w in self._active_warps(mask):
            while len(self.copy_groups[w]) > allowed:
                for offset, data in self.copy_groups[w].popleft():
                    self.block.shared[offset[:, None] + np.arange(data.shape[1])] = data
            done = self.copy_count[w] - len(self.copy_groups[w])
            self.block.clocks.seen[w, self.block.clocks.copies(w)] = done

    def tma_load(
        self, at: int, shared: np.ndarray, source: np.ndarray, x: Any, y: Any, barrier: np.ndarray, mask: Any
    ) -> None:
        lanes = self.lane if mask is None else np.flatnonzero(mask)
        for lane in lanes:
            self.block.tma_issue(
                at,
                int(self.warp[lane]),
                int(shared[lane]),
                int(source[lane]),
                int(x[lane]),
                int(y[lane]),
                int(barrier[lane]),
            )
