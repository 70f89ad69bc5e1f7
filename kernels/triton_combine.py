"""Triton kernels that join the partials of `queue_softmax`, and the fused end of a training step.

One program per row, which adds the splits in a fixed order. `bag_kernel` goes on from there while everything is in
registers: positives' logits, weighted loss, gradient; and further programs of the same launch write the step's new keys
into the ring buffer, which no program of this launch reads.
Legend: as in `triton_queue_softmax.py`, and B rows of `keys` (M positives each; row i reads i % B), V rows of `weights`
(row i reads i // (R / V)), N new keys.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from bingo.kernels.request import Request
from bingo.kernels.ring import NewKeys
from bingo.kernels.splits import pad_channels

SPLITS_PER_STEP = 16
WARPS = 4
# Threads that hold the same number store it to the same place. A multiply and an add that become one rounding in some
# of them and two in others would make those numbers differ, and the language does not say whose stays.
OPTIONS: dict[str, Any] = {"num_warps": WARPS, "enable_fp_fusion": False}
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def combine_row(  # type: ignore[no-untyped-def]
    lse_ptr, mean_ptr, row, R, S, cols, C: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr, GRAD: tl.constexpr
):  # fmt: skip
    """(log2-sum-exp2, mean key (BC)) of one row over all splits; -inf and zeros for a row without any key."""
    largest = -float("inf")
    for first in range(0, S, BS):
        splits = first + tl.arange(0, BS)
        slots = splits.to(tl.int64) * R + row
        largest = tl.maximum(largest, tl.max(tl.load(lse_ptr + slots, mask=splits < S, other=-float("inf"))))
    largest = tl.where(largest == -float("inf"), 0.0, largest)
    total = 0.0
    mean = tl.zeros([BC], tl.float32)
    for first in range(0, S, BS):
        splits = first + tl.arange(0, BS)
        slots = splits.to(tl.int64) * R + row
        weights = tl.exp2(tl.load(lse_ptr + slots, mask=splits < S, other=-float("inf")) - largest)
        total += tl.sum(weights)
        if GRAD:
            mask = (splits < S)[:, None] & (cols < C)[None, :]
            parts = tl.load(mean_ptr + slots[:, None] * C + cols[None, :], mask=mask, other=0.0)
            mean += tl.sum(weights[:, None] * parts, 0)
    return largest + tl.log2(total), mean / tl.where(total == 0.0, 1.0, total)


@triton.jit
def combine_kernel(  # type: ignore[no-untyped-def]
    lse_SR_ptr, mean_SRC_ptr, lse_ptr, mean_ptr, R, S,
    C: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr, GRAD: tl.constexpr,
):  # fmt: skip
    """Natural log-sum-exp and mean key of one row."""
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BC)
    lse, mean = combine_row(lse_SR_ptr, mean_SRC_ptr, row, R, S, cols, C, BC, BS, GRAD)
    tl.store(lse_ptr + row, lse * LN2)
    if GRAD:
        tl.store(mean_ptr + row * C + cols, mean, mask=cols < C)


@triton.jit
def softplus_sigmoid(x):  # type: ignore[no-untyped-def]
    """(log(1 + e^x), 1 / (1 + e^-x)), each accurate to the last digits however far out x is."""
    small = tl.exp(-tl.abs(x))
    # Four terms of the series where 1 + small would lose the digits of small.
    series = small * (1 - small * (0.5 - small * (1.0 / 3 - small * 0.25)))
    softplus = tl.maximum(x, 0.0) + tl.where(small < 0.015625, series, tl.log(1 + small))
    return softplus, tl.where(x >= 0, 1.0, small) / (1 + small)


@triton.jit
def bag_kernel(  # type: ignore[no-untyped-def]
    lse_SR_ptr, mean_SRC_ptr, q_ptr, keys_ptr, weights_ptr, loss_ptr, grad_ptr,
    new_keys_ptr, new_ids_ptr, queue_ptr, queue_ids_ptr, cursor_ptr,
    R, S, B, rows_per_weight, K, N, skipped, inverse_temperature,
    C: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr, M: tl.constexpr,
    GRAD: tl.constexpr, NORMALIZE: tl.constexpr, WRITE: tl.constexpr, IDS: tl.constexpr,
):  # fmt: skip
    """Programs 0 .. R-1: loss and d loss / d q of a row; with WRITE, R .. R+N-1: one new key into the ring each."""
    program = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BC)
    if program < R:
        row = program
        lse, mean = combine_row(lse_SR_ptr, mean_SRC_ptr, row, R, S, cols, C, BC, BS, GRAD)
        q = tl.load(q_ptr + row * C + cols, mask=cols < C, other=0.0).to(tl.float32)
        length = 1.0
        if NORMALIZE:
            length = tl.sqrt(tl.sum(q * q))
            q = q / tl.maximum(length, 1e-12)
        loss = 0.0
        grad = tl.zeros([BC], tl.float32)
        for m in tl.static_range(M):
            k = tl.load(keys_ptr + ((row % B) * M + m) * C + cols, mask=cols < C, other=0.0).to(tl.float32)
            weight = tl.load(weights_ptr + row // rows_per_weight * M + m)
            softplus, sigmoid = softplus_sigmoid(lse * LN2 - tl.sum(q * k) * inverse_temperature)
            loss += weight * softplus
            grad += weight * sigmoid * (mean - k)
        tl.store(loss_ptr + row, loss)
        if GRAD:
            grad = grad * inverse_temperature
            if NORMALIZE:  # a row below the smallest length was only scaled, as in torch's normalize
                along = tl.where(length > 1e-12, tl.sum(grad * q), 0.0)
                grad = (grad - along * q) / tl.maximum(length, 1e-12)
            tl.store(grad_ptr + row * C + cols, grad, mask=cols < C)
    elif WRITE:
        new = program - R
        start = tl.load(cursor_ptr)
        slot = (start + skipped + new) % K
        key = tl.load(new_keys_ptr + new * C + cols, mask=cols < C)
        tl.store(queue_ptr + slot * C + cols, key.to(queue_ptr.dtype.element_ty), mask=cols < C)
        if IDS:
            tl.store(queue_ids_ptr + slot, tl.load(new_ids_ptr + new))
        # The last program to come here has seen every other one read the cursor, and moves it.
        tl.debug_barrier()
        if tl.atomic_add(cursor_ptr + 1, 1) == N - 1:
            tl.store(cursor_ptr, (start + skipped + N) % K)
            tl.store(cursor_ptr + 1, 0)


def combine(lse_SR: Tensor, mean_SRC: Tensor, channels: int, *, grad: bool) -> tuple[Tensor, Tensor]:
    """Natural log-sum-exp (R) and mean key (R, C; without grad (0, C)) from the partials."""
    splits, rows = lse_SR.shape
    lse_R = lse_SR.new_empty(rows)
    mean_RC = lse_SR.new_empty((rows if grad else 0, channels))
    combine_kernel[(rows,)](
        lse_SR, mean_SRC, lse_R, mean_RC, rows, splits, C=channels, BC=pad_channels(channels),
        BS=SPLITS_PER_STEP, GRAD=grad, **OPTIONS,
    )  # fmt: skip
    return lse_R, mean_RC


def combine_bags(
    lse_SR: Tensor, mean_SRC: Tensor, request: Request, keys_BMC: Tensor, weights_VM: Tensor, new: NewKeys | None
) -> tuple[Tensor, Tensor]:
    """Loss (R) and its gradient with respect to q (R, C; without grad (0, C)), fp32; writes the new keys, if any."""
    splits, rows = lse_SR.shape
    batch, positives, channels = keys_BMC.shape
    loss_R = lse_SR.new_empty(rows)
    grad_RC = lse_SR.new_empty((rows if request.grad else 0, channels))
    queue_KC, slots = request.queue_KC, request.queue_KC.shape[0]
    fresh, ids, count, skipped = None, None, 0, 0
    if new:
        count = min(new.keys.shape[0], slots)
        skipped = new.keys.shape[0] - count
        fresh, ids = new.keys.contiguous(), new.ids
        if skipped:
            fresh, ids = fresh[skipped:], None if ids is None else ids[skipped:]
    bag_kernel[(rows + count,)](
        lse_SR, mean_SRC, request.q_RC.contiguous(), keys_BMC.contiguous(), weights_VM.contiguous(), loss_R, grad_RC,
        fresh, ids, queue_KC, request.queue_ids_K, new.cursor if new else None, rows, splits, batch,
        rows // weights_VM.shape[0], slots, count, skipped, 1 / request.temperature, C=channels,
        BC=pad_channels(channels), BS=SPLITS_PER_STEP, M=positives, GRAD=request.grad, NORMALIZE=request.normalize,
        WRITE=count > 0, IDS=ids is not None, **OPTIONS,
    )  # fmt: skip
    return loss_R, grad_RC
