"""Portable Triton kernels of `queue_softmax`: one pass over the queue, sm_80 and later, interpreter.

The loop is attention with K = V: each tile of keys is loaded once and feeds both products. Values, where given, are a V
of their own: a tile of them is loaded beside each tile of keys. The queue is cut along the second grid axis so that few
rows still fill the GPU. Each split leaves two partials per row, in base 2 throughout:
lse_SR = log2 sum_j exp2(z_ij), z = log2(e) / temperature * q . n, and mean_SRC, the split's softmax-weighted mean key;
`triton_combine.py` joins them in a fixed order, so results are bitwise repeatable on one device.

The fast path keeps no running maximum (see `splits.py`); SAFE is the same loop with one. Where rows are not known to
have unit length, SAFE also REPAIRs: a second launch, which ends at once for every split whose partials are in range.
Legend: R rows, K keys, C channels, S splits of the queue, E excluded ids per row, BM rows and BN keys per tile, BC
channels padded to 2^n, G rows of `exclude`, which row i reads at i % G.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from bingo.kernels.device import device_limits, is_interpreted
from bingo.kernels.request import Request
from bingo.kernels.splits import FAST_RANGE, ceil_div, pad_channels, plan_splits

MAX_CHANNELS = 256
CHANNEL_STEP = 16
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Blocks of these kernels that share a multiprocessor.
BLOCKS_PER_SM = 2
NO_ID = tl.constexpr(-(2**63))


@triton.jit
def load_queries(q_ptr, rows, cols, mask, scale, C: tl.constexpr, DTYPE: tl.constexpr, NORMALIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """BM rows in fp32, scaled to base-2 logits (and to unit length), then rounded once to the queue's dtype."""
    q = tl.load(q_ptr + rows[:, None] * C + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    if NORMALIZE:
        q = q / tl.maximum(tl.sqrt(tl.sum(q * q, 1)), 1e-12)[:, None]
    return (q * scale).to(DTYPE)


@triton.jit
def excluded(queue_ids_ptr, exclude_ptr, rows, keys, live, G, E: tl.constexpr):  # type: ignore[no-untyped-def]
    """BM x BN: whether the key's id is one of the row's excluded ids; negative ids exclude nothing."""
    ids = tl.load(queue_ids_ptr + keys, mask=live, other=NO_ID)
    found = tl.zeros([rows.shape[0], keys.shape[0]], tl.int1)
    for e in tl.static_range(E):
        wanted = tl.load(exclude_ptr + (rows % G) * E + e)
        found = found | ((ids[None, :] == wanted[:, None]) & (wanted >= 0)[:, None])
    return found


@triton.jit
def row_sums(weights, BN: tl.constexpr):  # type: ignore[no-untyped-def]
    """BM x 4 partial sums of BM x BN weights.

    A row of a tensor-core tile lies in four threads, which hold pairs of columns in turn: each adds up its own, and the
    exchange between them waits until the queue has been read.
    """
    return tl.sum(tl.sum(tl.reshape(weights, [weights.shape[0], BN // 8, 4, 2]), 3), 1)


@triton.jit
def load_tile(  # type: ignore[no-untyped-def]
    queue, first_key, cols, live,
    C: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, TMA: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """BN x BC: one tile of the queue; zeros for keys that are not live and channels past C. WHOLE: all are live."""
    if TMA:
        n = queue.load([first_key, 0])
    else:
        # One 64-bit base per tile and 32-bit offsets inside it: the offsets leave the loop, and K * C may pass 2^31.
        tile = queue + tl.cast(first_key, tl.int64) * C
        offsets = tl.arange(0, BN)[:, None] * C + cols[None, :]
        if WHOLE and BC == C:
            n = tl.load(tile + offsets)
        else:
            n = tl.load(tile + offsets, mask=live[:, None] & (cols[None, :] < C), other=0.0)
    return n


@triton.jit
def add_tile(  # type: ignore[no-untyped-def]
    q, queue, values, queue_ids_ptr, exclude_ptr, rows, cols, first_key, K, G, scale, largest, total, mean,
    C: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, E: tl.constexpr,
    TMA: tl.constexpr, GRAD: tl.constexpr, SAFE: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Add BN keys to the running maximum (SAFE only), the sum of weights and the weighted sum of keys (or values)."""
    keys = first_key + tl.arange(0, BN)
    live = keys < K
    n = load_tile(queue, first_key, cols, live, C, BC, BN, TMA, WHOLE)
    v = n if values is None else load_tile(values, first_key, cols, live, C, BC, BN, TMA, WHOLE)
    z = tl.dot(q, tl.trans(n), input_precision="ieee")
    if SAFE:  # the fast path has scaled q, which could pass the largest number of a half-precision dtype
        z = z * scale
    if not WHOLE:
        z = tl.where(live[None, :], z, -float("inf"))
    if E > 0:
        z = tl.where(excluded(queue_ids_ptr, exclude_ptr, rows, keys, live, G, E), -float("inf"), z)
    if SAFE:
        larger = tl.maximum(largest, tl.max(z, 1))
        # A row without any key so far has -inf here, and -inf - -inf would be NaN.
        finite = tl.where(larger == -float("inf"), 0.0, larger)
        shrink = tl.exp2(largest - finite)
        weights = tl.exp2(z - finite[:, None])
        total = total * shrink + tl.sum(weights, 1)
        if GRAD:
            mean = tl.dot(weights.to(v.dtype), v, mean * shrink[:, None], input_precision="ieee")
        largest = larger
    else:
        weights = tl.exp2(z)
        total += row_sums(weights, BN)
        if GRAD:
            mean = tl.dot(weights.to(v.dtype), v, mean, input_precision="ieee")
    return largest, total, mean


@triton.jit
def split_kernel(  # type: ignore[no-untyped-def]
    q_ptr, queue, values, queue_ids_ptr, exclude_ptr, lse_ptr, mean_ptr, R, K, G, keys_per_split, scale, low, high,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, E: tl.constexpr,
    TMA: tl.constexpr, GRAD: tl.constexpr, NORMALIZE: tl.constexpr, SAFE: tl.constexpr, REPAIR: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Partials of BM rows over one split; with REPAIR only where the partials that are there are out of range."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    split = tl.program_id(1)
    cols = tl.arange(0, BC)
    stored = rows < R
    slots = split.to(tl.int64) * R + rows
    begin = split * keys_per_split
    end = tl.minimum(begin + keys_per_split, K)
    if REPAIR:
        lse = tl.load(lse_ptr + slots, mask=stored, other=0.0)
        # Written so that NaN is out of range; a row that is in range keeps its partials.
        stored = stored & ((lse < low + tl.log2((end - begin).to(tl.float32))) | (lse > high) | (lse != lse))
        end = tl.where(tl.max(stored.to(tl.int32), 0) > 0, end, begin)

    DTYPE: tl.constexpr = queue.dtype if TMA else queue.dtype.element_ty
    row_mask = (rows < R)[:, None] & (cols < C)[None, :]
    q = load_queries(q_ptr, rows, cols, row_mask, 1.0 if SAFE else scale, C, DTYPE, NORMALIZE)
    largest = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM] if SAFE else [BM, 4], tl.float32)
    mean = tl.zeros([BM, BC], tl.float32)
    whole = end if EVEN else begin + (end - begin) // BN * BN
    for first in range(begin, whole, BN):
        largest, total, mean = add_tile(
            q, queue, values, queue_ids_ptr, exclude_ptr, rows, cols, first, K, G, scale, largest, total, mean,
            C, BC, BN, E, TMA, GRAD, SAFE, True,
        )  # fmt: skip
    if not EVEN:
        for first in range(whole, end, BN):
            largest, total, mean = add_tile(
                q, queue, values, queue_ids_ptr, exclude_ptr, rows, cols, first, K, G, scale, largest, total, mean,
                C, BC, BN, E, TMA, GRAD, SAFE, False,
            )  # fmt: skip

    if not SAFE:
        total = tl.sum(total, 1)
    shift = tl.where(largest == -float("inf"), 0.0, largest)
    tl.store(lse_ptr + slots, shift + tl.log2(total), mask=stored)
    if GRAD:
        mean = mean / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(mean_ptr + slots[:, None] * C + cols[None, :], mean, mask=row_mask & stored[:, None])


@triton.jit
def rank_kernel(  # type: ignore[no-untyped-def]
    q_ptr, queue, queue_ids_ptr, exclude_ptr, scores_ptr, counts_ptr, R, K, G, keys_per_split,
    C: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, E: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """Add to counts (R, M) how many keys of one split have q . n above the row's scores (R, M)."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    cols = tl.arange(0, BC)
    q = load_queries(
        q_ptr, rows, cols, (rows < R)[:, None] & (cols < C)[None, :], 1.0, C, queue.dtype.element_ty, False
    )
    begin = tl.program_id(1) * keys_per_split
    for first in range(begin, tl.minimum(begin + keys_per_split, K), BN):
        keys = first + tl.arange(0, BN)
        live = keys < K
        n = load_tile(queue, first, cols, live, C, BC, BN, False, False)
        z = tl.where(live[None, :], tl.dot(q, tl.trans(n), input_precision="ieee"), -float("inf"))
        if E > 0:
            z = tl.where(excluded(queue_ids_ptr, exclude_ptr, rows, keys, live, G, E), -float("inf"), z)
        for m in tl.static_range(M):
            score = tl.load(scores_ptr + rows * M + m, mask=rows < R, other=float("inf"))
            # Whole numbers: the order in which splits arrive does not matter.
            tl.atomic_add(counts_ptr + rows * M + m, tl.sum((z > score[:, None]).to(tl.int32), 1), mask=rows < R)


@dataclass(frozen=True)
class Tile:
    """Launch shape of `split_kernel`: rows and keys per tile, warps, pipeline stages."""

    rows: int
    keys: int
    warps: int
    stages: int


def choose_tile(dtype: torch.dtype, channels: int, arch: int, *, busy: bool, values: bool = False) -> Tile:
    """Shapes that compile without spills (`bingo bench aot`); without values two blocks share a multiprocessor.

    arch: compute capability times ten. busy: the running maximum or excluded ids need registers too. values: are given.
    """
    if dtype == torch.float32:  # IEEE products use no tensor core: small tiles keep the accumulators in registers
        stages = 1 if busy and channels > 128 and arch >= 90 else 2
        return Tile(rows=16 if busy or arch < 90 else 32, keys=16, warps=8, stages=stages)
    if values and channels <= 128 and not busy:  # more rows, since every key now brings two tiles from L2
        return Tile(rows=128, keys=128 if arch >= 90 else 64, warps=8, stages=2)
    if values and channels <= 128 and arch < 90:
        return Tile(rows=64, keys=32, warps=4, stages=2)
    if busy and arch < 90:
        return Tile(rows=64, keys=64, warps=8, stages=2)
    if channels > 128:
        return Tile(rows=64, keys=32 if busy else 64, warps=8, stages=2)
    if busy:
        return Tile(rows=64, keys=64 if arch < 100 else 32, warps=4, stages=2)
    return Tile(rows=64, keys=128 if arch >= 90 else 64, warps=4, stages=3 if 90 <= arch < 100 else 2)


def write_partials(
    request: Request, keys_per_split: int, lse_SR: Tensor, mean_SRC: Tensor, *, safe: bool, repair: bool = False
) -> None:
    """Launch `split_kernel` on every split that `lse_SR` has room for.

    lse_SR and mean_SRC (without grad (0,)): fp32, contiguous. keys_per_split: a multiple of `SPLIT_KEYS`.
    """
    q, queue, values, exclude = request.q_RC, request.queue_KC, request.values_KD, request.exclude_GE
    (rows, channels), keys = q.shape, queue.shape[0]
    arch, _ = device_limits(q.device)
    busy = safe or exclude is not None
    tile = choose_tile(queue.dtype, channels, arch, busy=busy, values=values is not None)
    padded = pad_channels(channels)
    # The copy engine feeds the tensor cores of sm_90 and later; it saves the loop its address arithmetic. It needs the
    # queue (and values) to start at a multiple of 16 bytes, which a view into another tensor may not.
    matrices = [queue, values]
    aligned = all(matrix is None or matrix.data_ptr() % 16 == 0 for matrix in matrices)
    tma = arch >= 90 and queue.dtype != torch.float32 and aligned
    if tma:
        block = [tile.keys, padded]
        matrices = [matrix if matrix is None else TensorDescriptor.from_tensor(matrix, block) for matrix in matrices]
    low, high = FAST_RANGE[queue.dtype]
    groups, width = (1, 0) if exclude is None else exclude.shape
    split_kernel[(ceil_div(rows, tile.rows), lse_SR.shape[0])](
        q.contiguous(), *matrices, request.queue_ids_K, exclude, lse_SR, mean_SRC, rows, keys, groups, keys_per_split,
        request.scale, low, high, C=channels, BC=padded, BM=tile.rows, BN=tile.keys, E=width, TMA=tma,
        GRAD=request.grad, NORMALIZE=request.normalize, SAFE=safe, REPAIR=repair, EVEN=keys % tile.keys == 0,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def row_tile(request: Request) -> tuple[int, int]:
    """Rows per block, and blocks that share a multiprocessor of the queue's device."""
    queue, values = request.queue_KC, request.values_KD is not None
    tile = choose_tile(queue.dtype, queue.shape[1], device_limits(queue.device)[0], busy=False, values=values)
    return tile.rows, 1 if values else BLOCKS_PER_SM


def ranks(request: Request, scores_RM: Tensor) -> Tensor:
    """How many keys beat each of a row's scores: int32 (R, M)."""
    q_RC, queue_KC, exclude = request.q_RC, request.queue_KC, request.exclude_GE
    check(queue_KC)
    (rows, channels), keys = q_RC.shape, queue_KC.shape[0]
    arch, sms = device_limits(q_RC.device)
    counts = torch.zeros(scores_RM.shape, dtype=torch.int32, device=q_RC.device)
    tile = choose_tile(queue_KC.dtype, channels, arch, busy=True)
    per_split, splits = plan_splits(rows, keys, tile.rows, BLOCKS_PER_SM * sms)
    groups, width = (1, 0) if exclude is None else exclude.shape
    rank_kernel[(ceil_div(rows, tile.rows), splits)](
        q_RC.contiguous(), queue_KC, request.queue_ids_K, exclude, scores_RM.contiguous(), counts, rows, keys, groups,
        per_split, C=channels, BC=pad_channels(channels), BM=tile.rows, BN=tile.keys, E=width, M=scores_RM.shape[1],
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return counts


def check(queue_KC: Tensor, values_KD: Tensor | None = None) -> None:
    """ValueError for what no Triton kernel takes."""
    channels = queue_KC.shape[1]
    if values_KD is not None and values_KD.shape[1] != channels:
        raise ValueError(
            f"values are {values_KD.shape[1]} channels wide and the queue {channels}; impl 'triton' needs one width; "
            "pass impl='chunked'"
        )
    if channels % CHANNEL_STEP or not 0 < channels <= MAX_CHANNELS:
        raise ValueError(
            f"impl 'triton' needs C to be a multiple of {CHANNEL_STEP} up to {MAX_CHANNELS}, not {channels}; "
            "pass impl='chunked'"
        )
    if queue_KC.dtype not in DTYPES:
        raise ValueError(f"impl 'triton' takes float16, bfloat16 or float32, not {queue_KC.dtype}; pass impl='chunked'")
    if queue_KC.dtype == torch.bfloat16 and is_interpreted():
        raise ValueError("Triton's interpreter computes bfloat16 products wrongly; use float32, or impl='chunked'")
