"""The differentiable op `bingo::queue_softmax`: checks, dispatch, registration, autograd.

For rows q_i, queue keys n_j and temperature t:

    lse_i = log sum_j exp(q_i . n_j / t)                      (R)
    mean_i = sum_j softmax_j(q_i . n_j / t) n_j               (R, C)
    d lse_i / d q_i = mean_i / t

so the forward pass already holds the gradient, and the backward pass is one elementwise product. Values v_j in place of
n_j in the second line make it attention with K and V apart: a target's mean over another queue, with no gradient.
Legend: R rows (queries), K queue keys, C channels, D channels of the values, E excluded ids per row, G rows of
`exclude` (row i reads i % G).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bingo.kernels.checks import check_constants, check_no_gradient, check_tensors, check_values
from bingo.kernels.dispatch import accept, evaluate
from bingo.kernels.reference import accumulation_dtype, queue_ranks_reference


def queue_softmax(
    q: Tensor,
    queue: Tensor,
    temperature: float,
    *,
    impl: str = "auto",
    exclude: Tensor | None = None,
    queue_ids: Tensor | None = None,
    unit_rows: bool = False,
    values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of each row's logits over a queue of keys, and the softmax-weighted mean key (or value).

    q: (R, C), R >= 0; queue: (K, C), keys in rows, contiguous, K >= 1; the same device and dtype (fp16, bf16, fp32 or
    fp64), or q fp32 with a half-precision queue: q is then rounded to the queue's dtype once.
    temperature: a Python number > 0. exclude: (G, E) int64 with R a multiple of G, keys whose id (queue_ids: (K) int64)
    is in line i % G take no part in row i; negative ids exclude nothing. unit_rows: promises that rows of q and queue
    are no longer than one; without it the fused implementations also redo every split whose logits overflowed.
    values: (K, D) of the queue's dtype, contiguous, averaged in place of the keys; there is no gradient then, so q may
    not require one. "triton" takes D = C, "hopper" no values.
    Returns lse (R) and mean_key (R, C), with values their mean (R, D), fp32 (fp64 for fp64 inputs); -inf and zeros for
    a row without any key. `lse` is differentiable with respect to q, once; `mean_key` is a constant, and so are queue
    and temperature.
    impl: "reference" (R x K logits in memory, the specification), "chunked" (plain PyTorch, little memory), "triton"
    (fused; fp16, bf16 or fp32, C a multiple of 16 up to 256), "hopper" (fused, for compute capability 9.0), "auto"
    (triton on CUDA, chunked elsewhere).
    Raises ValueError for anything else.
    """
    check_constants(queue, temperature)
    check_no_gradient(q, values)
    # The registered op costs a dispatch in Python, needed only where something traces it.
    eager = _QueueSoftmax.apply if q.requires_grad and torch.is_grad_enabled() else _forward
    run = torch.ops.bingo.queue_softmax if torch.compiler.is_compiling() else eager
    return run(q, queue, float(temperature), impl, exclude, queue_ids, unit_rows, values)


def queue_logsumexp(
    q: Tensor,
    queue: Tensor,
    temperature: float,
    *,
    impl: str = "auto",
    exclude: Tensor | None = None,
    queue_ids: Tensor | None = None,
    unit_rows: bool = False,
) -> Tensor:
    """`queue_softmax`'s lse (R) alone, at half the work. It has no gradient: ValueError if q requires one."""
    if q.requires_grad and torch.is_grad_enabled():
        raise ValueError("q requires a gradient, which queue_logsumexp has not; call queue_softmax, or use no_grad()")
    check_constants(queue, temperature)
    run = torch.ops.bingo.queue_logsumexp if torch.compiler.is_compiling() else _logsumexp
    return run(q, queue, float(temperature), impl, exclude, queue_ids, unit_rows)


