"""Oracles for the objectives of a distillation: whole softmaxes in fp64, written from the formulas of their papers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.naive import ce


def soft_cross_entropy(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Mean over rows of -sum softmax(target) log softmax(logits)."""
    return -(target_logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1).mean()


def kl(target_logits: Tensor, logits: Tensor) -> Tensor:
    """Mean over rows of KL(softmax(target) || softmax(logits))."""
    return F.kl_div(logits.log_softmax(dim=1), target_logits.log_softmax(dim=1), log_target=True, reduction="batchmean")


def unit(q: Tensor) -> Tensor:
    return q / q.norm(dim=1, keepdim=True)


def moco(q: Tensor, t: Tensor, queue: Tensor, tau: float, _: float) -> Tensor:
    return ce(unit(q), t, queue, tau).mean()


def seed(q: Tensor, t: Tensor, queue: Tensor, tau: float, target: float) -> Tensor:
    """The teacher's own key is column 0 of both softmaxes."""
    s = unit(q)
    teacher = torch.cat([torch.linalg.vecdot(t, t)[:, None], t @ queue.T], dim=1) / target
    student = torch.cat([torch.linalg.vecdot(s, t)[:, None], s @ queue.T], dim=1) / tau
    return soft_cross_entropy(teacher, student)


def compress(q: Tensor, t: Tensor, queue: Tensor, tau: float, target: float) -> Tensor:
    return kl(t @ queue.T / target, unit(q) @ queue.T / tau)


def compress_2q(q: Tensor, t: Tensor, queue: Tensor, own: Tensor, tau: float, target: float) -> Tensor:
    return kl(t @ queue.T / target, unit(q) @ own.T / tau)


def pseudo_labels(q: Tensor, t: Tensor, queue: Tensor, tau: float, target: float) -> Tensor:
    return soft_cross_entropy(t @ queue.T / target, unit(q) @ queue.T / tau)


def simreg(q: Tensor, t: Tensor) -> Tensor:
    """Squared distance of unit rows."""
    return (unit(q) - t).square().sum(dim=1).mean()


def disco(q1: Tensor, q2: Tensor, k2: Tensor, t1: Tensor, t2: Tensor, queue: Tensor, tau: float) -> Tensor:
    """The published sum over the 32 images of a GPU, as 32 times the mean."""
    squares = [(unit(q) - t).square().sum(dim=1).mean() for q, t in ((q1, t1), (q2, t2))]
    return ce(unit(q1), k2, queue, tau).mean() + 32 * sum(squares)


def coss(q: Tensor, t: Tensor) -> Tensor:
    rows = (unit(q) * unit(t)).sum(dim=1).mean()
    channels = (unit(q.T) * unit(t.T)).sum(dim=1).mean()
    return -rows - channels
