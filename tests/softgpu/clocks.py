"""Who has seen what: vector clocks that judge the order of accesses to shared memory, whatever the schedule was."""

from typing import Any

import numpy as np

from tests.softgpu.numbers import i4

MAX_BARRIERS = 32
GRANULE = 4  # bytes of shared memory that races are told apart by


class Clocks:
    """Who has seen what. One actor per warp, per warp's cp.async groups, per warp's wgmma groups, per mbarrier (TMA).

    seen[w, a]: the newest event of actor a that warp w is ordered after. fenced: the same, for what a proxy fence has
    passed on to the async proxy. For each granule of shared memory: its last write and each actor's last read.
    """

    def __init__(self, warps: int, granules: int) -> None:
        self.warps = warps
        self.actors = 3 * warps + MAX_BARRIERS
        self.seen = np.zeros((warps, self.actors), i4)
        self.seen[np.arange(warps), np.arange(warps)] = 1
        self.fenced = np.zeros_like(self.seen)
        self.writer = np.full(granules, -1, np.int16)
        self.write_time = np.zeros(granules, i4)
        self.write_at = np.full(granules, -1, i4)  # instruction
        self.reads = np.zeros((self.actors, granules), i4)
        self.read_at = np.full((self.actors, granules), -1, i4)

    def copies(self, warp: Any) -> Any:
        return self.warps + warp

    def products(self, warp: Any) -> Any:
        return 2 * self.warps + warp

    def barrier(self, number: int) -> int:
        return 3 * self.warps + number

    def tick(self, warps: Any) -> None:
        self.seen[warps, warps] += 1

    def unordered_write(self, warp: Any, g: np.ndarray, asynchronous: bool) -> np.ndarray:
        """Granules whose last write the access of `warp` is not ordered after."""
        writer, time = self.writer[g], self.write_time[g]
        bad = self.seen[warp, writer] < time
        if asynchronous:
            bad |= (writer >= 0) & (writer < 2 * self.warps) & (self.fenced[warp, writer] < time)
        return bad

    def unordered_reads(self, warp: Any, g: np.ndarray) -> np.ndarray:
        """Matrix (actors, granules): whose last reads a write of `warp` is not ordered after."""
        seen = self.seen[warp].T if np.ndim(warp) else self.seen[warp][:, None]
        return self.reads[:, g] > seen
