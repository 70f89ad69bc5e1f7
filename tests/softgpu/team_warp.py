"""Instructions across the threads of a warp."""

import numpy as np

from tests.softgpu.numbers import u4
from tests.softgpu.state import TeamState


class Warp(TeamState):
    """Mixed into `team.Team`."""

    def shuffle(self, mode: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        lane = self.lane & 31
        b = b.astype(np.intp)
        source = {"bfly": lane ^ b, "idx": b & 31, "up": lane - b, "down": lane + b}[mode]
        source = np.where((source < 0) | (source > 31), lane, source)
        return a[(self.lane & ~31) + source]

    def elect(self, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        active = np.ones(self.lanes, bool) if mask is None else mask
        leader = active.reshape(-1, 32).argmax(1)
        return np.repeat(leader.astype(u4), 32), (self.lane & 31) == np.repeat(leader, 32)

    def ballot(self, p: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        votes = (p if mask is None else p & mask).reshape(-1, 32)
        return np.repeat((votes.astype(u4) << np.arange(32, dtype=u4)).sum(1, dtype=u4), 32)

    def redux(self, action: str, a: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        work = a.reshape(-1, 32)
        result = {"add": np.add, "max": np.maximum, "min": np.minimum, "or": np.bitwise_or, "and": np.bitwise_and}[
            action
        ].reduce(work, axis=1, dtype=a.dtype)
        return np.repeat(result, 32)
