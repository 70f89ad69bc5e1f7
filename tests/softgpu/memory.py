"""Global memory: the tensors that a launch was given, and tiled tensor maps over them."""

import bisect
from dataclasses import dataclass

import numpy as np

from tests.softgpu.numbers import UNSIGNED


@dataclass
class Allocation:
    base: int
    size: int
    name: str
    views: dict[int, np.ndarray]
    writers: np.ndarray | None = None
    atomics: bool = False


class GlobalMemory:
    """The tensors a launch was given; any other address is out of bounds."""

    def __init__(self) -> None:
        self.allocations: list[Allocation] = []
        self.bases: list[int] = []

    def add(self, base: int, raw: np.ndarray, name: str) -> None:
        """raw: bytes. Overlapping views of one storage are joined by the caller."""
        views = {1: raw} | {n: raw[: raw.size // n * n].view(UNSIGNED[n]) for n in (2, 4, 8)}
        at = bisect.bisect(self.bases, base)
        self.bases.insert(at, base)
        self.allocations.insert(at, Allocation(base, raw.size, name, views))

    def find(self, low: int) -> Allocation | None:
        at = bisect.bisect(self.bases, low) - 1
        return self.allocations[at] if at >= 0 else None


@dataclass
class TensorMap:
    """A tiled tensor map, outermost dimension first. swizzle: bytes of the pattern's row (0, 32, 64, 128)."""

    base: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements
    box: tuple[int, ...]
    element: int  # bytes
    swizzle: int
    nan_fill: bool = False
