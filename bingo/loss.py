"""The objectives, on one primitive: `bingo.kernels.queue_softmax` gives L, the log-sum-exp of a row over the queue.

With s = q . k / temperature, softmax over [k, queue] at k has the cross-entropy ce(q, k) = softplus(L - s); every
positive is set against the queue alone, never against the row's other positives. Every loss below is a weighted sum
of such terms, and all rows of a step go through one `queue_softmax` call.

Rows (queries, keys, queue) must be L2-normalised by the caller: nothing here normalises them, and nothing breaks if
they are not, but the temperature then no longer means what it says. Gradients reach the queries, and the keys if they
require it; never the queue. Sources: arXiv 2107.01691 (paper), the behaviour of its published code (release).
Legend: B anchors, R rows, M positives per row, C channels, K queue keys.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.errors import UserError
from bingo.kernels import queue_softmax

Scalar = float | Tensor


def bag_aggregation_loss(
    q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor, temperature: float, *, impl: str = "auto"
) -> Tensor:
    """Weighted cross-entropies of each row's positives, each in its own softmax against the queue.

    q: (R, C); keys: (R, M, C); weights: (R, M); queue: (K, C) on q's device, whose dtype is that of the product with
    the queue (q is rounded to it there). Returns the loss per row (R), fp32 (fp64 for an fp64 queue):
    sum_m w_m * ce(q, k_m). Raises UserError (a ValueError) for shapes that disagree, and
    what `queue_softmax` raises.
    """
    _check_bag(q, keys, weights)
    lse_R, _ = queue_softmax(q.to(queue.dtype), queue, temperature, impl=impl)
    # A product and a sum, not a matrix product: autocast would round the logits of the latter to half precision.
    logits_RM = (q[:, None].to(lse_R.dtype) * keys.to(lse_R.dtype)).sum(dim=2) / temperature
    # logsigmoid is exact at both ends; F.softplus turns linear past a threshold and is off by up to 2e-9 there.
    return -(weights * F.logsigmoid(logits_RM - lse_R[:, None])).sum(dim=1)


def contrastive_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float, *, impl: str = "auto") -> Tensor:
    """InfoNCE with one positive per row, as in MoCo: the mean over rows of ce(q, k). q, k: (B, C). Returns a scalar."""
    _check_views(q, k)
    return _view_losses([q], [k], [[1.0]], queue, temperature, impl).mean()


def paper_loss(
    q_anchor: Tensor, q_positive: Tensor, k_anchor: Tensor, queue: Tensor, temperature: float, *, impl: str = "auto"
) -> Tensor:
    """The loss of the paper: the mean over anchors of ce(q_anchor, k_anchor) + ce(q_positive, k_anchor).

    All three (B, C): student on the anchor, student on an instance of its bag, teacher on another view of the anchor.
    """
    _check_views(q_anchor, q_positive, k_anchor)
    losses = _view_losses([q_anchor, q_positive], [k_anchor], [[1.0], [1.0]], queue, temperature, impl)
    return losses.mean() * 2


def release_loss(
    q_anchor: Tensor,
    q_positive: Tensor,
    q_mixed: Tensor | None,
    k_anchor: Tensor,
    k_positive: Tensor,
    queue: Tensor,
    temperature: float,
    *,
    lambdas: tuple[Scalar, Scalar],
    mix: Scalar | None = None,
    impl: str = "auto",
) -> Tensor:
    """The loss of the published code: the mean over anchors and over the three student views of

        anchor:   lambdas[0] ce(q_anchor, k_anchor) + lambdas[1] ce(q_anchor, k_positive)
        positive: lambdas[1] ce(q_positive, k_anchor) + lambdas[0] ce(q_positive, k_positive)
        mixed:    mix ce(q_mixed, k_anchor) + (1 - mix) ce(q_mixed, k_positive)

    All (B, C). `q_mixed` is the student on the CutMix of the two images and `mix` the share of the anchor's pixels in
    it; without it (None) the mean is over the two other views. The weights are numbers or 0-d tensors (a tensor keeps
    a compiled step from being compiled again when its value changes). Returns a scalar.
    """
    views, weights = [q_anchor, q_positive], [[lambdas[0], lambdas[1]], [lambdas[1], lambdas[0]]]
    if q_mixed is not None:
        if mix is None:
            raise UserError("q_mixed is given without mix; pass the share of the anchor's pixels in the mixed image")
        views, weights = [*views, q_mixed], [*weights, [mix, 1 - mix]]
    _check_views(*views, k_anchor, k_positive)
    return _view_losses(views, [k_anchor, k_positive], weights, queue, temperature, impl).mean()


def _view_losses(
    views: Sequence[Tensor],
    keys: Sequence[Tensor],
    weights: Sequence[Sequence[Scalar]],
    queue: Tensor,
    temperature: float,
    impl: str,
) -> Tensor:
    """Loss per row of V views (B, C) against the same M keys (B, C) with one weight per view and key: (V * B)."""
    q_RC = torch.cat(list(views))
    keys_RMC = torch.stack(list(keys), dim=1).repeat(len(views), 1, 1)
    dtype = torch.promote_types(q_RC.dtype, torch.float32)
    weights_VBM = q_RC.new_empty((len(views), len(views[0]), len(keys)), dtype=dtype)
    for view, row in enumerate(weights):
        for key, weight in enumerate(row):
            # Filling slices launches small kernels but never waits for the device, unlike a tensor built from a list.
            weights_VBM[view, :, key] = weight
    return bag_aggregation_loss(q_RC, keys_RMC, weights_VBM.flatten(0, 1), queue, temperature, impl=impl)


def _check_views(*views: Tensor) -> None:
    shapes = [tuple(view.shape) for view in views]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise UserError(f"queries and keys of a step must share one shape (B, C), not {', '.join(map(str, shapes))}")
    if shapes[0][0] == 0:
        raise UserError("the batch is empty, so its mean loss is undefined; pass at least one row")


def _check_bag(q: Tensor, keys: Tensor, weights: Tensor) -> None:
    if q.ndim != 2 or keys.ndim != 3 or keys.shape[0] != q.shape[0] or keys.shape[2] != q.shape[1]:
        raise UserError(f"q must be (R, C) and keys (R, M, C), not {tuple(q.shape)} and {tuple(keys.shape)}")
    if weights.shape != keys.shape[:2]:
        raise UserError(f"weights must be (R, M) = {tuple(keys.shape[:2])}, not {tuple(weights.shape)}")
