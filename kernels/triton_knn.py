"""The Triton kernel of `nearest`: a matrix product whose tiles feed a running list of the best rows.

One program owns BM queries and reads the database once, in tiles of BN rows, each an ordinary product over D in steps
of BD. Scores are never stored. While any of a tile's beats its query's worst kept score, every query takes its tile's
best (ties: the lower index) in the place of its worst (ties: the higher index) and strikes it out. Rows come in the
order of their index, so of equal scores the first to come has the lowest and is never replaced. In random order, row
number r of the database enters a list with probability K / r: K ln(N / K) times per query in all, so that after the
first few thousand rows most tiles end with one comparison or one turn.
Legend: Q queries, N database rows, D channels, K places of a list (a power of two).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from bingo.kernels.device import device_limits, is_interpreted
from bingo.kernels.splits import ceil_div

NEVER = tl.constexpr(2**31 - 1)


@triton.jit
def load_chunk(rows, first, D: tl.constexpr, BD: tl.constexpr):  # type: ignore[no-untyped-def]
    """Channels first .. first + BD of the rows that the pointers `rows` begin; zeros past D."""
    cols = first + tl.arange(0, BD)
    if D % BD == 0:
        chunk = tl.load(rows[:, None] + cols[None, :])
    else:
        chunk = tl.load(rows[:, None] + cols[None, :], mask=(cols < D)[None, :], other=0.0)
    return chunk


@triton.jit
def take_best(scores, at, own, N, kept, kept_at, worst):  # type: ignore[no-untyped-def]
    """Move the scores (BM x BN) of database rows `at` (BN) that belong into the lists there."""
    scores = tl.where((at < N)[None, :] & (at[None, :] != own[:, None]), scores, -float("inf"))
    best = tl.max(scores, 1)
    while tl.max((best > worst).to(tl.int32), 0) > 0:
        best_at = tl.min(tl.where(scores == best[:, None], at[None, :], NEVER), 1)
        victim = tl.max(tl.where(kept == worst[:, None], kept_at, -1), 1)
        replaced = (kept_at == victim[:, None]) & (best > worst)[:, None]
        kept = tl.where(replaced, best[:, None], kept)
        kept_at = tl.where(replaced, best_at[:, None], kept_at)
        # A query that took nothing has nothing left to take: that its best is struck out too changes nothing.
        scores = tl.where(at[None, :] == best_at[:, None], -float("inf"), scores)
        best = tl.max(scores, 1)
        worst = tl.min(kept, 1)
    return kept, kept_at, worst


@triton.jit
def nearest_kernel(  # type: ignore[no-untyped-def]
    q_ptr, database_ptr, exclude_ptr, scores_ptr, indices_ptr, Q, N,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Lists of BM queries, in no order: scores (Q, K) and indices (Q, K) int32; -inf where the database was too short.

    A turn of the loop takes two tiles of BN rows: they share the loads of the queries, and picking from one tile at a
    time leaves registers enough for both products.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    # Rows past the end read the last one: loads need no mask, and their scores are struck out or never stored.
    q_rows = q_ptr + tl.minimum(rows, Q - 1).to(tl.int64) * D
    own = tl.load(exclude_ptr + rows, mask=rows < Q, other=-1)
    places = tl.arange(0, K)
    kept = tl.full([BM, K], -float("inf"), tl.float32)
    # Different numbers above every index: of equal scores exactly one place is the worst.
    kept_at = tl.zeros([BM, K], tl.int32) + (places + (NEVER - K))[None, :]
    worst = tl.full([BM], -float("inf"), tl.float32)
    for start in range(0, N, 2 * BN):
        at = start + tl.arange(0, BN)
        left_rows = database_ptr + tl.minimum(at, N - 1).to(tl.int64) * D
        right_rows = database_ptr + tl.minimum(at + BN, N - 1).to(tl.int64) * D
        left = tl.zeros([BM, BN], tl.float32)
        right = tl.zeros([BM, BN], tl.float32)
        for first in range(0, D, BD):
            q = load_chunk(q_rows, first, D, BD)
            left = tl.dot(q, tl.trans(load_chunk(left_rows, first, D, BD)), left, input_precision="ieee")
            right = tl.dot(q, tl.trans(load_chunk(right_rows, first, D, BD)), right, input_precision="ieee")
        kept, kept_at, worst = take_best(left, at, own, N, kept, kept_at, worst)
        kept, kept_at, worst = take_best(right, at + BN, own, N, kept, kept_at, worst)
    slots = rows.to(tl.int64)[:, None] * K + places[None, :]
    tl.store(scores_ptr + slots, kept, mask=(rows < Q)[:, None])
    tl.store(indices_ptr + slots, kept_at, mask=(rows < Q)[:, None])


@dataclass(frozen=True)
class Tile:
    """Launch shape: queries, database rows and channels per tile (of which a turn takes two), warps, stages."""

    queries: int
    rows: int
    channels: int
    warps: int
    stages: int


def choose_tile(dtype: torch.dtype, places: int, arch: int) -> Tile:
    """Shapes that compile without spills (`bingo bench aot`). arch: ten times the capability; 0: the interpreter."""
    if arch == 0:
        return Tile(16, 32, 32, 4, 1)
    if dtype == torch.float32:  # IEEE products use no tensor core
        return Tile(64, 32, 32, 8, 2)
    return Tile(128, 128 if 90 <= arch < 100 and places == 16 else 64, 64, 8, 3)


def best(queries: Tensor, database: Tensor, k: int, exclude: Tensor) -> tuple[Tensor, Tensor]:
    """At least k kept scores (fp32) and indices (int32) per query, in no order; -inf marks empty places.

    queries Q x D and database N x D: contiguous, one dtype, Q and N at least 1; exclude: int32 (Q).
    """
    if queries.dtype == torch.bfloat16 and is_interpreted():
        raise ValueError("Triton's interpreter computes bfloat16 products wrongly; use float16, or impl='reference'")
    (count, channels), places = queries.shape, max(16, 1 << (k - 1).bit_length())
    tile = choose_tile(queries.dtype, places, 0 if is_interpreted() else device_limits(queries.device)[0])
    scores = torch.empty(count, places, dtype=torch.float32, device=queries.device)
    indices = torch.empty(count, places, dtype=torch.int32, device=queries.device)
    nearest_kernel[(ceil_div(count, tile.queries),)](
        queries, database, exclude, scores, indices, count, len(database),
        D=channels, BM=tile.queries, BN=tile.rows, BD=tile.channels, K=places,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return scores, indices
