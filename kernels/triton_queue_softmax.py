"""Portable Triton implementation of `queue_softmax`: one pass over the queue, for sm_80 and later and the interpreter.

The loop is attention with K = V: each tile of keys is loaded once and feeds both products. The queue is split over
the second grid axis so that few rows still fill the GPU; each split leaves its maximum, sum and weighted sum of keys,
and a second kernel combines them in a fixed order, so that the result is bitwise repeatable on one device.
Legend: R rows, K keys, C channels, S splits of the queue, BM rows and BN keys per tile, BC channels padded to 2^n.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_CHANNELS = 256
CHANNEL_STEP = 16
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
COMBINE_ROWS = 4
# Thread blocks that a GPU (or, in the interpreter, a test) should have to work on, per multiprocessor.
BLOCKS_PER_SM = 2
INTERPRETER_SMS = 2


@triton.jit
def split_kernel(  # type: ignore[no-untyped-def]
    q_ptr, queue_ptr, max_ptr, sum_ptr, mean_ptr, R, K, tiles_per_split, scale,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, EVEN_K: tl.constexpr,
):  # fmt: skip
    """Maximum, sum and weighted key sum of one split of the queue; logits are in units of log2 (scale = log2(e)/t)."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    split = tl.program_id(1).to(tl.int64)
    cols = tl.arange(0, BC)
    row_mask = (rows[:, None] < R) & (cols[None, :] < C)
    q = tl.load(q_ptr + rows[:, None] * C + cols[None, :], mask=row_mask, other=0.0)

    largest = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    mean = tl.zeros([BM, BC], tl.float32)
    first = split * tiles_per_split
    last = tl.minimum(first + tiles_per_split, tl.cdiv(K, BN))
    for tile in range(first, last):
        keys = tile * BN + tl.arange(0, BN)
        offsets = keys[:, None] * C + cols[None, :]
        if EVEN_K and BC == C:
            n = tl.load(queue_ptr + offsets)
        else:
            n = tl.load(queue_ptr + offsets, mask=(keys[:, None] < K) & (cols[None, :] < C), other=0.0)
        logits = tl.dot(q, tl.trans(n), input_precision="ieee") * scale
        if not EVEN_K:
            live_keys = tl.minimum(K - tile * BN, BN).to(tl.int32)
            logits = tl.where(tl.arange(0, BN)[None, :] < live_keys, logits, -float("inf"))
        # A running maximum keeps any row length and any temperature finite. A tile holds at least one key, so
        # `larger` is finite and the first shrink is exp2(-inf) = 0.
        larger = tl.maximum(largest, tl.max(logits, 1))
        weights = tl.exp2(logits - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        mean = tl.dot(weights.to(n.dtype), n, mean * shrink[:, None], input_precision="ieee")
        largest = larger

    slots = split * R + rows
    tl.store(max_ptr + slots, largest, mask=rows < R)
    tl.store(sum_ptr + slots, total, mask=rows < R)
    tl.store(mean_ptr + slots[:, None] * C + cols[None, :], mean, mask=row_mask)


@triton.jit
def combine_kernel(  # type: ignore[no-untyped-def]
    max_ptr, sum_ptr, mean_ptr, lse_ptr, out_ptr, R, S,
    C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """Add the splits of BR rows in the order 0 .. S-1; write the natural log-sum-exp and the mean key."""
    rows = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    cols = tl.arange(0, BC)
    live = rows < R
    row_mask = live[:, None] & (cols[None, :] < C)
    largest = tl.full([BR], -float("inf"), tl.float32)
    slots = rows
    for _ in range(S):
        largest = tl.maximum(largest, tl.load(max_ptr + slots, mask=live, other=0.0))
        slots += R
    total = tl.zeros([BR], tl.float32)
    mean = tl.zeros([BR, BC], tl.float32)
    slots = rows
    for _ in range(S):
        shrink = tl.exp2(tl.load(max_ptr + slots, mask=live, other=0.0) - largest)
        total += shrink * tl.load(sum_ptr + slots, mask=live, other=1.0)
        mean += shrink[:, None] * tl.load(mean_ptr + slots[:, None] * C + cols[None, :], mask=row_mask, other=0.0)
        slots += R
    tl.store(lse_ptr + rows, (largest + tl.log2(total)) * 0.6931471805599453, mask=live)
    tl.store(out_ptr + rows[:, None] * C + cols[None, :], mean / total[:, None], mask=row_mask)


@dataclass(frozen=True)
class Tile:
    """Launch shape of `split_kernel`: rows and keys per tile, warps, pipeline stages."""

    rows: int
    keys: int
    warps: int
    stages: int


def choose_tile(dtype: torch.dtype, channels: int) -> Tile:
    """Starting points that compile without spills; tuning them on a GPU is still to be done."""
    if dtype == torch.float32:  # IEEE products use no tensor core: small tiles keep the accumulators in registers
        return Tile(rows=32 if channels <= 128 else 16, keys=32, warps=8, stages=2)
    if channels > 128:
        return Tile(rows=64, keys=64, warps=8, stages=2)
    return Tile(rows=64, keys=128, warps=4, stages=2)


def is_interpreted() -> bool:
    """Whether TRITON_INTERPRET was set when the kernels were defined."""
    return not isinstance(split_kernel, triton.runtime.jit.JITFunction)


def queue_softmax_triton(
    q_RC: Tensor, queue_KC: Tensor, temperature: float, *, splits: int | None = None
) -> tuple[Tensor, Tensor]:
    """`queue_softmax` for fp16, bf16 or fp32 tensors with C a multiple of 16 up to 256; outputs fp32.

    splits: how many parts the queue is cut into, by default two blocks per multiprocessor. ValueError for other inputs.
    """
    _check(q_RC, queue_KC)
    (rows, channels), keys = q_RC.shape, queue_KC.shape[0]
    lse_R = q_RC.new_empty(rows, dtype=torch.float32)
    mean_RC = q_RC.new_empty((rows, channels), dtype=torch.float32)
    if rows == 0:
        return lse_R, mean_RC
    tile = choose_tile(q_RC.dtype, channels)
    tiles_per_split, splits = _partition(rows, keys, tile, splits or _default_splits(rows, tile, q_RC.device))
    max_SR, sum_SR = (q_RC.new_empty((splits, rows), dtype=torch.float32) for _ in range(2))
    mean_SRC = q_RC.new_empty((splits, rows, channels), dtype=torch.float32)
    padded: dict[str, Any] = {"C": channels, "BC": triton.next_power_of_2(channels)}
    scale = math.log2(math.e) / temperature
    split_kernel[(triton.cdiv(rows, tile.rows), splits)](
        q_RC.contiguous(), queue_KC, max_SR, sum_SR, mean_SRC, rows, keys, tiles_per_split, scale, **padded,
        BM=tile.rows, BN=tile.keys, EVEN_K=keys % tile.keys == 0, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    combine_kernel[(triton.cdiv(rows, COMBINE_ROWS),)](
        max_SR, sum_SR, mean_SRC, lse_R, mean_RC, rows, splits, BR=COMBINE_ROWS, num_warps=4, **padded
    )
    return lse_R, mean_RC


def _check(q_RC: Tensor, queue_KC: Tensor) -> None:
    channels = q_RC.shape[1]
    if channels % CHANNEL_STEP or not 0 < channels <= MAX_CHANNELS:
        raise ValueError(
            f"impl 'triton' needs C to be a multiple of {CHANNEL_STEP} up to {MAX_CHANNELS}, not {channels}; "
            "pass impl='chunked'"
        )
    if q_RC.dtype not in DTYPES:
        raise ValueError(f"impl 'triton' takes float16, bfloat16 or float32, not {q_RC.dtype}; pass impl='chunked'")
    if is_interpreted() and q_RC.dtype == torch.bfloat16:
        raise ValueError("Triton's interpreter computes bfloat16 products wrongly; use float32, or impl='chunked'")


def _default_splits(rows: int, tile: Tile, device: torch.device) -> int:
    interpreted = device.type == "cpu"
    sms = INTERPRETER_SMS if interpreted else torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, BLOCKS_PER_SM * sms // triton.cdiv(rows, tile.rows))


def _partition(rows: int, keys: int, tile: Tile, splits: int) -> tuple[int, int]:
    """Tiles per split and the number of splits, none of them empty."""
    tiles = triton.cdiv(keys, tile.keys)
    tiles_per_split = triton.cdiv(tiles, splits)
    return tiles_per_split, triton.cdiv(tiles, tiles_per_split)
