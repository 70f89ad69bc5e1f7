"""Rows of numbers on disk, opened only if they are what their header describes; and rows that teach nothing.

Legend: N images, D numbers of each.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike

from bingo.errors import UserError, file_error
from bingo.files import hash_file

MOST_HALF = 65504
"""The largest fp16 number."""


def open_rows(path: Path, shape: tuple[int, ...], dtype: DTypeLike, again: str) -> np.ndarray:
    """The .npy file `path`, mapped from disk.

    again: how to make the file anew. `UserError`, one sentence: missing, unreadable, truncated, of another shape, dtype
    or order.
    """
    try:
        rows = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {again}") from None
    except Exception as error:  # a damaged head makes NumPy raise many types
        if isinstance(error, OSError) and error.errno and not isinstance(error, IsADirectoryError):
            raise file_error(error, f"cannot read {path}: {error.strerror}") from error
        raise UserError(f"{path} is truncated or cannot be read ({type(error).__name__}); {again}") from error
    length = 0 if not isinstance(rows, np.memmap) else rows.offset + rows.nbytes
    if rows.shape != shape or rows.dtype != np.dtype(dtype) or not rows.flags.c_contiguous:
        found = f"{rows.dtype} of shape {rows.shape}" + ("" if rows.flags.c_contiguous else " in Fortran order")
        raise UserError(f"{path} holds {found}, its header says {np.dtype(dtype)} of shape {shape}; {again}")
    if path.stat().st_size != length:
        raise _other(path, again)
    return rows


def check_content(path: Path, content: str, again: str) -> None:
    """`UserError` unless the file has this content hash."""
    if hash_file(path) != content:
        raise _other(path, again)


def _other(path: Path, again: str) -> UserError:
    return UserError(f"{path} is not the file that its header describes (content hash): damaged or replaced; {again}")


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
