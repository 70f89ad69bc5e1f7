"""A small array that is filled block by block, by a process that may die at any of them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from bingo.distributed import World
from bingo.features.blocks import Range, fill_blocks
from bingo.files import HASH_BYTES

ALONE = World(0, 1, torch.device("cpu"), 1)
SHAPE, BLOCK = (23, 3, 2), 4
BLOCKS = 6


def values(first: int, last: int) -> np.ndarray:
    """The rows first .. last of the array in question."""
    return np.arange(first * 6, last * 6, dtype=np.float16).reshape(-1, *SHAPE[1:])


def marked(marks: Path) -> int:
    """How many blocks of a half-done array have their mark."""
    found = marks.read_bytes().split(b"\n", 1)[-1] if marks.exists() else b""
    return sum(found[at : at + HASH_BYTES].strip(b"\0") != b"" for at in range(0, len(found), HASH_BYTES))


class Killed(Exception):
    pass


def fill(path: Path, world: World = ALONE, *, key: str = "key", stop: int = 99, shape: tuple[int, ...] = SHAPE) -> list:
    """Fill; dies before the block number `stop` of this rank. Returns the ranges that were computed."""
    asked: list[Range] = []

    def compute(ranges: list[Range]) -> Iterator[np.ndarray]:
        for count, (first, last) in enumerate(ranges):
            if count == stop:
                raise Killed
            asked.append((first, last))
            yield values(first, last)

    fill_blocks(path, shape, np.float16, block=BLOCK, key=key, world=world, compute=compute)
    return asked
