"""SEED (arXiv 2101.04731): the teacher's softmax over [its own key, the queue] is the target of the student's.

With s the student's unit row, t the teacher's, D the queue, L the log-sum-exp of a row over D at its temperature, and
mean_T the mean of D by the teacher's softmax over D alone:

    s0 = s . t / tau_S,   w = sigmoid(1 / tau_T - L_T)             the teacher's weight of its own key
    loss = logaddexp(L_S, s0) - w s0 - (1 - w) s . mean_T / tau_S

which is the cross-entropy of the two softmaxes. As tau_T falls to 0 it becomes InfoNCE.
"""

import torch
from torch import Tensor

from bingo.losses.bag import Reading
from bingo.losses.step import Step, dots, softmaxes


def seed_loss(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). Gradients reach q alone."""
    s, t, lse_s, lse_t, mean_t = softmaxes(q, t, queue, temperature, target_temperature, options)
    own = torch.sigmoid(dots(t, t) / target_temperature - lse_t)
    s0 = dots(s, t) / temperature
    return (torch.logaddexp(lse_s, s0) - own * s0 - (1 - own) * dots(s, mean_t) / temperature).mean()


def loss(step: Step) -> Tensor:
    return step.by_softmaxes(seed_loss)
