"""Instructions across the threads of a warp. They wait for the lanes of their mask and order no memory."""

import functools

import numpy as np

from tests.softgpu.clocks import LANES
from tests.softgpu.numbers import u4
from tests.softgpu.team_control import Control

REDUCTIONS = {
    "add": np.add, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
BITS = np.arange(LANES, dtype=u4)


@functools.lru_cache(maxsize=1024)
def sources(mode: str, b: bytes, c: bytes, members: bytes) -> tuple[np.ndarray, np.ndarray, bool]:
    """Where in the team each thread's shfl reads, whether that is in range, and whether all who meet are members.

    b, c and members are u4 arrays over the threads. The same few come again and again.
    """
    b, c = (np.frombuffer(part, u4).astype(np.intp) for part in (b, c))
    place = np.arange(len(b))
    lane, b, clamp, segment = place % LANES, b & 31, c & 31, c >> 8 & 31
    last, first = lane & segment | clamp & ~segment, lane & segment
    source = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": first | b & ~segment}[mode]
    inside = source >= last if mode == "up" else source <= last
    source = np.where(inside, source, lane)
    named = [np.frombuffer(members, u4) >> who.astype(u4) & 1 for who in (lane, source)]
    return place - lane + source, inside, bool(np.all(named))


class Warp(Control):
    """Mixed into `team.Team`. Every method takes arrays over the threads of the team and gives some back.

    members: the member mask of each thread. mask: the threads that execute the instruction (None: all). What an
    inactive thread gets back has no meaning.
    """

    def shuffle(self, at: int, mode: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, members: np.ndarray,
                mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """shfl: a of another lane, and whether that lane is in range; else the thread's own a.

        b: lane or distance. c: the clamp in bits 0-4, the segment mask in bits 8-12.
        """
        if mask is not None:
            self._together(at, members, mask)
        from_lane, inside, named = sources(mode, b.tobytes(), c.tobytes(), members.tobytes())
        if not (named if mask is None else mask[from_lane[mask]].all()):
            self.block.fault(at, "shfl reads from a lane that takes no part")
        return a[from_lane], inside

    def vote(self, at: int, mode: str, p: np.ndarray, members: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """vote: all, any, uni (all the same) as booleans, or ballot as bits."""
        votes = self._bits(at, self._active(mask) & p, members, mask)
        if mode == "ballot":
            return votes
        present = self._bits(at, self._active(mask), members, mask)
        return {"all": votes == present, "any": votes != 0, "uni": (votes == 0) | (votes == present)}[mode]

    def match(self, at: int, mode: str, a: np.ndarray, members: np.ndarray,
              mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """match.any: the members with the thread's value, as bits. match.all: all members or none; whether all."""
        present = self._bits(at, self._active(mask), members, mask)
        rows = a.reshape(-1, LANES)
        same = ((rows[:, :, None] == rows[:, None, :]) << BITS).sum(2, dtype=u4).reshape(-1) & present
        every = same == present
        return (same, every) if mode == "any" else (np.where(every, present, u4(0)), every)

    def redux(self, at: int, action: str, a: np.ndarray, members: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """redux: one number from those of the members."""
        present = self._bits(at, self._active(mask), members, mask)
        result = np.empty_like(a)
        for key in np.unique(np.stack([self.warp, present]), axis=1).T:
            group = (self.warp == key[0]) & (present == key[1])
            chosen = group & self._active(mask)
            if chosen.any():
                result[group] = REDUCTIONS[action].reduce(a[chosen], dtype=a.dtype)
        return result

    def elect(self, at: int, members: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """elect: the number of the leading lane, and whether the thread is it. Here the first member leads."""
        present = self._bits(at, self._active(mask), members, mask)
        leader = np.bitwise_count((present & (~present + u4(1))) - u4(1)).astype(u4)
        return leader, (self.lane % LANES) == leader

    def activemask(self, mask: np.ndarray | None) -> np.ndarray:
        """The lanes of each warp that are here now, as bits."""
        return np.repeat((self._active(mask).reshape(-1, LANES) << BITS).sum(1, dtype=u4), LANES)

    def _active(self, mask: np.ndarray | None) -> np.ndarray:
        return np.ones(self.lanes, bool) if mask is None else mask

    def _together(self, at: int, members: np.ndarray, mask: np.ndarray | None) -> None:
        missing = self.missing(at, members, mask)
        if missing.any():
            warp = int(missing.any(1).argmax())
            lanes = np.flatnonzero(missing[warp]).tolist()
            self.block.fault(at, f"lanes {lanes} of warp {self.first + warp} are in the member mask and elsewhere")

    def _bits(self, at: int, chosen: np.ndarray, members: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Per thread: which lanes of its warp are chosen and in its member mask."""
        self._together(at, members, mask)
        return np.repeat((chosen.reshape(-1, LANES) << BITS).sum(1, dtype=u4), LANES) & members
