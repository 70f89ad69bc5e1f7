"""Gluon device code of `hopper_queue_softmax`: a warp-specialised kernel for sm_90. Importing it needs Triton's Gluon.

One block computes one (tile of 128 rows, split of the queue). A producer warp copies tiles of 128 keys by TMA into a
ring in shared memory; two consumers, warp groups of 64 rows each, use every tile twice (K = V): for the scores
s = q n^T, in units of log2, and for the weighted sum 2^s n.

Ring protocol. Tile i of the split lies in stage i % STAGES, pass i // STAGES. Phase `pass` of `full` completes with the
producer's arrival and the tile's bytes, that of `empty` with one arrival of each consumer. A waiter names the parity of
its phase: a consumer that of `pass`, the producer that of `pass - 1`, and a fresh barrier counts the phase before its
first as complete. Parity suffices: the next phase of either barrier needs this phase of the other. With gradient, a
consumer does not arrive for its last tile, for which nobody waits; any number of tiles >= 1 works.
Legend: R rows, K keys, C channels, S splits.
"""

import functools
from typing import Any

import torch
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from bingo.kernels.splits import pad_channels

ROWS = gl.constexpr(64)  # per consumer: the rows of one wgmma
STAGES = gl.constexpr(4)  # at least 3: a consumer holds two tiles while it waits for a third
CONSUMERS = gl.constexpr(2)
# Waiting for wgmma synchronises only the warp group that waits, so a consumer is one warp group: exactly four warps.
CONSUMER_WARPS = gl.constexpr(4)
# Registers per thread. The producer's warp is padded to a group, so 3 groups are launched: 65536 / (3 * 128), rounded
# down to a multiple of 8. Re-balanced they are the same number: 2 * 240 + 24 = 3 * 168.
LAUNCH_REGISTERS = gl.constexpr(168)
CONSUMER_REGISTERS = gl.constexpr(240)
PRODUCER_REGISTERS = gl.constexpr(24)
NO_ID = gl.constexpr(-(2**63))  # equals no key's id


@functools.cache
def queue_tile(channels: int) -> tuple[int, int]:
    """Keys and channels of a tile in shared memory, the channels padded to 2^n.

    A consumer holds the fp32 sums of 64 x C and the scores of 64 x keys in registers: with more than 128 channels only
    half of the keys have room.
    """
    padded = pad_channels(channels)
    return 128 if padded <= 128 else 64, padded


@functools.cache
def queue_layout(dtype: torch.dtype, channels: int) -> Any:
    """Shared-memory layout of a tile of a bf16 or fp16 queue."""
    kind = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}[dtype]
    return gl.NVMMASharedLayout.get_default_for(list(queue_tile(channels)), kind)


def describe_queue(queue_KC: torch.Tensor) -> Any:
    """The TMA descriptor of a contiguous queue, passed to the kernel by value (so that CUDA graphs keep it)."""
    channels = queue_KC.shape[1]
    tile, layout = list(queue_tile(channels)), queue_layout(queue_KC.dtype, channels)
    return TensorDescriptor(queue_KC, list(queue_KC.shape), [channels, 1], tile, layout)


@gluon.jit(do_not_specialize=["R", "K", "G", "keys_per_split"])  # one compilation for every size
def partials_kernel(  # type: ignore[no-untyped-def]
    q_ptr, queue, queue_ids_ptr, exclude_ptr, lse_ptr, mean_ptr, R, K, G, keys_per_split, scale,
    C: gl.constexpr, E: gl.constexpr, NORMALIZE: gl.constexpr, GRAD: gl.constexpr,
):  # fmt: skip
    """Grid (row tiles, splits). queue: TMA descriptor of (K, C) in blocks of `queue_tile`; K a multiple of 128."""
    KEYS: gl.constexpr = queue.block_type.shape[0]
    BC: gl.constexpr = queue.block_type.shape[1]
    row = gl.program_id(0) * (CONSUMERS * ROWS)
    split = gl.program_id(1)
    first_key = split * keys_per_split
    tiles = gl.minimum(keys_per_split, K - first_key) // KEYS
    ring = gl.allocate_shared_memory(queue.dtype, [STAGES, KEYS, BC], queue.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    q_room = full  # nothing uses it
    if GRAD and (E > 0 or BC > 128):
        q_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, BC], queue.dtype)
        q_room = gl.allocate_shared_memory(queue.dtype, [CONSUMERS, ROWS, BC], q_layout)
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=CONSUMERS)
    # TMA signals `full` through the async proxy, which must see it initialised; the start of the partitions is a
    # barrier of the whole block, which shows it to all warps.
    fence_async_shared()
    if E == 0:  # nothing reads them
        queue_ids_ptr = q_ptr
        exclude_ptr = q_ptr
    ids = queue_ids_ptr + gl.multiple_of(first_key, KEYS), exclude_ptr, G
    results = lse_ptr, mean_ptr, split
    stream = ring, full, empty, tiles
    gl.warp_specialize(
        [
            (consume, (q_ptr, q_room.index(0), row, ids, results, stream, R, scale, C, E, NORMALIZE, GRAD)),
            (consume, (q_ptr, q_room.index(1), row + ROWS, ids, results, stream, R, scale, C, E, NORMALIZE, GRAD)),
            (produce, (queue, ring, full, empty, first_key, tiles)),
        ],
        [CONSUMER_WARPS, 1],
        [CONSUMER_REGISTERS, PRODUCER_REGISTERS],
    )