def queue_ranks(
    q: Tensor,
    queue: Tensor,
    scores: Tensor,
    *,
    impl: str = "auto",
    exclude: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> Tensor:
    """How many queue keys beat each of a row's scores: int32 (R, M), the number of keys j with q . n_j > score.

    scores: fp32 (R, M), such as the dot products with M positives: a positive is in the contrast's top-k if its count
    is below k. q, queue, exclude, queue_ids and impl as for `queue_softmax` ("hopper" stands for "triton" here).
    """
    run = torch.ops.bingo.queue_ranks if torch.compiler.is_compiling() else _ranks
    return run(q.detach(), queue, scores.detach().float(), impl, exclude, queue_ids)


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """`arguments`: those of the registered op, in its order."""
    return evaluate(accept(*arguments))


def _fake_forward(q: Tensor, queue: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    values = rest[5] if len(rest) > 5 else None
    check_tensors(q, queue)
    check_values(values, queue)
    dtype, width = accumulation_dtype(queue.dtype), (queue if values is None else values).shape[1]
    return q.new_empty(q.shape[0], dtype=dtype), q.new_empty((q.shape[0], width), dtype=dtype)


def _logsumexp(*arguments: Any) -> Tensor:
    return evaluate(accept(*arguments, grad=False))[0]


def _ranks(
    q: Tensor, queue: Tensor, scores: Tensor, impl: str, exclude: Tensor | None, queue_ids: Tensor | None
) -> Tensor:
    request = accept(q, queue, 1.0, impl, exclude, queue_ids, False)
    if scores.ndim != 2 or scores.shape[0] != q.shape[0] or scores.device != q.device:
        raise ValueError(
            f"scores must be ({q.shape[0]}, M) on {q.device}, not {tuple(scores.shape)} on {scores.device}"
        )
    if request.impl in ("triton", "hopper") and q.shape[0]:
        from bingo.kernels.triton_queue_softmax import ranks

        return ranks(request, scores)
    return queue_ranks_reference(request, scores)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    # The gradient of lse is the mean of the keys, which a mean of values is not.
    ctx.mark_non_differentiable(*output[inputs[7] is None :])
    ctx.save_for_backward(output[1])
    ctx.temperature, ctx.dtype = inputs[2], inputs[0].dtype


@once_differentiable
def _backward(ctx: Any, grad_lse_R: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (mean_RC,) = ctx.saved_tensors
    grad_RC = (grad_lse_R / ctx.temperature)[:, None] * mean_RC
    return grad_RC.to(ctx.dtype), *[None] * 7


class _QueueSoftmax(torch.autograd.Function):
    """The same without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)  # type: ignore[assignment]


# Library.define/impl and not torch.library.custom_op: the same ops with less Python per call.
_library = torch.library.Library("bingo", "FRAGMENT")
_COMMON = "Tensor q, Tensor queue, float temperature, str impl, Tensor? exclude, Tensor? queue_ids, bool unit_rows"
_library.define(f"queue_softmax({_COMMON}, Tensor? values) -> (Tensor, Tensor)")
_library.define(f"queue_logsumexp({_COMMON}) -> Tensor")
_library.define(
    "queue_ranks(Tensor q, Tensor queue, Tensor scores, str impl, Tensor? exclude, Tensor? queue_ids) -> Tensor"
)
_library.impl("queue_softmax", _forward, "CompositeExplicitAutograd")
_library.impl("queue_logsumexp", _logsumexp, "CompositeExplicitAutograd")
_library.impl("queue_ranks", _ranks, "CompositeExplicitAutograd")
torch.library.register_fake("bingo::queue_softmax", _fake_forward, lib=_library)
torch.library.register_fake("bingo::queue_logsumexp", lambda *args: _fake_forward(*args)[0], lib=_library)
torch.library.register_fake(
    "bingo::queue_ranks", lambda q, queue, scores, *rest: torch.empty_like(scores, dtype=torch.int32), lib=_library
)
torch.library.register_autograd("bingo::queue_softmax", _backward, setup_context=_setup_context, lib=_library)
