"""The differentiable op `bingo::queue_softmax`: checks, dispatch to an implementation, registration, autograd.

For rows q_i, queue keys n_j and temperature t:

    lse_i = log sum_j exp(q_i . n_j / t)                      (R)
    mean_i = sum_j softmax_j(q_i . n_j / t) n_j               (R, C)
    d lse_i / d q_i = mean_i / t

so the forward pass already holds the gradient, and the backward pass is one elementwise product.
Legend: R rows (queries), K queue keys, C channels.
"""

import functools
import importlib.util
import logging
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bingo.kernels.reference import accumulation_dtype, queue_softmax_chunked, queue_softmax_reference

IMPLEMENTATIONS = ("auto", "reference", "chunked", "triton")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

logger = logging.getLogger(__name__)


def queue_softmax(q: Tensor, queue: Tensor, temperature: float, *, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row's logits over a queue of keys, and the softmax-weighted mean key.

    q: (R, C), R >= 0; queue: (K, C), keys in rows, contiguous, K >= 1; the same dtype (fp16, bf16, fp32 or fp64) and
    device. Rows need not have unit length. temperature: a Python number > 0.
    Returns lse (R) and mean_key (R, C), fp32 (fp64 for fp64 inputs). `lse` is differentiable with respect to q, once;
    `mean_key` is a constant, and so are queue and temperature.
    impl: "reference" (R x K logits in memory, the specification), "chunked" (plain PyTorch, little memory), "triton"
    (fused; fp16, bf16 or fp32, C a multiple of 16 up to 256), "auto" (triton on CUDA, chunked elsewhere).
    Raises ValueError for anything else.
    """
    if isinstance(temperature, Tensor):
        raise ValueError("temperature is a tensor, but the op has no gradient for it; pass a Python number")
    if queue.requires_grad:
        raise ValueError("queue requires a gradient, but the op gives it none; pass queue.detach()")
    return torch.ops.bingo.queue_softmax(q, queue, float(temperature), impl)


def resolve_impl(impl: str, device: torch.device | str) -> str:
    """The implementation that `impl` means on `device`; ValueError if it is unknown or cannot run there."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"unknown impl {impl!r}; the implementations are {', '.join(IMPLEMENTATIONS)}")
    kind = torch.device(device).type
    if impl == "auto":
        return "triton" if kind == "cuda" else "chunked"
    if impl == "triton":
        _require_triton(kind)
    return impl


def _require_triton(device_type: str) -> None:
    if importlib.util.find_spec("triton") is None:
        raise ValueError("impl 'triton' needs the triton package, which is not installed; pass impl='chunked'")
    if device_type == "cuda":
        return
    from bingo.kernels.triton_queue_softmax import is_interpreted

    if device_type != "cpu" or not is_interpreted():
        raise ValueError(
            f"impl 'triton' needs CUDA tensors, these are on {device_type!r}; pass impl='chunked', "
            "or set TRITON_INTERPRET=1 before Python starts to run the kernel on the CPU in Triton's (slow) interpreter"
        )


@functools.cache
def _log_choice(chosen: str, device_type: str) -> None:
    """Say once per process and device type what `auto` stands for."""
    logger.info("queue_softmax: impl='auto' runs %r on %s", chosen, device_type)


def _check_tensors(q: Tensor, queue: Tensor) -> None:
    if q.ndim != 2 or queue.ndim != 2 or q.shape[1] != queue.shape[1]:
        raise ValueError(f"q must be (R, C) and queue (K, C), not {tuple(q.shape)} and {tuple(queue.shape)}")
    if queue.shape[0] < 1 or queue.shape[1] < 1:
        raise ValueError(f"queue is {tuple(queue.shape)}; it needs at least one key and one channel")
    if q.dtype not in DTYPES:
        raise ValueError(f"q is {q.dtype}; supported are float16, bfloat16, float32 and float64")
    if q.dtype != queue.dtype:
        raise ValueError(f"q is {q.dtype} but queue is {queue.dtype}; convert one of them")
    if q.device != queue.device:
        raise ValueError(f"q is on {q.device} but queue is on {queue.device}; move one of them")
    if not queue.is_contiguous():
        raise ValueError("queue must be contiguous with keys in rows; pass queue.contiguous() (once, not every step)")


def _check_temperature(temperature: float) -> None:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}; it must be a finite number above 0, such as 0.2")


def _forward(q: Tensor, queue: Tensor, temperature: float, impl: str) -> tuple[Tensor, Tensor]:
    _check_tensors(q, queue)
    _check_temperature(temperature)
    chosen = resolve_impl(impl, q.device)
    if impl == "auto":
        _log_choice(chosen, q.device.type)
    if chosen == "triton":
        from bingo.kernels.triton_queue_softmax import queue_softmax_triton

        return queue_softmax_triton(q, queue, temperature)
    plain = queue_softmax_reference if chosen == "reference" else queue_softmax_chunked
    return plain(q, queue, temperature)


def _fake_forward(q: Tensor, queue: Tensor, temperature: float, impl: str) -> tuple[Tensor, Tensor]:
    _check_tensors(q, queue)
    dtype = accumulation_dtype(q.dtype)
    return q.new_empty(q.shape[0], dtype=dtype), q.new_empty(q.shape, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float, str], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.temperature, ctx.dtype = inputs[2], inputs[0].dtype


@once_differentiable
def _backward(ctx: Any, grad_lse_R: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None]:
    (mean_RC,) = ctx.saved_tensors
    grad_RC = (grad_lse_R / ctx.temperature)[:, None] * mean_RC
    return grad_RC.to(ctx.dtype), None, None, None


# Library.define/impl and not torch.library.custom_op: the same op with less Python per call.
_library = torch.library.Library("bingo", "FRAGMENT")
_library.define("queue_softmax(Tensor q, Tensor queue, float temperature, str impl) -> (Tensor, Tensor)")
_library.impl("queue_softmax", _forward, "CompositeExplicitAutograd")
torch.library.register_fake("bingo::queue_softmax", _fake_forward, lib=_library)
torch.library.register_autograd("bingo::queue_softmax", _backward, setup_context=_setup_context, lib=_library)
