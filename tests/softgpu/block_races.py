"""Accesses to shared memory that nothing orders."""

from typing import Any

import numpy as np

from tests.softgpu.clocks import GRANULE, LANES
from tests.softgpu.state import BlockState


class Races(BlockState):
    """Mixed into `block.Block`."""

    def _spread(self, offset: np.ndarray, extent: int, *others: Any) -> list[Any]:
        """The granules of accesses of `extent` bytes each, and the other arrays with an entry per granule."""
        first, n = offset // GRANULE, extent // GRANULE
        if n <= 1:
            return [first, *others]
        g = (first[:, None] + np.arange(n)).reshape(-1)
        return [g, *(other if other is None else np.repeat(other, n) for other in others)]

    def _actor(self, warp: np.ndarray, lane: np.ndarray | None) -> np.ndarray:
        return self.clocks.warp(warp) if lane is None else LANES * warp + lane

    def read(self, at: int, warp: np.ndarray, offset: np.ndarray, extent: int, lane: np.ndarray | None = None) -> None:
        """Threads (lane: in the warp) or whole warps (lane None) read `extent` bytes each at `offset`."""
        if not self.races or not len(offset):
            return
        g, actor = self._spread(offset, extent, self._actor(warp, lane))
        bad = self.clocks.unordered(actor, g, False)
        if bad.any():
            self._race(at, actor, g, bad, "read", "write")
        self.clocks.record_reads(actor, g, at)

    def write(
        self,
        at: int,
        warp: np.ndarray,
        offset: np.ndarray,
        extent: int,
        actor: np.ndarray | None = None,
        time: np.ndarray | None = None,
        asynchronous: bool = False,
        idle: np.ndarray | None = None,
        lane: np.ndarray | None = None,
    ) -> None:
        """Threads or whole warps write as `read` reads, or have written for them.

        actor, time: of the asynchronous event that does it, instead of who issues it. idle: accesses that change
        nothing; they may meet another write.
        """
        if not self.races or not len(offset):
            return
        g, issuer, actor, time, idle = self._spread(offset, extent, self._actor(warp, lane), actor, time, idle)
        if self.mbarriers and self.live[g].any():
            self.fault(at, "write over an mbarrier that is in use")
        clocks = self.clocks
        bad = clocks.unordered(issuer, g, asynchronous)
        if idle is not None:
            bad &= ~idle
        if bad.any():
            self._race(at, issuer, g, bad, "write", "write")
        late, reader = clocks.late_reads(issuer, g)
        if late.any():
            self._race_read(at, issuer, g, late, reader)
        clocks.record_write(issuer if actor is None else actor, g, clocks.time[issuer] if time is None else time, at)

    def async_read(self, at: int, warps: np.ndarray, halves: np.ndarray, time: int) -> None:
        """Each of the warps reads all 16-bit elements `halves` through the async proxy."""
        if not self.races:
            return
        g = self._unique(halves)
        for w in warps:
            self.check(at, self.clocks.warp(int(w)), g, "wgmma read", "write", asynchronous=True)
            self.clocks.record_read(self.clocks.products(int(w)), g, time, at)

    def check(self, at: int, actor: int, g: np.ndarray, mine: str, other: str, asynchronous: bool) -> None:
        """Fault if the last write of a granule is not before what `actor` does now. mine, other: the two in words."""
        bad = self.clocks.unordered(actor, g, asynchronous)
        if bad.any():
            self._race(at, np.full(len(g), actor), g, bad, mine, other)

    def _unique(self, halves: np.ndarray) -> np.ndarray:
        key = ("g", id(halves))
        if key not in self.operands:
            self.operands[key] = np.unique(halves // 2)
        return self.operands[key]

    def _race(self, at: int, actor: np.ndarray, g: np.ndarray, bad: np.ndarray, mine: str, other: str) -> None:
        clocks, i = self.clocks, int(np.flatnonzero(bad)[0])
        writer, who = int(clocks.writer[g[i]]), int(actor[i])
        ordered = clocks.known[who, writer] >= clocks.write_time[g[i]]
        why = "no proxy fence in between" if ordered else "unordered"
        place = self.place(int(clocks.write_at[g[i]]))
        self.fault(
            at,
            f"race: {mine} by {clocks.name(who)} of shared + {int(g[i]) * GRANULE} ({int(bad.sum())} words) "
            f"after a {other} by {clocks.name(writer)} at {place}: {why}",
        )

    def _race_read(self, at: int, actor: np.ndarray, g: np.ndarray, late: np.ndarray, reader: np.ndarray) -> None:
        clocks = self.clocks
        row, i = (int(v[0]) for v in np.nonzero(late))
        place = self.place(int(clocks.read_at[row, g[i]]))
        self.fault(
            at,
            f"race: write by {clocks.name(int(actor[i]))} of shared + {int(g[i]) * GRANULE} "
            f"({int(late.any(0).sum())} words) that {clocks.name(int(reader[row, i]))} reads at {place}: unordered",
        )
