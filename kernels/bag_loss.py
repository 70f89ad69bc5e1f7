"""`bag_loss`: the contrastive end of a training step, queries to loss and gradient, in two launches.

    ce_m(i) = softplus(lse_i - q_i . k_m / t),   loss_i = sum_m w_m ce_m(i)
    d loss_i / d q_i = 1/t sum_m w_m sigmoid(lse_i - q_i . k_m / t) (mean_i - k_m)

with lse and mean key of `queue_softmax`. The fused implementations compute loss and gradient in the forward pass, with
the rows' normalisation at one end and the write of the step's new keys into the queue at the other; the plain ones are
the same formula in PyTorch, differentiated by autograd.
Legend: as in `queue_softmax`, and B rows of `keys` with M positives each (row i reads i % B), V rows of `weights`
(row i reads i // (R / V)): V views of B images are R = V * B rows of one call.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bingo.kernels.checks import check_constants, check_ids
from bingo.kernels.dispatch import accept, choose_impl, partials, resolve_impl
from bingo.kernels.queue_softmax import queue_logsumexp, queue_softmax
from bingo.kernels.request import Request
from bingo.kernels.ring import NewKeys, write_keys


def bag_loss(
    q: Tensor,
    keys: Tensor,
    weights: Tensor,
    queue: Tensor,
    temperature: float,
    *,
    normalize: bool = False,
    impl: str = "auto",
    exclude: Tensor | None = None,
    queue_ids: Tensor | None = None,
    unit_rows: bool = False,
    new_keys: NewKeys | None = None,
) -> Tensor:
    """Weighted cross-entropies of each row's positives, each in its own softmax against the queue; (R).

    q: (R, C); queue: (K, C), as for `queue_softmax`. keys: (B, M, C) floating point, R a multiple of B; weights: (V, M)
    fp32 (fp64 for an fp64 queue), R a multiple of V. normalize: q's rows are scaled to unit length first (and the
    gradient is that of the unscaled rows). exclude, queue_ids, unit_rows, impl: as for `queue_softmax`; with normalize,
    unit_rows speaks of the queue alone. new_keys: written into `queue` (and `queue_ids`) after the queue has been read.
    Returns fp32 (fp64 for an fp64 queue), differentiable once with respect to q, and, by plain PyTorch around
    `queue_softmax`, with respect to keys that require a gradient. Raises ValueError for anything else.
    """
    check_constants(queue, temperature)
    _check_bag(q, keys, weights)
    _check_new_keys(new_keys, queue, queue_ids)
    chosen = (resolve_impl if torch.compiler.is_compiling() else choose_impl)(impl, q.device)
    if chosen not in ("triton", "hopper") or keys.requires_grad or weights.requires_grad:
        request = Request(q, queue, float(temperature), impl, exclude, queue_ids, unit_rows, normalize)
        loss = _plain(request, keys, weights)
        if new_keys is not None:
            write_keys(queue, queue_ids, new_keys)
        return loss
    grad = q.requires_grad and torch.is_grad_enabled()
    new, cursor, ids = (None, None, None) if new_keys is None else new_keys
    settings = (normalize, grad, unit_rows, impl)
    run = torch.ops.bingo.bag_loss if torch.compiler.is_compiling() else _fused
    loss, slope = run(
        q.detach(), keys, weights, queue, float(temperature), exclude, queue_ids, new, cursor, ids, *settings
    )
    return _Attach.apply(q, loss, slope) if grad else loss


def _plain(request: Request, keys: Tensor, weights: Tensor) -> Tensor:
    """Loss (R) in PyTorch around `queue_softmax`; autograd differentiates it."""
    q, queue, temperature, impl, exclude, queue_ids, unit_rows, normalize, *_ = request
    dtype = torch.promote_types(queue.dtype, torch.float32)
    if normalize:
        q = F.normalize(q.to(dtype), dim=1)
    options: dict[str, Any] = {"impl": impl, "exclude": exclude, "queue_ids": queue_ids, "unit_rows": unit_rows}
    if q.requires_grad and torch.is_grad_enabled():
        lse_R, _ = queue_softmax(q, queue, temperature, **options)
    else:
        lse_R = queue_logsumexp(q.detach(), queue, temperature, **options)
    views = len(q) // len(keys)
    # A product and a sum, not a matrix product: autocast would round the logits of the latter to half precision.
    logits_VBM = (q.to(dtype).view(views, len(keys), 1, q.shape[1]) * keys.to(dtype)).sum(dim=3) / temperature
    # logsigmoid is exact at both ends; F.softplus turns linear past a threshold and is off by up to 2e-9 there.
    ce_RM = -F.logsigmoid(logits_VBM.flatten(0, 1) - lse_R[:, None])
    return (weights.repeat_interleave(len(q) // len(weights), 0) * ce_RM).sum(dim=1)


def _fused(
    q: Tensor,
    keys: Tensor,
    weights: Tensor,
    queue: Tensor,
    temperature: float,
    exclude: Tensor | None,
    queue_ids: Tensor | None,
    new: Tensor | None,
    cursor: Tensor | None,
    new_ids: Tensor | None,
    normalize: bool,
    grad: bool,
    unit_rows: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """Loss (R) and gradient (R, C; without grad (0, C)), fp32."""
    from bingo.kernels.triton_combine import combine_bags

    request = accept(q, queue, temperature, impl, exclude, queue_ids, unit_rows, normalize=normalize, grad=grad)
    writes = None if new is None or cursor is None else NewKeys(new, cursor, new_ids)
    return combine_bags(*partials(request), request, keys, weights, writes)


def _fake_fused(q: Tensor, keys: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    grad = rest[-3]
    return q.new_empty(q.shape[0], dtype=torch.float32), q.new_empty(q.shape if grad else (0, q.shape[1])).float()


class _Attach(torch.autograd.Function):
    """The loss that was computed without autograd, with its known gradient (R, C) with respect to q."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, loss: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.dtype = q.dtype
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_R: Tensor) -> tuple[Tensor, None, None]:
        (slope_RC,) = ctx.saved_tensors
        return (grad_R[:, None] * slope_RC).to(ctx.dtype), None, None


