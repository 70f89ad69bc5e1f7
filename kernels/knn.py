"""Nearest rows by inner product without a Q x N array: `nearest`, its reference, merging of lists.

Order everywhere: higher score first, equal scores by the lower index, so a result does not depend on tiles, splits or
devices beyond the rounding of the scores themselves. A (score, index) pair is ordered as one int64 (`to_keys`).
Legend: Q queries, N database rows, D channels.
"""

import logging

import torch
from torch import Tensor

from bingo.kernels.device import per_device
from bingo.kernels.dispatch import reference_or_triton

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MOST = 32
"""The largest k of the Triton kernel, which keeps its lists in registers."""
LOWEST = -(2**63)
"""The key of an empty place."""
INDEX_MASK = 2**31 - 1
MOST_ROWS = 2**30
REFERENCE_ROWS, REFERENCE_COLUMNS = 2048, 8192  # a block of scores: 64 MiB in fp32

logger = logging.getLogger(__name__)


def nearest(
    queries: Tensor, database: Tensor, k: int, *, exclude: Tensor | None = None, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """The k database rows with the largest inner products with each query.

    queries: Q x D; database: N x D, same dtype (fp16, bf16 or fp32) and device, finite. exclude: Q integers, per query
    the database row that is never returned (the query's own place; any number outside 0..N-1 excludes nothing).
    Returns scores (Q x k, fp32, best first) and indices (Q x k, int64); places past the N rows (less the excluded one)
    hold -inf and -1. Products are exact, sums fp32.

    impl: "triton" (CUDA, or the interpreter; k up to 32) streams the database past tiles of queries and keeps each
    query's best k in registers; "reference" is blocked PyTorch; "auto" is triton on CUDA and reference elsewhere.
    Deterministic on one device. `ValueError`: shapes, dtypes, devices, k, an implementation that cannot run here.
    """
    _check(queries, database, k, exclude)
    chosen = choose_nearest(impl, queries.device)
    if exclude is None:
        exclude = torch.full((len(queries),), -1, device=queries.device)
    if not len(queries) or not len(database):
        keys = torch.full((len(queries), k), LOWEST, device=queries.device)
    elif chosen == "reference":
        keys = reference_keys(queries, database, k, exclude)
    else:
        keys = _triton_keys(queries, database, k, exclude)
    return from_keys(keys)


@per_device
def choose_nearest(impl: str, device: torch.device) -> str:
    """What `impl` means on `device`; says once what `auto` stands for."""
    return reference_or_triton(impl, device.type, "nearest", logger)


def _check(queries: Tensor, database: Tensor, k: int, exclude: Tensor | None) -> None:
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1] or not queries.shape[1]:
        raise ValueError(
            f"queries must be Q x D and database N x D with one D >= 1, not {tuple(queries.shape)} and "
            f"{tuple(database.shape)}"
        )
    if queries.dtype != database.dtype or queries.dtype not in DTYPES:
        raise ValueError(
            f"queries and database must both be float16, bfloat16 or float32, not {queries.dtype} and {database.dtype}"
        )
    if queries.device != database.device:
        raise ValueError(f"queries are on {queries.device}, database is on {database.device}; move one of them")
    if len(database) > MOST_ROWS:
        raise ValueError(f"database has {len(database)} rows, more than 2^30; search it in parts and merge their keys")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if exclude is not None and (exclude.shape != queries.shape[:1] or exclude.dtype not in (torch.int32, torch.int64)):
        raise ValueError(f"exclude must be Q = {len(queries)} integers, not {exclude.dtype} {tuple(exclude.shape)}")


def _triton_keys(queries: Tensor, database: Tensor, k: int, exclude: Tensor) -> Tensor:
    from bingo.kernels.triton_knn import best

    if k > MOST:
        raise ValueError(f"impl 'triton' finds at most {MOST} rows per query, not {k}; pass impl='reference'")
    scores, indices = best(queries.contiguous(), database.contiguous(), k, exclude.to(torch.int32))
    return best_keys(to_keys(scores, indices), k)


def reference_keys(queries: Tensor, database: Tensor, k: int, exclude: Tensor) -> Tensor:
    """The k largest keys of each query in plain PyTorch, largest first: Q x k int64. As `nearest`."""
    parts = []
    for rows, own in zip(queries.split(REFERENCE_ROWS), exclude.split(REFERENCE_ROWS), strict=True):
        wide = rows.float()  # half-precision products are exact in fp32
        found = torch.full((len(rows), k), LOWEST, device=rows.device)
        for first in range(0, len(database), REFERENCE_COLUMNS):
            block = database[first : first + REFERENCE_COLUMNS].float()
            indices = torch.arange(first, first + len(block), device=rows.device)
            scores = wide @ block.T
            scores.masked_fill_(indices == own[:, None], -torch.inf)
            # Only a block's best by value and those that tie with the last of them can be among its best by key.
            keys = to_keys(scores, indices) if len(block) <= k else _block_keys(scores, indices, k)
            found = best_keys(torch.cat([found, keys], 1), k)
        parts.append(found)
    return torch.cat(parts)


def _block_keys(scores: Tensor, indices: Tensor, k: int) -> Tensor:
    """Keys of the k best of each row of Q x n scores; `topk` alone leaves open which of equal scores it returns."""
    values, places = scores.topk(k + 1, dim=1)
    keys = to_keys(values, indices[places])
    tied = torch.nonzero(values[:, k - 1] == values[:, k])[:, 0]
    if len(tied):
        keys[tied] = to_keys(scores[tied], indices).topk(k + 1, dim=1).values
    return keys


def best_keys(keys: Tensor, k: int) -> Tensor:
    """The k largest of each row, largest first; rows of fewer are filled with `LOWEST`."""
    if keys.shape[1] < k:
        keys = torch.nn.functional.pad(keys, (0, k - keys.shape[1]), value=LOWEST)
    return keys.topk(k, dim=1).values


def to_keys(scores: Tensor, indices: Tensor) -> Tensor:
    """int64 whose order is that of (score, -index): fp32 scores without NaN, integer indices that broadcast to them.

    A score of -inf stands for an empty place.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: a zero has two signs and one value
    ordered = (bits ^ ((bits >> 31) & INDEX_MASK)).long()
    return torch.where(scores == -torch.inf, LOWEST, (ordered << 32) | (INDEX_MASK - indices.long()))


def from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """(scores, indices) of keys; -inf and -1 for empty places."""
    ordered = (keys >> 32).to(torch.int32)
    scores = (ordered ^ ((ordered >> 31) & INDEX_MASK)).view(torch.float32)
    empty = keys == LOWEST
    return scores.masked_fill(empty, -torch.inf), (INDEX_MASK - (keys & INDEX_MASK)).masked_fill(empty, -1)
