"""The objectives: `bingo.kernels.bag_loss` sets each positive against the queue in its own softmax.

With s = q . k / temperature and L, the log-sum-exp of a row over the queue, softmax over [k, queue] at k has the
cross-entropy ce(q, k) = softplus(L - s); a row's other positives take no part in it. Every loss below is a weighted sum
of such terms, and all rows of a step go through one call.

Keys and the queue must be L2-normalised by the caller, queries too unless `normalize=True` is passed on. Gradients
reach the queries, and the keys if they require it; never the queue. Sources: arXiv 2107.01691 (paper), the behaviour of
its published code (release).
Legend: B anchors, V views, M positives per row, C channels, K queue keys.
"""

from collections.abc import Sequence
from typing import TypedDict, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.errors import UserError
from bingo.kernels import NewKeys, bag_loss, queue_ranks
from bingo.kernels.transfer import to_device

Scalar = float | Tensor


class Reading(TypedDict, total=False):
    """What every pass over the queue is told, see `queue_softmax`."""

    impl: str
    unit_rows: bool
    exclude: Tensor | None
    queue_ids: Tensor | None


class Options(Reading, total=False):
    """What every loss passes on to `bag_loss`, which explains them."""

    normalize: bool
    new_keys: NewKeys | None


def contrastive_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float, **options: Unpack[Options]) -> Tensor:
    """InfoNCE with one positive per row, as in MoCo: the mean over rows of ce(q, k). q, k: (B, C). Returns a scalar."""
    _check_views(q, k)
    return _view_losses([q], [k], _ones(queue, 1), queue, temperature, options).mean()


def paper_loss(
    q_anchor: Tensor,
    q_positive: Tensor,
    k_anchor: Tensor,
    queue: Tensor,
    temperature: float,
    **options: Unpack[Options],
) -> Tensor:
    """The loss of the paper: the mean over anchors of ce(q_anchor, k_anchor) + ce(q_positive, k_anchor).

    All three (B, C): student on the anchor, student on an instance of its bag, teacher on another view of the anchor.
    """
    _check_views(q_anchor, q_positive, k_anchor)
    losses = _view_losses([q_anchor, q_positive], [k_anchor], _ones(queue, 2), queue, temperature, options)
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
    **options: Unpack[Options],
) -> Tensor:
    """The loss of the published code: the mean over anchors and over the three student views of

        anchor:   lambdas[0] ce(q_anchor, k_anchor) + lambdas[1] ce(q_anchor, k_positive)
        positive: lambdas[1] ce(q_positive, k_anchor) + lambdas[0] ce(q_positive, k_positive)
        mixed:    mix ce(q_mixed, k_anchor) + (1 - mix) ce(q_mixed, k_positive)

    All (B, C). `q_mixed` is the student on the CutMix of the two images and `mix` the share of the anchor's pixels in
    it; without it (None) the mean is over the two other views. The weights are numbers or 0-d tensors (a tensor keeps
    a compiled step from being compiled again when its value changes). `mix` may be (B), one share per row: the mixed
    view then passes the queue twice, once for each positive. Returns a scalar.
    """
    if q_mixed is not None and mix is None:
        raise UserError("q_mixed is given without mix; pass the share of the anchor's pixels in the mixed image")
    mix = None if q_mixed is None else mix
    weights_VM = _on_device(release_weights(lambdas, mix), _accumulated(queue), queue.device)
    views = [q_anchor, q_positive, *([] if q_mixed is None else [q_mixed])]
    per_row = mix if isinstance(mix, Tensor) and mix.ndim == 1 else None
    return weighted_release_loss(views, [k_anchor, k_positive], weights_VM, per_row, queue, temperature, **options)


def release_weights(lambdas: tuple[Scalar, Scalar], mix: Scalar | None) -> list[list[Scalar]]:
    """V x 2 weights of the release's views: two, with CutMix three, and where rows differ (mix is (B)) four."""
    weights: list[list[Scalar]] = [[lambdas[0], lambdas[1]], [lambdas[1], lambdas[0]]]
    if mix is None:
        return weights
    if isinstance(mix, Tensor) and mix.ndim == 1:
        return [*weights, [1.0, 0.0], [0.0, 1.0]]
    return [*weights, [mix, 1 - mix]]


