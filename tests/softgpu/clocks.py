"""Who has seen what: vector clocks that judge the order of accesses to shared memory, whatever the schedule was.

Lanes of a warp run apart here, as they may since Volta: each thread has a clock of its own. What one thread did before
is known to another only through `bar.warp.sync`, a barrier or an mbarrier that both took part in. `shfl`, `vote` and
their like wait for the lanes of their mask but order no memory (CUDA programming guide, warp shuffle functions).
"""

from typing import Any

import numpy as np

from tests.softgpu.numbers import i4

MAX_BARRIERS = 32
GRANULE = 4  # bytes of shared memory that races are told apart by
LANES = 32


class Clocks:
    """What every thread of a block knows of every actor.

    An actor is one thread, one warp as a whole (ldmatrix, stmatrix and wgmma have no owner among the lanes), the
    cp.async groups of one thread, the wgmma groups of one warp, or the copies that one mbarrier counts (TMA). Each has
    a time that grows with its events. known[a, b]: the newest event of b that a is ordered after, for threads and whole
    warps a. flushed: the same for what a proxy fence has passed on to the async proxy. A warp as a whole knows what all
    of its lanes know; to know a warp as a whole is to know all of its lanes.

    For each granule of shared memory: its last write, and for each warp and each asynchronous actor its last read.
    """

    def __init__(self, warps: int, granules: int, copies: bool = True, tensor: bool = False) -> None:
        """copies: whether cp.async occurs, which takes a column per thread. tensor: the same of tcgen05.

        `tensor` is then the first of 4 columns per warp that hold the order of tensor memory.
        """
        self.warps, self.threads = warps, LANES * warps
        self._copies = self.threads + warps
        self._products = self._copies + (self.threads if copies else 0)
        self._barriers = self._products + warps
        self.tensor = self._barriers + MAX_BARRIERS
        self.actors = self.tensor + (4 * warps if tensor else 0)
        self.known = np.zeros((self.threads + warps, self.actors), i4)
        self.flushed = np.zeros_like(self.known)
        self.any_flushed = False
        self.time = np.zeros(self.threads + warps, i4)
        self.home = np.concatenate([np.repeat(np.arange(warps), LANES), np.arange(warps)])  # the warp of an actor
        self._lanes = np.arange(self.threads).reshape(warps, LANES)
        self.tick(np.arange(warps))
        self.writer, self.write_time, self.write_at = (np.zeros(granules, i4) for _ in range(3))
        # One row per warp, then one per asynchronous actor that has read anything.
        self._rows: dict[int, int] = {}
        self.reader, self.read_time, self.read_at = (np.zeros((2 * warps + MAX_BARRIERS, granules), i4) for _ in "123")

    # Actors

    def warp(self, warp: Any) -> Any:
        """A warp as a whole."""
        return self.threads + warp

    def copies(self, thread: Any) -> Any:
        return self._copies + thread

    def products(self, warp: Any) -> Any:
        return self._products + warp

    def barrier(self, number: int) -> int:
        return self._barriers + number

    def name(self, actor: int) -> str:
        """An actor in words."""
        if actor < self.threads:
            return f"warp {actor // LANES} lane {actor % LANES}"
        if actor < self._copies:
            return f"warp {actor - self.threads}"
        if actor < self._products:
            return f"cp.async of warp {(actor - self._copies) // LANES} lane {(actor - self._copies) % LANES}"
        if actor < self._barriers:
            return f"wgmma of warp {actor - self._products}"
        return f"TMA (mbarrier {actor - self._barriers})"

    # What hands knowledge on

    def tick(self, warps: np.ndarray) -> None:
        """A new time for all lanes of these warps: what they do from now on is not part of what was handed on."""
        lanes = self._lanes[warps].reshape(-1)
        self.time[lanes] += 1
        self.time[self.threads + warps] += 1
        self.known[lanes, lanes] = self.time[lanes]

    def join(self, threads: np.ndarray) -> None:
        """Each of the threads (in order) learns what all of them know: bar.sync, bar.warp.sync."""
        first, last = int(threads[0]), int(threads[-1])
        side_by_side = last - first + 1 == len(threads)
        rows = slice(first, last + 1) if side_by_side else threads  # a slice is quicker
        warps = np.arange(first // LANES, last // LANES + 1) if side_by_side else np.unique(self.home[threads])
        for matrix in self._matrices():
            row = matrix[rows].max(0)
            row[self.threads : self._copies] = row[: self.threads].reshape(-1, LANES).min(1)
            matrix[rows] = row
            if len(threads) == LANES * len(warps):
                matrix[self.threads + warps] = row
            else:
                self._settle(matrix, warps)
        self.tick(warps)

    def release(self, threads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What these threads know together, and what of it is flushed; to be handed to `acquire`."""
        known, flushed = self.known[threads].max(0), self.flushed[threads].max(0)
        self.tick(np.unique(self.home[threads]))
        return known, flushed

    def acquire(self, threads: np.ndarray, known: np.ndarray, flushed: np.ndarray) -> None:
        """The threads learn what a `release` has handed on."""
        warps = np.unique(self.home[threads])
        for matrix, message in zip(self._matrices(), (known, flushed), strict=False):
            matrix[threads] = np.maximum(matrix[threads], message)
            self._settle(matrix, warps)

    def fence(self, threads: np.ndarray) -> None:
        """fence.proxy.async: what the threads know is passed on to the async proxy."""
        self.any_flushed = True
        warps = np.unique(self.home[threads])
        self.flushed[threads] = np.maximum(self.flushed[threads], self.known[threads])
        self._settle(self.flushed, warps)
        self.tick(warps)

    def finish_copies(self, threads: np.ndarray, count: Any) -> None:
        """cp.async.wait_group: each thread knows its own first `count` groups, and those of no other."""
        self.known[threads, self.copies(threads)] = count

    def finish_products(self, warps: np.ndarray, count: int) -> None:
        """wgmma.wait_group: the lanes of each warp know its first `count` groups."""
        columns = self.products(np.asarray(warps))
        self.known[self._lanes[warps], columns[:, None]] = count
        self.known[self.warp(np.asarray(warps)), columns] = count

    def _matrices(self) -> list[np.ndarray]:
        return [self.known, self.flushed] if self.any_flushed else [self.known]

    def _settle(self, matrix: np.ndarray, warps: np.ndarray) -> None:
        """The rows and columns of warps as a whole, after the rows of some of their lanes have changed."""
        lanes = self._lanes[warps]
        columns = matrix[lanes, : self.threads].reshape(*lanes.shape, self.warps, LANES).min(3)
        matrix[lanes, self.threads : self._copies] = columns
        matrix[self.threads + warps] = matrix[lanes].min(1)

    # Shared memory

    def unordered(self, actor: Any, g: np.ndarray, asynchronous: bool) -> np.ndarray:
        """The granules whose last write the access of `actor` (a thread or whole warp each, or one) is not after."""
        writer, time = self.writer.take(g), self.write_time.take(g)
        bad = self.known[actor, writer] < time
        if asynchronous:
            bad |= (writer < self._products) & (self.flushed[actor, writer] < time)
        return bad

    def late_reads(self, actor: Any, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matrix (rows, granules): which last reads a write of `actor` is not ordered after; and the readers."""
        rows = self.warps + len(self._rows)
        reader, time = self.reader[:rows].take(g, 1), self.read_time[:rows].take(g, 1)
        return self.known[actor, reader] < time, reader

    def record_write(self, actor: Any, g: np.ndarray, time: Any, at: int) -> None:
        self.writer[g], self.write_time[g], self.write_at[g] = actor, time, at

    def record_reads(self, actor: np.ndarray, g: np.ndarray, at: int) -> None:
        """Reads by threads or whole warps. Several lanes that read one granule count as their warp, until it syncs."""
        row = self.home[actor]
        whole = self.threads + row
        before = self.reader[row, g]
        alone = (before == actor) | (self.known[actor, before] >= self.read_time[row, g])
        now = np.where(alone, actor, whole)
        self.reader[row, g] = now
        shared = self.reader[row, g] != now
        if shared.any():
            self.reader[row[shared], g[shared]] = whole[shared]
        self.read_time[row, g] = self.time[actor]
        self.read_at[row, g] = at

    def record_read(self, actor: int, g: np.ndarray, time: int, at: int) -> None:
        """A read by an asynchronous actor, which ends with its event `time`."""
        row = self._rows.setdefault(actor, self.warps + len(self._rows))
        self.reader[row, g], self.read_time[row, g], self.read_at[row, g] = actor, time, at