@gluon.jit
def produce(queue, ring, full, empty, first_key, tiles):  # type: ignore[no-untyped-def]
    """Copy the split's tiles into the ring, each as soon as both consumers have left its stage."""
    for i in range(tiles):
        stage = i % STAGES
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(full.index(stage), queue.block_type.nbytes)
        tma.async_copy_global_to_shared(queue, [first_key + i * ring.shape[1], 0], full.index(stage), ring.index(stage))


@gluon.jit
def consume(  # type: ignore[no-untyped-def]
    q_ptr, q_room, row, ids, results, stream, R, scale,
    C: gl.constexpr, E: gl.constexpr, NORMALIZE: gl.constexpr, GRAD: gl.constexpr,
):  # fmt: skip
    """Rows row .. row + ROWS - 1 against every tile of the split."""
    ring, full, empty, tiles = stream
    KEYS: gl.constexpr = ring.shape[1]
    BC: gl.constexpr = ring.shape[2]
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, KEYS, 16])
    mean_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, BC, 16])
    q_layout: gl.constexpr = gl.DotOperandLayout(0, s_layout, k_width=2)
    weight_layout: gl.constexpr = gl.DotOperandLayout(0, mean_layout, k_width=2)
    live_rows = R - row
    q_ptr += row.to(gl.int64) * C
    if GRAD and (E > 0 or BC > 128):
        # In shared memory: their registers are wanted for excluded ids, and for sums of more channels.
        q_room.store(load_queries(q_ptr, live_rows, scale, C, BC, NORMALIZE, mean_layout).to(ring.dtype))
        fence_async_shared()
        q = q_room
    else:
        q = load_queries(q_ptr, live_rows, scale, C, BC, NORMALIZE, q_layout).to(ring.dtype)
    mean = gl.zeros([ROWS, BC], gl.float32, mean_layout)

    wait_for_tile(full, 0, tiles)
    scores = warpgroup_mma_wait(0, (start_scores(q, ring, 0, s_layout),))
    if not GRAD:
        mbarrier.arrive(empty.index(0))
    if E > 0:
        scores = leave_out(scores, ids, 0, row, E, s_layout)
    weights = gl.exp2(scores)
    sums = sum_in_threads(weights)
    wait_for_tile(full, 1, tiles)
    if GRAD:
        # The compiler wants a barrier of the warps between two waits, for which there is no need. With one here, the
        # arrival's is enough in the loop; without, each turn has a second.
        tl.debug_barrier()
    operand = gl.convert_layout(weights.to(ring.dtype), weight_layout)
    for i in range(1, tiles):
        started = start_scores(q, ring, i, s_layout)
        if GRAD:
            adding = warpgroup_mma(operand, ring.index((i - 1) % STAGES), mean, is_async=True)
            # Groups of wgmma finish in order: with one outstanding, the scores are there.
            scores = warpgroup_mma_wait(1, (started,))
        else:
            scores = warpgroup_mma_wait(0, (started,))
            mbarrier.arrive(empty.index(i % STAGES))
        if E > 0:
            scores = leave_out(scores, ids, i, row, E, s_layout)
        weights = gl.exp2(scores)
        sums += sum_in_threads(weights)
        # Before the wait for wgmma, not after: the compiler moves that wait up between the exponentials, which are to
        # run while the tensor core adds the previous tile, but not across a branch.
        wait_for_tile(full, i + 1, tiles)
        if GRAD:
            mean = warpgroup_mma_wait(0, (adding,))
            # One arrival, after a barrier of the four warps: none of them still reads the stage.
            mbarrier.arrive(empty.index((i - 1) % STAGES))
            operand = gl.convert_layout(weights.to(ring.dtype), weight_layout)

    lse_ptr, mean_ptr, split = results
    total = gl.sum(sums, 1)
    slot = split.to(gl.int64) * R + row
    rows = gl.arange(0, ROWS, layout=total.type.layout)
    gl.store(lse_ptr + slot + rows, gl.log2(total), mask=rows < live_rows)
    if GRAD:
        adding = warpgroup_mma(operand, ring.index((tiles - 1) % STAGES), mean, is_async=True)
        if E > 0:  # of a row without any key the mean is zero, not NaN
            total = gl.where(total == 0.0, 1.0, total)
        share = gl.convert_layout(1.0 / total, gl.SliceLayout(1, mean_layout))
        mean = warpgroup_mma_wait(0, (adding,)) * share[:, None]
        store_rows(mean_ptr + slot * C, mean, live_rows, C, BC, mean_layout)


