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
    tcgen05.commit. From then on the warp, and whom it synchronises with, has seen it: columns of `Clocks.seen`, which
    barriers and mbarriers pass on. Columns behind those of shared memory: loads, stores, and both once more as far as a
    tcgen05.fence::before_thread_sync has released them. acquired: what a tcgen05.fence::after_thread_sync let in.
    """

    def __init__(self, clocks: Clocks) -> None:
        warps = self.warps = clocks.warps
        self.clocks = clocks
        own = np.arange(clocks.actors, clocks.actors + 2 * warps)
        products = clocks.products(np.arange(warps))
        self.column = np.concatenate([own, products])  # in clocks.seen, of each actor
        self.released = np.concatenate([own + 2 * warps, products])  # a commit releases products by itself
        self.acquired = np.zeros_like(clocks.seen)
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

    def open_time(self, warp: int, actor: int) -> int:
        """The clock of what the warp issues now as this actor: one more than what it has waited for."""
        return int(self.clocks.seen[warp, self.column[actor]]) + 1

    def waited(self, warp: int, actor: int) -> None:
        self.clocks.seen[warp, self.column[actor]] += 1

    def fence_before(self, warp: int) -> None:
        seen = self.clocks.seen[warp]
        seen[self.released] = np.maximum(seen[self.released], seen[self.column])

    def fence_after(self, warp: int) -> None:
        self.acquired[warp] = np.maximum(self.acquired[warp], self.clocks.seen[warp])

    def read(self, at: int, warp: int, actor: int, region: Region, time: int) -> Any:
        """Record it. Returns what it is not ordered after: None, or (actor, instruction, whether but for a fence)."""
        found = self._after_write(warp, region, -1)
        self.reads[(actor, *region)] = time
        self.read_at[(actor, *region)] = at
        return found

    def write(self, at: int, warp: int, actor: int, region: Region, time: int, accumulator: int = -1) -> Any:
        """Like read. accumulator: a product's; the same warp's products of one accumulator are pipelined."""
        found = self.free(warp, region, accumulator)
        self.writer[region], self.write_time[region], self.write_at[region] = actor, time, at
        self.accumulator[region] = accumulator
        return found

    def free(self, warp: int, region: Region, accumulator: int = -1) -> Any:
        """What still reads or writes a region, as `read` returns it."""
        return self._after_write(warp, region, accumulator) or self._after_reads(warp, region)

    def forget(self, region: Region) -> None:
        """The region is given back: nobody's accesses to it matter any more."""
        self.writer[region] = self.accumulator[region] = -1
        self.write_time[region] = 0
        self.reads[(slice(None), *region)] = 0

    def _after_write(self, warp: int, region: Region, accumulator: int) -> Any:
        writer, time = self.writer[region], self.write_time[region]
        foreign = writer >= 0
        if accumulator >= 0:
            foreign &= (self.accumulator[region] != accumulator) | (writer != self.products(warp))
        for fenced in (False, True):
            late = foreign & (self._known(warp, fenced)[writer] < time)
            if late.any():
                strip, column = np.argwhere(late)[0]
                return int(writer[strip, column]), int(self.write_at[region][strip, column]), fenced
        return None

    def _after_reads(self, warp: int, region: Region) -> Any:
        reads = self.reads[(slice(None), *region)]
        newest = reads.max((1, 2))
        for fenced in (False, True):
            late = newest > self._known(warp, fenced)
            if late.any():
                actor = int(late.argmax())
                place = np.unravel_index(reads[actor].argmax(), reads[actor].shape)
                return actor, int(self.read_at[(actor, *region)][place]), fenced
        return None

    def _known(self, warp: int, fenced: bool) -> np.ndarray:
        """The newest event of each actor that the warp may rely on; fenced: by the rules of tcgen05.fence."""
        seen = self.clocks.seen[warp]
        if not fenced:
            return seen[self.column]
        known = np.minimum(seen[self.column], self.acquired[warp, self.released])
        own = [self.loads(warp), self.stores(warp)]  # a thread's own tcgen05.wait is enough
        known[own] = seen[self.column[own]]
        return known
