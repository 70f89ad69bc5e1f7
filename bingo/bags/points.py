"""Feature rows as unit vectors, made when asked for, and the exact similarity of any pair of them.

N images, D feature dimensions, Q images asked for, m others for each.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from bingo.errors import UserError

BLOCK_ELEMENTS = 1 << 22  # elements of a block of rows or similarities: 32 MiB in fp64
PAIR_ELEMENTS = 1 << 19  # the same for each thread that multiplies pairs
CPU = torch.device("cpu")


class Points:
    """Feature rows as unit vectors in fp32, made when asked for.

    database: the indices that may be members, ascending; own: of every image the one that its bag leaves out.
    """

    def __init__(self, features: np.ndarray, groups: np.ndarray | None = None) -> None:
        features = np.asarray(features)
        if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
            raise UserError(f"features must be a floating N×D array, not {features.dtype} of shape {features.shape}")
        self.features, self.dim = features, features.shape[1]
        self.norms = self._norms()
        self.own = np.arange(len(features)) if groups is None else _checked_groups(groups, len(features))
        self.database = np.unique(self.own)

    def __len__(self) -> int:
        return len(self.features)

    def _norms(self) -> np.ndarray:
        """fp64, so that equal rows stay bitwise equal and none overflows."""
        norms = np.empty(len(self.features))

        def measure(part: slice) -> None:
            block = self.features[part].astype(np.float64)
            norms[part] = np.sqrt((block * block).sum(1))

        in_threads(measure, blocks(len(norms), self.dim, PAIR_ELEMENTS))
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        if len(bad):
            what = "all zeros" if norms[bad[0]] == 0 else "not finite (NaN or infinity)"
            if len(bad) == len(norms) > 1:
                raise UserError(
                    f"all {len(norms)} feature rows are {what}: the network that made them is broken, not the images; "
                    "train it again, or extract with another one"
                )
            raise UserError(
                f"feature row {bad[0]} is {what} ({len(bad)} of {len(norms)} are): look at that image and extract again"
            )
        return norms

    def unit(self, rows: np.ndarray, device: torch.device = CPU) -> Tensor:
        """fp32 len(rows)×D on `device`: each operation is correctly rounded, so every device gives the same bits."""
        block = torch.from_numpy(np.asarray(self.features[rows])).to(device, torch.float64)
        return (block / torch.from_numpy(self.norms[rows]).to(device)[:, None]).float()

    def similarity(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """fp32 Q×m: fp64 dot products of row left[q] and rows right[q], each summed in the same order whatever Q and m.

        left: Q indices; right: Q×m indices.
        """
        found = np.empty(right.shape, np.float32)

        def multiply(part: slice) -> None:
            product = self._wide(right[part].ravel())
            product.reshape(*right[part].shape, self.dim)[...] *= self._wide(left[part])[:, None]
            found[part] = product.sum(1).reshape(right[part].shape)

        in_threads(multiply, blocks(len(left), right.shape[1] * self.dim, PAIR_ELEMENTS))
        return found

    def _wide(self, rows: np.ndarray) -> np.ndarray:
        block = self.features[rows].astype(np.float64)
        block /= self.norms[rows, None]
        return block.astype(np.float32).astype(np.float64)


def _checked_groups(groups: np.ndarray, count: int) -> np.ndarray:
    groups = np.asarray(groups)
    if groups.shape != (count,) or not np.issubdtype(groups.dtype, np.integer):
        raise UserError(f"groups must be {count} integers, not {groups.dtype} of shape {groups.shape}")
    if count and (groups.min() < 0 or (groups > np.arange(count)).any() or (groups[groups] != groups).any()):
        raise UserError("groups must name, for every image, the lowest index among its copies")
    return groups.astype(np.int64)


def blocks(rows: int, width: int, elements: int = 0) -> Iterator[slice]:
    """Slices of `rows` rows such that no slice holds more than `elements` (BLOCK_ELEMENTS) of `width` a row."""
    step = max(1, (elements or BLOCK_ELEMENTS) // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def in_threads(work: Callable[[slice], None], parts: Iterator[slice]) -> None:
    """NumPy leaves the interpreter's lock while it computes, and uses one core."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(work, parts):
            pass
