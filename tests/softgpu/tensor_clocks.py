"""The order of accesses to tensor memory, judged by vector clocks as that of shared memory is."""

from typing import Any

import numpy as np

from tests.softgpu.clocks import Clocks
from tests.softgpu.numbers import i2, i4

LANES, COLUMNS = 128, 512
STRIP = 16  # lanes; races are told apart by strips of one column
Region = tuple[slice, slice]  # strips and columns


class TensorClocks:
    """Every access is asynchronous. Actors: each warp's loads, its stores and its products, numbered in this order.

    An event of a warp's loads or stores is over with tcgen05.wait, one of its products with the mbarrier of their
    tcgen05.commit. From then on the warp, and whom it synchronises with, knows of it: columns of `Clocks.known`, which
    barriers and mbarriers pass on. Those of tensor memory: loads, stores, and both once more as far as a
    tcgen05.fence::before_thread_sync has released them. acquired: what a tcgen05.fence::after_thread_sync let in. Who
    accesses is a row of `Clocks.known`, a thread or a warp as a whole.
    """

    def __init__(self, clocks: Clocks) -> None:
        warps = self.warps = clocks.warps
        self.clocks = clocks
        own = np.arange(clocks.tensor, clocks.tensor + 2 * warps)
        products = clocks.products(np.arange(warps))
        self.column = np.concatenate([own, products])  # in clocks.known, of each actor
        self.released = np.concatenate([own + 2 * warps, products])  # a commit releases products by itself
        self.acquired = np.zeros_like(clocks.known)
        shape = (LANES // STRIP, COLUMNS)
        self.writer = np.full(shape, -1, i2)
        self.write_time = np.zeros(shape, i4)
        self.write_at = np.full(shape, -1, i4)
        self.accumulator = np.full(shape, -1, i4)  # of the product that wrote last: what it may be pipelined by
        self.reads = np.zeros((3 * warps, *shape), i4)
        self.read_at = np.full((3 * warps, *shape), -1, i4)

    def loads(self, warp: int) -> int:
        return warp

    def stores(self, warp: int) -> int:
        return self.warps + warp

    def products(self, warp: int) -> int:
        return 2 * self.warps + warp

    def name(self, actor: int) -> str:
        """An actor in words."""
        kind = ("tcgen05.ld", "tcgen05.st", "tcgen05.mma")[actor // self.warps]
        return f"{kind} of warp {actor % self.warps}"

    def open_time(self, actor: int) -> int:
        """The clock of what a warp issues now as this actor of its own: one more than what it has waited for."""
        return int(self.clocks.known[self.clocks.warp(actor % self.warps), self.column[actor]]) + 1

    def waited(self, actor: int) -> None:
        """The actor's warp has waited for all that it has issued as this actor."""
        self.clocks.known[self._rows(actor % self.warps), self.column[actor]] += 1

    def fence_before(self, threads: np.ndarray) -> None:
        known = self.clocks.known
        for column, released in zip(self.column, self.released, strict=True):
            known[threads, released] = np.maximum(known[threads, released], known[threads, column])
        self._settle(known, threads)

    def fence_after(self, threads: np.ndarray) -> None:
        self.acquired[threads] = np.maximum(self.acquired[threads], self.clocks.known[threads])
        self._settle(self.acquired, threads)

    def _settle(self, matrix: np.ndarray, threads: np.ndarray) -> None:
        """A warp as a whole has what all of its lanes have."""
        for warp in np.unique(self.clocks.home[threads]):
            *lanes, whole = self._rows(int(warp))
            matrix[whole, self.released] = matrix[lanes][:, self.released].min(0)

    def _rows(self, warp: int) -> np.ndarray:
        """The lanes of a warp, and the warp as a whole."""
        return np.append(np.arange(32 * warp, 32 * warp + 32), self.clocks.warp(warp))

    def read(self, at: int, who: int, actor: int, region: Region, time: int) -> Any:
        """Record it. Returns what it is not ordered after: None, or (actor, instruction, whether but for a fence)."""
        found = self._after_write(who, region, -1)
        self.reads[(actor, *region)] = time
        self.read_at[(actor, *region)] = at
        return found

    def write(self, at: int, who: int, actor: int, region: Region, time: int, accumulator: int = -1) -> Any:
        """Like read. accumulator: a product's; the same warp's products of one accumulator are pipelined."""
        found = self.free(who, region, accumulator)
        self.writer[region], self.write_time[region], self.write_at[region] = actor, time, at
        self.accumulator[region] = accumulator
        return found

    def free(self, who: int, region: Region, accumulator: int = -1) -> Any:
        """What still reads or writes a region, as `read` returns it."""
        return self._after_write(who, region, accumulator) or self._after_reads(who, region)

    def forget(self, region: Region) -> None:
        """The region is given back: nobody's accesses to it matter any more."""
        self.writer[region] = self.accumulator[region] = -1
        self.write_time[region] = 0
        self.reads[(slice(None), *region)] = 0

    def _after_write(self, who: int, region: Region, accumulator: int) -> Any:
        writer, time = self.writer[region], self.write_time[region]
        foreign = writer >= 0
        if accumulator >= 0:
            foreign &= (self.accumulator[region] != accumulator) | (writer != self.products(int(self.clocks.home[who])))
        for fenced in (False, True):
            late = foreign & (self._known(who, fenced)[writer] < time)
            if late.any():
                strip, column = np.argwhere(late)[0]
                return int(writer[strip, column]), int(self.write_at[region][strip, column]), fenced
        return None

    def _after_reads(self, who: int, region: Region) -> Any:
        reads = self.reads[(slice(None), *region)]
        newest = reads.max((1, 2))
        for fenced in (False, True):
            late = newest > self._known(who, fenced)
            if late.any():
                actor = int(late.argmax())
                place = np.unravel_index(reads[actor].argmax(), reads[actor].shape)
                return actor, int(self.read_at[(actor, *region)][place]), fenced
        return None

    def _known(self, who: int, fenced: bool) -> np.ndarray:
        """The newest event of each actor that `who` may rely on; fenced: by the rules of tcgen05.fence."""
        known = self.clocks.known[who]
        if not fenced:
            return known[self.column]
        allowed = np.minimum(known[self.column], self.acquired[who, self.released])
        warp = int(self.clocks.home[who])
        own = [self.loads(warp), self.stores(warp)]  # one's own tcgen05.wait is enough
        allowed[own] = known[self.column[own]]
        return allowed
