"""The Hopper implementation's host side: checks and launch. Imports Gluon (`hopper_kernel`) only when it is needed.

The kernel leaves partials per split of the queue, in the form of the portable kernel: log2 of the sum of 2^z over the
split's keys, z = scale * q . n with scale = log2(e) / temperature, and the softmax-weighted mean key of the split. It
keeps no running maximum, so rows and keys must have unit length and scale must not pass `FAST_LOGIT`.
Legend: R rows, K keys, C channels, S splits.
"""

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from bingo.kernels.device import device_capability, is_interpreted
from bingo.kernels.request import Request
from bingo.kernels.splits import FAST_LOGIT

CAPABILITY = (9, 0)
CHANNELS = (64, 128, 192, 256)
# Every comparison needs the ids in registers: more of them, or more channels beside them, would spill.
MOST_EXCLUDED, MOST_CHANNELS_EXCLUDED = 6, 128
QUEUE_DTYPES = (torch.bfloat16, torch.float16)
QUERY_DTYPES = (torch.float32, *QUEUE_DTYPES)
ROWS_PER_BLOCK = 128
KEYS_PER_TILE = 128


def hopper_obstacle(
    capability: tuple[int, int] | None, queue_dtype: torch.dtype | None = None, channels: int | None = None
) -> str | None:
    """What keeps the kernel from running, as half a sentence, or None.

    capability: see `device_capability`. queue_dtype, channels: None where they are not known yet.
    """
    if capability is None:
        return "the tensors are not on a CUDA device"
    if capability != CAPABILITY:
        return f"the device's is {capability[0]}.{capability[1]}"
    if queue_dtype not in (None, *QUEUE_DTYPES):
        return f"the queue is {str(queue_dtype).removeprefix('torch.')}"
    if channels not in (None, *CHANNELS):
        return f"there are {channels} channels"
    if is_interpreted():
        return "TRITON_INTERPRET is set and Gluon has no interpreter"
    return None if has_gluon() else f"Triton {triton.__version__} has no usable Gluon"


def require_hopper(
    capability: tuple[int, int] | None, queue_dtype: torch.dtype | None = None, channels: int | None = None
) -> None:
    """ValueError that says what impl='hopper' needs, where the kernel cannot run."""
    obstacle = hopper_obstacle(capability, queue_dtype, channels)
    if obstacle:
        raise ValueError(
            "impl 'hopper' needs a CUDA device of compute capability 9.0, a bfloat16 or float16 queue, 64, "
            f"128, 192 or 256 channels and Triton with Gluon, but {obstacle}; pass impl='triton'"
        )


@functools.cache
def has_gluon() -> bool:
    """Whether this Triton has what the device code imports."""
    try:
        from bingo.kernels import hopper_kernel  # noqa: F401
    except ImportError:
        return False
    return True


def hopper_partials(request: Request, keys_per_split: int, lse_SR: Tensor, mean_SRC: Tensor) -> None:
    """Write the partials of every split of the queue: split s covers keys_per_split keys from s * keys_per_split on.

    Of the request, q_RC: fp32, bf16 or fp16, contiguous; divided by its rows' lengths if normalize, multiplied by scale
    in fp32 and rounded once to the queue's dtype. queue_KC: bf16 or fp16, contiguous, C 64, 128, 192 or 256, K a
    multiple of 128, as is keys_per_split. exclude_GE: up to 6 ids per row, with C up to 128. Written, both fp32:
    lse_SR, in units of log2 (-inf for a row without any key), and, with grad (else half the work), mean_SRC; S must be
    K / keys_per_split rounded up. ValueError for anything else.
    """
    from bingo.kernels import hopper_kernel as kernel

    _check(request, keys_per_split, lse_SR, mean_SRC)
    (splits, rows), (keys, channels) = lse_SR.shape, request.queue_KC.shape
    if rows == 0:
        return
    exclude = request.exclude_GE
    groups, width = (1, 0) if exclude is None else exclude.shape
    kernel.partials_kernel[(triton.cdiv(rows, ROWS_PER_BLOCK), splits)](
        request.q_RC, kernel.describe_queue(request.queue_KC), request.queue_ids_K, exclude, lse_SR,
        mean_SRC if request.grad else lse_SR, rows, keys, groups, keys_per_split, request.scale, C=channels, E=width,
        NORMALIZE=request.normalize, GRAD=request.grad, **launch_options(),
    )  # fmt: skip


def launch_options() -> dict[str, Any]:
    """Compiler options of every launch."""
    from bingo.kernels import hopper_kernel as kernel

    return {"num_warps": kernel.CONSUMER_WARPS.value, "maxnreg": kernel.LAUNCH_REGISTERS.value}


def _check(request: Request, keys_per_split: int, lse_SR: Tensor, mean_SRC: Tensor) -> None:
    q_RC, queue_KC, scale = request.q_RC, request.queue_KC, request.scale
    (rows, channels), keys = q_RC.shape, queue_KC.shape[0]
    require_hopper(device_capability(queue_KC.device), queue_KC.dtype, channels)
    if q_RC.dtype not in QUERY_DTYPES:
        raise ValueError(f"q is {q_RC.dtype}; impl 'hopper' takes float32, bfloat16 or float16")
    if not 0 < scale <= FAST_LOGIT[queue_KC.dtype]:
        raise ValueError(
            f"log2(e) / temperature is {scale:.4g}; impl 'hopper' takes up to {FAST_LOGIT[queue_KC.dtype]} with a "
            f"{queue_KC.dtype} queue, since it keeps no running maximum; pass impl='triton' or a larger temperature"
        )
    if keys % KEYS_PER_TILE or keys_per_split % KEYS_PER_TILE or not (keys and keys_per_split > 0):
        raise ValueError(
            f"{keys} keys in splits of {keys_per_split}: both must be positive multiples of {KEYS_PER_TILE}"
        )
    width = 0 if request.exclude_GE is None else request.exclude_GE.shape[1]
    if width > MOST_EXCLUDED or (width and channels > MOST_CHANNELS_EXCLUDED):
        raise ValueError(
            f"{width} excluded ids per row with {channels} channels; impl 'hopper' takes up to {MOST_EXCLUDED} with up "
            f"to {MOST_CHANNELS_EXCLUDED} channels; pass impl='triton'"
        )
    if request.values_KD is not None:
        raise ValueError("values are given; impl 'hopper' averages the queue's own keys; pass impl='triton'")
    splits = triton.cdiv(keys, keys_per_split)
    outputs: dict[str, tuple[Tensor, tuple[int, ...]]] = {"lse_SR": (lse_SR, (splits, rows))}
    if request.grad:
        outputs["mean_SRC"] = mean_SRC, (splits, rows, channels)
    for name, (tensor, shape) in outputs.items():
        if tensor.shape != shape or tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {tuple(tensor.shape)} {tensor.dtype}; it must be {shape} float32")
    if not all(t.is_contiguous() for t in (q_RC, queue_KC, lse_SR, mean_SRC)):
        raise ValueError("q_RC, queue_KC, lse_SR and mean_SRC must be contiguous")
    if queue_KC.data_ptr() % 16:
        raise ValueError("queue_KC must start at a multiple of 16 bytes, as PyTorch's own allocations do")
