"""mbarriers and proxy fences as threads see them."""

from typing import Any

import numpy as np

from tests.softgpu.parse import Unsupported
from tests.softgpu.state import Fragment, TeamState
from tests.softgpu.writer import SMEM_BASE


class Arrivals(TeamState):
    """Mixed into `team.Team`."""

    def _one(self, at: int, address: np.ndarray, mask: np.ndarray | None) -> tuple[int | None, np.ndarray]:
        """The address that the active threads share (None without any), and their lanes."""
        lanes = self.lane if mask is None else np.flatnonzero(mask)
        if not len(lanes):
            return None, lanes
        values = np.unique(address[lanes])
        if len(values) > 1:
            raise Unsupported(f"threads of a team address different mbarriers at once: {self.block.place(at)}")
        return int(values[0]), lanes

    def mbarrier_init(self, at: int, address: np.ndarray, count: np.ndarray, mask: np.ndarray | None) -> None:
        where, lanes = self._one(at, address, mask)
        if where is not None:
            self._alone(at, lanes, "initialise")
            self.block.mbarrier_init(at, int(self.thread[lanes[0]]), where, int(count[lanes[0]]))

    def mbarrier_inval(self, at: int, address: np.ndarray, mask: np.ndarray | None) -> None:
        where, lanes = self._one(at, address, mask)
        if where is not None:
            self._alone(at, lanes, "invalidate")
            self.block.mbarrier_inval(at, int(self.thread[lanes[0]]), where)

    def _alone(self, at: int, lanes: np.ndarray, what: str) -> None:
        if len(lanes) > 1:
            self.block.fault(at, f"{len(lanes)} threads {what} one mbarrier at once")

    def mbarrier_arrive(self, at: int, address: np.ndarray, expect: np.ndarray | None, count: np.ndarray | None,
                        mask: np.ndarray | None) -> None:  # fmt: skip
        """expect: bytes that the phase waits for besides; count: arrivals of each thread, None for one."""
        where, lanes = self._one(at, address, mask)
        for lane in lanes:
            add = 1 if count is None else int(count[lane])
            self.block.mbarrier_arrive(
                at, int(self.thread[lane]), where, 0 if expect is None else int(expect[lane]), add
            )

    def mbarrier_expect(self, at: int, address: np.ndarray, expect: np.ndarray, mask: np.ndarray | None) -> None:
        where, lanes = self._one(at, address, mask)
        for lane in lanes:
            self.block.mbarrier_expect(at, int(self.thread[lane]), where, int(expect[lane]))

    def mbarrier_test_wait(self, at: int, address: np.ndarray, parity: np.ndarray, mask: Any) -> np.ndarray:
        """Whether the phase of this parity is over, for each thread."""
        where, lanes = self._one(at, address, mask)
        if where is None:
            return np.zeros(self.lanes, bool)
        values = np.unique(parity[lanes])
        if len(values) > 1:
            raise Unsupported(f"threads of a team ask for different parities: {self.block.place(at)}")
        if values[0] > 1:
            self.block.fault(at, f"the parity of a phase is 0 or 1, not {values[0]}")
        over = self.block.mbarrier_test(at, self.thread[lanes], where, int(values[0]))
        return np.full(self.lanes, over)

    def mbarrier_try_wait(self, at: int, fragment: Fragment, address: np.ndarray, parity: np.ndarray, mask: Any) -> Any:
        """The same, but threads may be held up: None for that. A device may also give up waiting, so this does, too."""
        over = self.mbarrier_test_wait(at, address, parity, mask)
        where, lanes = self._one(at, address, mask)
        if where is None or over[0] or self.block.random.random() < 0.1:
            return over
        fragment.waits_for = f"parity {int(parity[lanes[0]])} of the mbarrier at shared + {where - SMEM_BASE}"
        return None

    def fence_proxy(self, mask: np.ndarray | None) -> None:
        """fence.proxy.async: what the threads know so far, the async proxy will see, too."""
        threads = self.thread if mask is None else self.thread[mask]
        if len(threads):
            self.block.clocks.fence(threads)
