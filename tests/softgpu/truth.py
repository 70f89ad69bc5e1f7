"""What the softmax kernels compute, in fp64, and how far an answer may be from it: no further than they round.

Legend: R rows, K keys, C channels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bingo.kernels.request import Request
from bingo.kernels.splits import is_fast

DEVIATIONS = 8  # of the sum of many roundings, which are small and independent


@dataclass(frozen=True)
class Truth:
    """lse (R) and mean (R, C) in fp64, each with what it may be off by; -inf and zeros for a row without any key."""

    lse: Tensor
    mean: Tensor
    lse_slack: Tensor
    mean_slack: Tensor


def unit(q: Tensor) -> Tensor:
    return q / q.norm(dim=1, keepdim=True).clamp_min(1e-12)


def truth(request: Request) -> Truth:
    """Of the queries as the kernel rounds them: once to the queue's dtype, scaled before unless logits may be large."""
    q, queue, dtype = request.q_RC.double(), request.queue_KC.double(), request.queue_KC.dtype
    scale, safe = request.scale, not is_fast(request.scale, len(request.queue_KC), request.queue_KC.dtype)
    if request.normalize:
        single = request.q_RC.float()
        q = (single / (single * single).sum(1, keepdim=True).sqrt().clamp_min(1e-12)).double()
    rounded = q.float().to(dtype).double() * scale if safe else (q.float() * scale).to(dtype).double()
    z = (rounded @ queue.T * math.log(2)).masked_fill(excluded(request), -math.inf)
    lse, weights = torch.logsumexp(z, 1), torch.softmax(z, 1).nan_to_num(0.0)
    key, spread = weights @ queue, (weights @ queue**2).sqrt()
    averaged = request.averaged_KD.double()
    mean, spreads = weights @ averaged, (weights @ averaged**2).sqrt()
    flips = _flips(request, q * scale * math.log(2))
    lse_slack = 1e-5 + 1e-6 * (q * scale).norm(dim=1) * queue.norm(dim=1).max() + (flips * key).norm(dim=1)
    deviation = torch.finfo(dtype).eps / 2 / math.sqrt(3) * ((weights**2) @ (averaged**2)).sqrt()
    # Weights of fp16 below its normal numbers lose digits, not only a share of themselves.
    lost = 2.0**-25 * len(queue) * (-lse.nan_to_num(0.0)).exp().clamp_min(1.0) if dtype == torch.float16 else 0 * lse
    mean_slack = DEVIATIONS * deviation + (lost * averaged.abs().max())[:, None] + 2e-6
    return Truth(lse, mean, lse_slack, mean_slack + (flips * spread).norm(dim=1)[:, None] * spreads)


def _flips(request: Request, q: Tensor) -> Tensor:
    """(R, C): by how much the kernel's queries may be other numbers than ours, since they are rounded on another way.

    The log-sum-exp then moves by that times the mean key, the mean by that times the covariance with the keys.
    """
    eps = torch.finfo(request.queue_KC.dtype).eps
    if request.queue_KC.norm(dim=1).max() > 1.1 and not request.unit_rows:  # repaired rows are rounded before scaling
        return DEVIATIONS * eps * q.abs()
    if request.normalize:  # the last digit of a length turns over a rounding here and there: two of a row
        return 2 * eps * q.abs().amax(1, keepdim=True) * math.sqrt(1 / q.shape[1]) * torch.ones_like(q)
    return torch.zeros_like(q)


def excluded(request: Request) -> Tensor:
    """(R, K): whether the key's id is one of the row's excluded ids."""
    rows, keys = len(request.q_RC), len(request.queue_KC)
    if request.exclude_GE is None or request.queue_ids_K is None:
        return torch.zeros(rows, keys, dtype=torch.bool)
    wanted = request.exclude_GE[torch.arange(rows) % len(request.exclude_GE)]
    return ((request.queue_ids_K[None, :, None] == wanted[:, None, :]) & (wanted >= 0)[:, None, :]).any(-1)


def worst(found: Tensor, expected: Tensor, slack: Tensor | float) -> float:
    """The largest error as a multiple of what is allowed; infinite where something is NaN or another infinity."""
    error = torch.where(found == expected, 0.0, (found.double() - expected).abs() / slack)
    return error.nan_to_num(math.inf).max().item() if error.numel() else 0.0
