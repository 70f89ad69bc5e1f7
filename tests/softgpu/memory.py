"""Global memory: the tensors that a launch was given, and tiled tensor maps over them."""

import bisect
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.softgpu.numbers import UNSIGNED, i4, i8


class Marks:
    """Who has touched the words of an allocation in this launch; `block_global.py` has the rules.

    writes, reads: the last access of each word by a block, thread and time, packed into one number; 0 for none. at: the
    instruction that wrote. atomic: whether that was an atomic operation. last_reads: block -> each thread's last read
    of the allocation.
    """

    def __init__(self, words: int) -> None:
        self.writes, self.reads = np.zeros(words, i8), np.zeros(words, i8)
        self.at, self.atomic = np.zeros(words, i4), np.zeros(words, bool)
        self.written = False
        self.last_reads: dict[int, np.ndarray] = {}


@dataclass
class Allocation:
    """Bytes from `base` on. views: the memory as unsigned integers of 1, 2, 4 and 8 bytes."""

    base: int
    size: int
    name: str
    views: dict[int, np.ndarray]
    marks: Marks | None = None


@dataclass
class GlobalMemory:
    """The tensors a launch was given; any other address is out of bounds.

    word: bytes that accesses are told apart by. order: the index of each block, in the order in which they run.
    released: for each atomic word (base, number), what its last release has handed on: block -> newest time per thread.
    """

    allocations: list[Allocation] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)
    word: int = 4
    order: list[tuple[int, int, int]] = field(default_factory=list)
    released: dict[tuple[int, int], dict[int, np.ndarray]] = field(default_factory=dict)

    def add(self, base: int, raw: np.ndarray, name: str) -> None:
        """raw: bytes. Overlapping views of one storage are joined by the caller."""
        views: dict[int, Any] = {1: raw}
        views |= {n: raw[: raw.size // n * n].view(UNSIGNED[n]) for n in (2, 4, 8)}
        at = bisect.bisect(self.bases, base)
        self.bases.insert(at, base)
        self.allocations.insert(at, Allocation(base, raw.size, name, views))

    def find(self, low: int) -> Allocation | None:
        """The allocation that an address may lie in: the last that starts at or before it."""
        at = bisect.bisect(self.bases, low) - 1
        return self.allocations[at] if at >= 0 else None

    def forget(self) -> None:
        """A launch has ended: what comes next is ordered after it."""
        self.released.clear()
        for allocation in self.allocations:
            allocation.marks = None


@dataclass
class TensorMap:
    """A tiled tensor map, outermost dimension first. swizzle: bytes of the pattern's row (0, 32, 64, 128)."""

    base: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    box: tuple[int, ...]
    element: int  # bytes
    swizzle: int
