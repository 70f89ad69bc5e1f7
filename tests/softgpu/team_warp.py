"""Instructions across the threads of a warp, and the matrix products of one warp."""

import numpy as np

from tests.softgpu.numbers import WIDEN, u2, u4
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

    def mma(self, at: int, kind: str, a: tuple, b: tuple, c: tuple, mask: np.ndarray | None) -> np.ndarray:
        self._whole_warps(at, mask)
        w = self.count
        left = (
            WIDEN[kind](np.stack(a).view(u2)).reshape(2, 2, w, 8, 4, 2).transpose(2, 1, 3, 0, 4, 5).reshape(w, 16, 16)
        )
        right = WIDEN[kind](np.stack(b).view(u2)).reshape(2, w, 8, 4, 2).transpose(1, 0, 3, 4, 2).reshape(w, 16, 8)
        added = np.matmul(left, right).reshape(w, 2, 8, 4, 2).transpose(1, 4, 0, 2, 3).reshape(4, self.lanes)
        return added + np.stack(c)
