"""mbarriers and proxy fences as threads see them."""

from typing import Any

import numpy as np

from tests.softgpu.state import Fragment, TeamState
from tests.softgpu.translate import SMEM_BASE


class Arrivals(TeamState):
    """Mixed into `team.Team`."""

    def _one(self, at: int, address: np.ndarray, mask: np.ndarray | None) -> tuple[int | None, np.ndarray]:
        lanes = self.lane if mask is None else np.flatnonzero(mask)
        if not len(lanes):
            return None, lanes
        values = np.unique(address[lanes])
        if len(values) > 1:
            raise NotImplementedError("threads of a team address different mbarriers at once")
        return int(values[0]), lanes

    def mbarrier_init(self, at: int, address: np.ndarray, count: int, mask: np.ndarray | None) -> None:
        where, lanes = self._one(at, address, mask)
        if where is not None:
            self.block.mbarrier_init(at, int(self.warp[lanes[0]]), where, count)

    def mbarrier_inval(self, at: int, address: np.ndarray, mask: np.ndarray | None) -> None:
        where, lanes = self._one(at, address, mask)
        if where is not None:
            self.block.mbarrier_inval(at, int(self.warp[lanes[0]]), where)

    def mbarrier_arrive(self, at: int, address: np.ndarray, expect: np.ndarray | None, mask: np.ndarray | None) -> None:
        where, lanes = self._one(at, address, mask)
        for lane in lanes:
            self.block.mbarrier_arrive(at, int(self.warp[lane]), where, 0 if expect is None else int(expect[lane]))

    def mbarrier_try_wait(self, at: int, fragment: Fragment, address: np.ndarray, parity: np.ndarray, mask: Any) -> Any:
        where, lanes = self._one(at, address, mask)
        if where is None:
            return np.zeros(self.lanes, bool)
        warps = np.unique(self.warp[lanes])
        if not self.block.mbarrier_test(at, warps, where, int(parity[lanes[0]])):
            if self.block.random.random() < 0.1:
                return np.zeros(self.lanes, bool)  # a device may give up waiting
            fragment.waits_for = f"parity {int(parity[lanes[0]])} of the mbarrier at shared + {where - SMEM_BASE}"
            return None
        return np.ones(self.lanes, bool)

    def fence_proxy(self, mask: np.ndarray | None) -> None:
        clocks = self.block.clocks
        for w in self._active_warps(mask):
            clocks.fenced[w] = np.maximum(clocks.fenced[w], clocks.seen[w])
