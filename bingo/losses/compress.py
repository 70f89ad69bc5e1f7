"""CompRess-1q (arXiv 2010.14713): the teacher's softmax over the queue is the target of the student's.

loss = KL(softmax(t . D / tau_T) || softmax(s . D / tau_S)) = L_S - s . mean_T / tau_S + t . mean_T / tau_T - L_T, with
L the log-sum-exp of a row over the queue D, and mean_T the mean of D by the teacher's softmax.
"""

from torch import Tensor

from bingo.losses.bag import Reading
from bingo.losses.step import Step, check_rows, dots, student_lse, teacher_softmax, unit


def compress_loss(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). Gradients reach q alone."""
    check_rows(q, t)
    s = unit(q, queue)
    t = t.to(s.dtype)
    lse_s = student_lse(s, queue, temperature, options)
    lse_t, mean_t = teacher_softmax(t, queue, target_temperature, options)
    negative_entropy = dots(t, mean_t) / target_temperature - lse_t
    return (lse_s - dots(s, mean_t) / temperature + negative_entropy).mean()


def loss(step: Step) -> Tensor:
    found = compress_loss(
        step.queries[0], step.keys[0], step.queue.keys_KC, step.temperature, step.target_temperature, step.reading()
    )
    step.write()
    return found
