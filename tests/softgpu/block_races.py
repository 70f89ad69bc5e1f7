"""Accesses to shared memory that nothing orders, and blocks that touch what others write."""

from typing import Any

import numpy as np

from tests.softgpu.clocks import GRANULE
from tests.softgpu.memory import Allocation
from tests.softgpu.numbers import i4
from tests.softgpu.state import BlockState


class Races(BlockState):
    """Mixed into `block.Block`."""

    def _granules(self, offset: np.ndarray, extent: int) -> tuple[np.ndarray, int]:
        if extent <= GRANULE:
            return offset // GRANULE, 1
        n = extent // GRANULE
        return ((offset // GRANULE)[:, None] + np.arange(n)).reshape(-1), n

    def read(self, at: int, warp: np.ndarray, offset: np.ndarray, extent: int) -> None:
        if not self.races or not len(offset):
            return
        g, n = self._granules(offset, extent)
        w = np.repeat(warp, n) if n > 1 else warp
        clocks = self.clocks
        bad = clocks.unordered_write(w, g, False)
        if bad.any():
            self._race(at, w, g, bad, "read", "write")
        clocks.reads[w, g] = clocks.seen[w, w]
        clocks.read_at[w, g] = at

    def write(
        self,
        at: int,
        warp: np.ndarray,
        offset: np.ndarray,
        extent: int,
        actor: Any = None,
        time: Any = None,
        asynchronous: bool = False,
        idle: Any = None,
    ) -> None:
        if not self.races or not len(offset):
            return
        g, n = self._granules(offset, extent)
        w = np.repeat(warp, n) if n > 1 else warp
        if self.live[g].any():
            self.fault(at, "write over an mbarrier that is in use")
        clocks = self.clocks
        bad = clocks.unordered_write(w, g, asynchronous)
        if idle is not None:
            bad &= ~(np.repeat(idle, n) if n > 1 else idle)
        if actor is not None:
            actor, time = (np.repeat(actor, n), np.repeat(time, n)) if n > 1 else (actor, time)
            bad &= ~((clocks.writer[g] == actor) & (clocks.write_time[g] == time))
        if bad.any():
            self._race(at, w, g, bad, "write", "write")
        late = clocks.unordered_reads(w, g)
        if late.any():
            self._race_read(at, w, g, late)
        clocks.writer[g] = w if actor is None else actor
        clocks.write_time[g] = clocks.seen[w, w] if actor is None else time
        clocks.write_at[g] = at

    def async_read(self, at: int, warps: np.ndarray, halves: np.ndarray, time: int) -> None:
        """Each of the warps reads all 16-bit elements `halves` through the async proxy."""
        if not self.races:
            return
        g = self._unique(halves)
        clocks = self.clocks
        for w in warps:
            bad = clocks.unordered_write(w, g, True)
            if bad.any():
                self._race(at, np.full(len(g), w), g, bad, "wgmma read", "write")
            clocks.reads[clocks.products(w), g] = time
            clocks.read_at[clocks.products(w), g] = at

    def _unique(self, halves: np.ndarray) -> np.ndarray:
        key = ("g", id(halves))
        if key not in self.operands:
            self.operands[key] = np.unique(halves // 2)
        return self.operands[key]

    def _race(self, at: int, w: np.ndarray, g: np.ndarray, bad: np.ndarray, mine: str, other: str) -> None:
        i = int(np.flatnonzero(bad)[0])
        clocks = self.clocks
        writer = int(clocks.writer[g[i]])
        ordered = clocks.seen[w[i], writer] >= clocks.write_time[g[i]]
        why = "no proxy fence in between" if ordered else "unordered"
        self.fault(
            at,
            f"race: {mine} by warp {int(w[i])} of shared + {int(g[i]) * GRANULE} ({int(bad.sum())} words) after a {other} by {self._actor(writer)} at {self.place(int(clocks.write_at[g[i]]))}: {why}",
        )

    def _race_read(self, at: int, w: np.ndarray, g: np.ndarray, late: np.ndarray) -> None:
        actor, i = (int(v[0]) for v in np.nonzero(late))
        self.fault(
            at,
            f"race: write by warp {int(w[i])} of shared + {int(g[i]) * GRANULE} ({int(late.any(0).sum())} words) that {self._actor(actor)} reads at {self.place(int(self.clocks.read_at[actor, g[i]]))}: unordered",
        )

    def _actor(self, actor: int) -> str:
        warps = self.clocks.warps
        if actor >= 3 * warps:
            return f"TMA (mbarrier {actor - 3 * warps})"
        return ("warp {}", "cp.async of warp {}", "wgmma of warp {}")[actor // warps].format(actor % warps)

    def check_global(self, at: int, found: Allocation, offset: np.ndarray, extent: int, what: str) -> None:
        """Blocks must not touch what another block of the launch writes."""
        if found.writers is None:
            found.writers = np.full(found.size, -1, i4)
        g = (offset[:, None] + np.arange(extent)).reshape(-1)
        writer = found.writers[g]
        if ((writer >= 0) & (writer != self.number)).any():
            self.fault(at, f"{what} of {found.name} that another block writes")
        if what == "write":
            found.writers[g] = self.number
