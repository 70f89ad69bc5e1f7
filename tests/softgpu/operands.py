"""Operands in shared memory as the PTX manual's canonical layouts have them, and their descriptors; for tests.

Written from the tiles: a tile has 8 rows of `width` bytes (16 without a pattern), its rows run along K or along M or N,
and the pattern moves the 16-byte chunks of row r of a tile by an exclusive or. The executor counts in address bits.
"""

import numpy as np

BASE = 1024  # where shared memory begins
MODES = {"wgmma": {0: 0, 128: 1, 64: 2, 32: 3}, "tcgen05": {0: 0, 128: 2, 64: 4, 32: 6}}
MOVES = {0: lambda row: 0, 32: lambda row: row // 4 % 2, 64: lambda row: row // 2 % 4, 128: lambda row: row % 8}


class Operand:
    """A matrix (rows, columns) of 16-bit patterns laid out from byte `start` of shared memory on.

    columns: a multiple of 16, of which `descriptor(name, k)` names the k-th sixteen. leading, stride: bytes between
    tiles, in the manual's sense. size: bytes. `place` writes it into an image of shared memory.
    """

    def __init__(self, values: np.ndarray, width: int, transposed: bool, start: int = 0) -> None:
        self.values, self.width, self.transposed, self.start = values, width, transposed, start
        rows, columns = values.shape
        run = (width or 16) // 2  # numbers of a row of a tile
        along, across = (rows, columns) if transposed else (columns, rows)
        self.run, self.tile = run, 8 * 2 * run
        self.wide, self.high = -(-along // run), across // 8  # tiles
        self.size = self.wide * self.high * self.tile

    def place(self, image: np.ndarray) -> None:
        row, column = np.indices(self.values.shape)
        inner, outer = (row, column) if self.transposed else (column, row)
        line, rest = outer % 8, inner % 8
        chunk = inner % self.run // 8 ^ MOVES[self.width](line)
        tile = inner // self.run * self.high + outer // 8
        image.view("u2")[(self.start + tile * self.tile + line * 2 * self.run + chunk * 16) // 2 + rest] = self.values

    def descriptor(self, name: str, k: int = 0) -> int:
        beside, below = self.high * self.tile, self.tile  # bytes from a tile to the next along and across its rows
        start = BASE + self.start
        if self.transposed:
            start += 2 * k * below  # sixteen lines are two tiles
            leading, stride = (beside, below) if self.width else (below, beside)
        else:
            inner = 16 * k
            start += inner // self.run * beside + inner % self.run * 2
            leading, stride = beside, below
        bits = start >> 4 | (leading >> 4) << 16 | (stride >> 4) << 32
        return bits | (MODES[name][self.width] << 62 if name == "wgmma" else 1 << 46 | MODES[name][self.width] << 61)


def small(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Whole numbers whose products and sums are exact."""
    return rng.integers(-4, 5, shape).astype("f4")