def weighted_release_loss(
    views: Sequence[Tensor],
    keys: Sequence[Tensor],
    weights_VM: Tensor,
    mix: Tensor | None,
    queue: Tensor,
    temperature: float,
    **options: Unpack[Options],
) -> Tensor:
    """`release_loss` by weights that lie on the device already (`release_weights`), so that a captured step may read
    others at each replay. views: two or three (B, C); mix: (B) where rows differ, else None."""
    _check_views(*views, *keys)
    if mix is not None:
        views = [*views, views[-1]]
        losses_VB = _view_losses(views, keys, weights_VM, queue, temperature, options).view(4, -1)
        return (losses_VB[0] + losses_VB[1] + mix * losses_VB[2] + (1 - mix) * losses_VB[3]).mean() / 3
    return _view_losses(views, keys, weights_VM, queue, temperature, options).mean()


@torch.no_grad()
def contrast_accuracy(q: Tensor, k: Tensor, queue: Tensor, **options: Unpack[Options]) -> Tensor:
    """Share of rows whose key is the nearest, and among the five nearest, of [key, queue]; fp32 (2). q, k: (B, C).

    `options` as for the losses; nothing is written to the queue.
    """
    unit = F.normalize(q.to(torch.promote_types(queue.dtype, torch.float32)), dim=1)
    scores_R1 = (unit * k).sum(dim=1, keepdim=True)
    impl, exclude, queue_ids = options.get("impl", "auto"), options.get("exclude"), options.get("queue_ids")
    counts_R1 = queue_ranks(unit, queue, scores_R1, impl=impl, exclude=exclude, queue_ids=queue_ids)
    return torch.stack([(counts_R1 < best).float().mean() for best in (1, 5)])


@torch.no_grad()
def contrast_measures(q: Tensor, k: Tensor, queue: Tensor, **options: Unpack[Options]) -> Tensor:
    """`contrast_accuracy` and the spread of the queries, fp32 (3): top-1, top-5, 1 - the mean cosine of two rows.

    The spread is 0 where all rows are equal, about 1 where they point anywhere, and 1 where there is but one.
    """
    accuracy = contrast_accuracy(q, k, queue, **options)
    rows = len(q)
    length = F.normalize(q.float(), dim=1).mean(dim=0).square().sum()
    spread = (1 - length) * rows / (rows - 1) if rows > 1 else torch.ones_like(length)
    return torch.cat([accuracy, spread[None]])


def _view_losses(
    views: Sequence[Tensor],
    keys: Sequence[Tensor],
    weights_VM: Tensor,
    queue: Tensor,
    temperature: float,
    options: Options,
) -> Tensor:
    """Loss per row of V views (B, C) against the same M keys (B, C) with one weight per view and key: (V * B)."""
    try:
        return bag_loss(
            torch.cat(list(views)), torch.stack(list(keys), dim=1), weights_VM, queue, temperature, **options
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def _accumulated(queue: Tensor) -> torch.dtype:
    return torch.promote_types(queue.dtype, torch.float32)


def _ones(queue: Tensor, views: int) -> Tensor:
    return torch.ones(views, 1, dtype=_accumulated(queue), device=queue.device)


def _on_device(weights: Sequence[Sequence[Scalar]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """V x M weights, numbers or 0-d tensors, without waiting for the device."""
    flat = [weight for row in weights for weight in row]
    if any(isinstance(weight, Tensor) for weight in flat):
        parts = [torch.as_tensor(weight, dtype=dtype, device=device) for weight in flat]
        return torch.stack(parts).view(len(weights), -1)
    return to_device(np.array(weights, dtype=np.float64 if dtype == torch.float64 else np.float32), device)


def _check_views(*views: Tensor) -> None:
    shapes = [tuple(view.shape) for view in views]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise UserError(f"queries and keys of a step must share one shape (B, C), not {', '.join(map(str, shapes))}")
    if shapes[0][0] == 0:
        raise UserError("the batch is empty, so its mean loss is undefined; pass at least one row")