def _check_bag(q: Tensor, keys: Tensor, weights: Tensor) -> None:
    if q.ndim != 2 or keys.ndim != 3 or keys.shape[2] != q.shape[1] or not keys.shape[0] or q.shape[0] % keys.shape[0]:
        raise ValueError(
            f"q must be (R, C) and keys (B, M, C) with R a multiple of B, not {tuple(q.shape)} and {tuple(keys.shape)}"
        )
    rows, positives = q.shape[0], keys.shape[1]
    if weights.ndim != 2 or weights.shape[1] != positives or not weights.shape[0] or rows % weights.shape[0]:
        raise ValueError(
            f"weights must be (V, {positives}) with the {rows} rows of q a multiple of V, not {tuple(weights.shape)}"
        )
    if not keys.is_floating_point() or not weights.is_floating_point():
        raise ValueError(f"keys are {keys.dtype} and weights {weights.dtype}; both must be floating point")
    if not keys.device == weights.device == q.device:
        raise ValueError(f"q is on {q.device}, keys on {keys.device}, weights on {weights.device}; move them together")


def _check_new_keys(new: NewKeys | None, queue: Tensor, queue_ids: Tensor | None) -> None:
    if new is None:
        return
    if new.keys.ndim != 2 or new.keys.shape[1] != queue.shape[1] or new.keys.device != queue.device:
        raise ValueError(
            f"new_keys.keys is {tuple(new.keys.shape)} on {new.keys.device}; it must be (N, {queue.shape[1]}) on "
            f"{queue.device}, as the queue"
        )
    if new.cursor.shape != (2,) or new.cursor.dtype != torch.int64 or new.cursor.device != queue.device:
        raise ValueError(
            f"new_keys.cursor is {tuple(new.cursor.shape)} {new.cursor.dtype}; it must be int64 (2,) on {queue.device}"
        )
    if (new.ids is None) != (queue_ids is None):
        given, missing = ("queue_ids", "new_keys.ids") if new.ids is None else ("new_keys.ids", "queue_ids")
        raise ValueError(f"{given} is given without {missing}; a queue keeps ids for all its keys or for none")
    if new.ids is not None and queue_ids is not None:
        check_ids("new_keys.ids", new.ids, new.keys)
        check_ids("queue_ids", queue_ids, queue)


_library = torch.library.Library("bingo", "FRAGMENT")
_library.define(
    "bag_loss(Tensor q, Tensor keys, Tensor weights, Tensor(a!) queue, float temperature, Tensor? exclude, "
    "Tensor(b!)? queue_ids, Tensor? new_keys, Tensor(c!)? cursor, Tensor? new_ids, bool normalize, bool grad, "
    "bool unit_rows, str impl) -> (Tensor, Tensor)"
)
_library.impl("bag_loss", _fused, "CompositeExplicitAutograd")
torch.library.register_fake("bingo::bag_loss", _fake_fused, lib=_library)
