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
from bingo.losses.step import Step, check_rows, dots, student_lse, teacher_softmax, unit


def seed_loss(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). Gradients reach q alone."""
    check_rows(q, t)
    s = unit(q, queue)
    t = t.to(s.dtype)
    lse_s = student_lse(s, queue, temperature, options)
    lse_t, mean_t = teacher_softmax(t, queue, target_temperature, options)
    own = torch.sigmoid(dots(t, t) / target_temperature - lse_t)
    s0 = dots(s, t) / temperature
    return (torch.logaddexp(lse_s, s0) - own * s0 - (1 - own) * dots(s, mean_t) / temperature).mean()


def loss(step: Step) -> Tensor:
    found = seed_loss(
        step.queries[0], step.keys[0], step.queue.keys_KC, step.temperature, step.target_temperature, step.reading()
    )
    step.write()
    return found
