"""Rows of numbers on disk, opened only if they are what their header describes; and rows that teach nothing.

Legend: N images, D numbers of each.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike

from bingo.distributed import World
from bingo.errors import UserError, file_error
from bingo.files import hash_file

T = TypeVar("T")
MOST_HALF = 65504
"""The largest fp16 number."""


def open_rows(path: Path, shape: tuple[int, ...], dtype: DTypeLike, content: str | None, again: str) -> np.ndarray:
    """The .npy file `path`, mapped from disk.

    content: the content hash that it must have, None where another rank compares it. again: how to make the file anew.
    `UserError`, one sentence: missing, unreadable, truncated, of other bytes, shape, dtype or order.
    """
    try:
        rows = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {again}") from None
    except PermissionError as error:
        raise file_error(error, f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # a damaged head makes NumPy raise many types
        raise UserError(f"{path} is truncated or cannot be read ({type(error).__name__}); {again}") from error
    length = 0 if not isinstance(rows, np.memmap) else rows.offset + rows.nbytes
    if rows.shape != shape or rows.dtype != np.dtype(dtype) or not rows.flags.c_contiguous:
        found = f"{rows.dtype} of shape {rows.shape}" + ("" if rows.flags.c_contiguous else " in Fortran order")
        raise UserError(f"{path} holds {found}, its header says {np.dtype(dtype)} of shape {shape}; {again}")
    if path.stat().st_size != length or (content is not None and hash_file(path) != content):
        raise UserError(
            f"{path} is not the file that its header describes (content hash): damaged or replaced; {again}"
        )
    return rows


def agreed(world: World, read: Callable[[], T]) -> T:
    """What `read` returns on this rank; where it is refused on any rank, the same `UserError` on every rank."""
    found: list[T] = []
    # Not the exception itself: it would hold this frame, and the process group with it.
    refusals: list[tuple[type[UserError], str]] = []
    try:
        found.append(read())
    except UserError as error:
        refusals.append((type(error), str(error)))
    world.barrier()  # which waits longer than the exchange would: rank 0 may have gigabytes to read
    for kind, sentence in world.gather_lists(refusals):
        raise kind(sentence)
    return found[0]


def check_rows(
    rows: torch.Tensor, what: str, network: object, image: Callable[[int], str], *, zeros: bool = False
) -> None:
    """`UserError` if rows (N x D, any floating dtype, any device) are not finite or, unless `zeros`, have no length.

    what: "features" or "keys"; network: where it came from, which is blamed when every row is bad; image: names the one
    of a row. One reduction and one read of its N results.
    """
    largest = rows.abs().amax(1).cpu()  # NaN where a row holds one
    sound = (largest < torch.inf) & ((largest >= 0) if zeros else (largest > 0))
    if sound.all():
        return
    bad = (~sound).nonzero()[:, 0].tolist()
    problem = "all zeros" if largest[bad[0]] == 0 else "not finite (NaN or infinity)"
    if len(bad) == len(rows) > 1:
        raise UserError(
            f"the {what} of all {len(rows)} images looked at are {problem}: the network in {network} is broken, not "
            "the images; train it again, or give another one"
        )
    more = f" (and of {len(bad) - 1} more of {len(rows)})" if len(bad) > 1 else ""
    raise UserError(
        f"the {what} of {image(bad[0])}{more} are {problem}, those of others are not: look at that image, and leave it "
        "out or give another network"
    )


def all_equal(rows: np.ndarray) -> bool:
    """Whether N x ... rows, more than one, are the same everywhere; ends at the first that differs."""
    step = 4096
    return len(rows) > 1 and all((rows[at : at + step] == rows[0]).all() for at in range(0, len(rows), step))
