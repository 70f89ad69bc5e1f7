"""Correctness of `bag_loss` on the device at hand: gates, options, the ring buffer's write.

Legend: R rows, B anchors, V views (R = V * B), M positives, K keys, C channels, N new keys.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.bench.gpu.checks import FLOOR, Outcome, Setting, T, Truth, allowed, far, truth, unit, worst
from bingo.kernels import NewKeys, bag_loss

POSITIVES = 2
# Largest relative errors at the main shape, tau = 0.2, against fp64 on unrounded inputs: (loss, gradient).
GATES = {torch.bfloat16: (2e-5, 2e-4), torch.float16: (2e-5, 2e-4), torch.float32: (1e-5, 1e-5)}
SHORTEST = 0.5


class Bag(NamedTuple):
    """Inputs of one call, fp32: raw queries (R, C) of lengths 0.5 .. 2 that want a gradient, keys, weights, queue."""

    q: Tensor
    keys: Tensor
    weights: Tensor
    queue: Tensor


def make_bag(s: Setting, batch: int, views: int, keys: int, channels: int, *, seed: int = 0) -> Bag:
    draw = torch.Generator(s.device).manual_seed(seed)
    lengths = SHORTEST + 1.5 * torch.rand(batch * views, 1, generator=draw, device=s.device)
    weights = torch.rand(views, POSITIVES, generator=draw, device=s.device)
    fp32 = torch.float32
    return Bag(
        (lengths * unit(s, batch * views, channels, seed=seed + 1, dtype=fp32)).requires_grad_(),
        unit(s, batch, POSITIVES, channels, seed=seed + 2, dtype=fp32),
        weights / weights.sum(1, keepdim=True),
        unit(s, keys, channels, seed=seed + 3, dtype=fp32),
    )


def formula(bag: Bag, queue: Tensor) -> tuple[Tensor, Tensor, Truth]:
    """Loss (R) and its gradient (R, C) with respect to the raw queries in fp64, from the definition."""
    raw, keys, weights = bag.q.detach().double(), bag.keys.double(), bag.weights.double()
    length = raw.norm(dim=1, keepdim=True)
    q, views = raw / length, len(raw) // len(keys)
    exact = truth(q, queue, T)
    keys_RMC = keys.repeat(views, 1, 1)
    weights_RM = weights.repeat_interleave(len(raw) // len(weights), 0)
    margin = exact.lse[:, None] - (q[:, None] * keys_RMC).sum(2) / T
    loss = -(weights_RM * F.logsigmoid(-margin)).sum(1)
    pull = exact.mean[:, None] - keys_RMC
    slope = ((weights_RM * torch.sigmoid(margin))[:, :, None] * pull).sum(1) / T
    return loss, (slope - (slope * q).sum(1, keepdim=True) * q) / length, exact


def main_shape(s: Setting, batch: int, views: int, keys: int, channels: int) -> Outcome:
    """The gates: relative error of loss and gradient (2-norms) against fp64 on inputs that were never rounded."""
    bag = make_bag(s, batch, views, keys, channels)
    with allowed(s, keys, channels, T):
        loss = bag_loss(
            bag.q, bag.keys, bag.weights, bag.queue.to(s.dtype), T, normalize=True, unit_rows=True, impl=s.impl
        )
    (grad,) = torch.autograd.grad(loss.sum(), bag.q)
    exact_loss, exact_grad, _ = formula(bag, bag.queue)
    errors = [((a - b).norm() / b.norm()).item() for a, b in ((loss, exact_loss), (grad, exact_grad))]
    loss_gate, grad_gate = GATES[s.dtype]
    return worst(("relative error of loss", errors[0], loss_gate), ("relative error of dq", errors[1], grad_gate))


def options(
    s: Setting, batch: int, views: int, keys: int, channels: int, *,
    normalize: bool = False, no_grad: bool = False, weights_per_row: bool = False, exclude: bool = False,
) -> Outcome:  # fmt: skip
    """One call with some options against impl "reference" in fp64 on the same (rounded) queue."""
    bag = make_bag(s, batch, views, keys, channels)
    if not normalize:
        bag = bag._replace(q=F.normalize(bag.q.detach(), dim=1).requires_grad_())
    if weights_per_row:
        bag = bag._replace(weights=bag.weights.repeat_interleave(batch, 0) * torch.rand_like(bag.q[:, :1]))
    queue, lines, ids = bag.queue.to(s.dtype), None, None
    if exclude:
        ids = torch.arange(keys, device=s.device) % 50
        lines = (torch.arange(2 * batch, device=s.device) % 60).view(batch, 2) - 5
    loss_of = partial(bag_loss, normalize=normalize, exclude=lines, queue_ids=ids)
    q = bag.q.detach() if no_grad else bag.q
    with allowed(s, keys, channels, T, exclude=exclude):
        loss = loss_of(q, bag.keys, bag.weights, queue, T, impl=s.impl, unit_rows=True)
    wide = bag.q.detach().double().requires_grad_()
    others = (bag.keys.double(), bag.weights.double(), queue.double())
    exact = loss_of(wide, *others, T, impl="reference")
    loss_bound, grad_bound = bounds(s, bag, queue, exact, lines, ids)
    parts = [("loss", far(loss, exact.detach()), loss_bound)]
    if not no_grad:
        (grad,), (exact_grad,) = (torch.autograd.grad(x.sum(), y) for x, y in ((loss, bag.q), (exact, wide)))
        parts.append(("dq", far(grad, exact_grad), grad_bound))
    return worst(*parts)


def bounds(
    s: Setting, bag: Bag, queue: Tensor, loss: Tensor, exclude: Tensor | None, ids: Tensor | None
) -> tuple[float, float]:
    """Absolute errors of loss and gradient that the roundings of the softmax explain; weights are at most 1."""
    exact = truth(F.normalize(bag.q.detach(), dim=1), queue, T, exclude, ids)
    lse, mean = exact.tolerance(s.dtype, T)
    return lse + 1e-6 * loss.abs().max().item(), (mean + lse / 2 + FLOOR) / (T * SHORTEST)


def writes_ring(s: Setting, slots: int, fresh: int, start: int, channels: int, *, ids: bool, steps: int = 3) -> Outcome:
    """Steps in a row: each reads the queue as the last one left it, then writes its keys from the cursor on."""
    queue = unit(s, slots, channels, seed=3)
    cursor = torch.tensor([start, 0], device=s.device)
    names = torch.arange(slots, device=s.device) if ids else None
    shadow, shadow_names = queue.double(), None if names is None else names.clone()
    parts = []
    for step in range(steps):
        bag = make_bag(s, 24, 3, 1, channels, seed=10 * step)
        new = unit(s, fresh, channels, seed=100 + step, dtype=torch.float32)
        new_ids = 1000 * (step + 1) + torch.arange(fresh, device=s.device) if ids else None
        with allowed(s, slots, channels, T):
            loss = bag_loss(
                bag.q, bag.keys, bag.weights, queue, T, normalize=True, impl=s.impl, queue_ids=names,
                new_keys=NewKeys(new, cursor, new_ids),
            )  # fmt: skip
        exact, _, softmax = formula(bag, shadow)
        bound = softmax.tolerance(s.dtype, T)[0] + 1e-6 * exact.max().item()
        parts.append((f"loss of step {step}", far(loss.detach(), exact), bound))
        for i in range(fresh):
            slot = (start + step * fresh + i) % slots
            shadow[slot] = new[i].to(s.dtype).double()
            if shadow_names is not None and new_ids is not None:
                shadow_names[slot] = new_ids[i]
        wrong = int((queue.double() != shadow).sum())
        assert wrong == 0, f"{wrong} of {shadow.numel()} numbers in the ring are wrong after step {step}"
        if names is not None and shadow_names is not None:
            assert torch.equal(names, shadow_names), f"ids in the ring are wrong after step {step}"
        place = [(start + (step + 1) * fresh) % slots, 0]
        assert cursor.tolist() == place, f"cursor is {cursor.tolist()}, not {place}"
    return worst(*parts)