@gluon.jit
def load_queries(  # type: ignore[no-untyped-def]
    q_ptr, live_rows, scale, C: gl.constexpr, BC: gl.constexpr, NORMALIZE: gl.constexpr, layout: gl.constexpr
):
    """(ROWS, BC) in fp32, to unit length if asked, times scale; zeros past the last row and channel."""
    rows = gl.arange(0, ROWS, layout=gl.SliceLayout(1, layout))
    cols = gl.arange(0, BC, layout=gl.SliceLayout(0, layout))
    mask = within(rows, cols, live_rows, C, BC)
    q = gl.load(q_ptr + rows[:, None] * C + cols[None, :], mask=mask, other=0.0).to(gl.float32)
    if NORMALIZE:
        scale = (scale / gl.maximum(gl.sqrt(gl.sum(q * q, 1)), 1e-12))[:, None]
    return q * scale


@gluon.jit
def wait_for_tile(full, i, tiles):  # type: ignore[no-untyped-def]
    """Wait until tile i has landed, if there is a tile i."""
    mbarrier.wait(full.index(i % STAGES), (i // STAGES) & 1, pred=i < tiles)


@gluon.jit
def start_scores(q, ring, i, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Start the scores of tile i, which has landed."""
    KEYS: gl.constexpr = ring.shape[1]
    unread = gl.zeros([ROWS, KEYS], gl.float32, layout)
    return warpgroup_mma(q, ring.index(i % STAGES).permute((1, 0)), unread, use_acc=False, is_async=True)


@gluon.jit
def leave_out(scores, ids, i, row, E: gl.constexpr, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Scores of tile i, -inf where the key's id is one of the row's excluded ids; negative ids exclude nothing."""
    ids_ptr, exclude_ptr, G = ids
    KEYS: gl.constexpr = scores.shape[1]
    keys = i * KEYS + gl.arange(0, KEYS, layout=gl.SliceLayout(0, layout))
    groups = (row + gl.arange(0, ROWS, layout=gl.SliceLayout(1, layout))) % G
    operands = (scores, gl.load(ids_ptr + keys)[None, :])
    for e in gl.static_range(E):
        wanted = gl.load(exclude_ptr + groups * E + e)
        operands = operands + (gl.where(wanted < 0, NO_ID, wanted)[:, None],)  # type: ignore[assignment]  # noqa: RUF005
    constraints: gl.constexpr = "=f,f,l" + ",l" * E
    return gl.inline_asm_elementwise(drop_equal(E), constraints, operands, gl.float32, is_pure=True, pack=1)


@gluon.constexpr_function
def drop_equal(count):  # type: ignore[no-untyped-def]
    """PTX: $0 = $1, or -inf if the id $2 is one of `count` ids from $3 on.

    All comparisons of a score together: of tensors the compiler makes one mask after the other and runs out of
    registers. The first test is there to start from the score: ids alone it would compare before the scores are
    there, and keep 64 bits.
    """
    tests = "\n".join(f"@p setp.ne.b64 p, $2, ${3 + e};" for e in range(count))
    return f"{{\n.reg .pred p;\nsetp.neu.f32 p, $1, 0fFF800000;\n{tests}\nselp.f32 $0, $1, 0fFF800000, p;\n}}"


@gluon.jit
def sum_in_threads(weights):  # type: ignore[no-untyped-def]
    """(ROWS, 8) partial sums: those a thread can form alone, so that the loop exchanges nothing between threads."""
    KEYS: gl.constexpr = weights.shape[1]
    return gl.sum(weights.reshape([ROWS, KEYS // 8, 8]), 1)


@gluon.jit
def store_rows(ptr, values, live_rows, C: gl.constexpr, BC: gl.constexpr, layout: gl.constexpr):  # type: ignore[no-untyped-def]
    """Store (ROWS, BC) values, of which live_rows and C channels exist."""
    rows = gl.arange(0, ROWS, layout=gl.SliceLayout(1, layout))
    cols = gl.arange(0, BC, layout=gl.SliceLayout(0, layout))
    gl.store(ptr + rows[:, None] * C + cols[None, :], values, mask=within(rows, cols, live_rows, C, BC))


@gluon.jit
def within(rows, cols, live_rows, C: gl.constexpr, BC: gl.constexpr):  # type: ignore[no-untyped-def]
    """Which elements of (ROWS, BC) exist."""
    mask = rows[:, None] < live_rows
    if BC > C:
        mask = mask & (cols[None, :] < C)
    return mask
