"""CompRess-1q (arXiv 2010.14713): the teacher's softmax over the queue is the target of the student's.

loss = KL(softmax(t . D / tau_T) || softmax(s . D / tau_S)) = L_S - s . mean_T / tau_S + t . mean_T / tau_T - L_T, with
L the log-sum-exp of a row over the queue D, and mean_T the mean of D by the teacher's softmax.
"""

from torch import Tensor

from bingo.losses.bag import Reading
from bingo.losses.step import Step, dots, softmaxes


def compress_loss(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). Gradients reach q alone."""
    s, t, lse_s, lse_t, mean_t = softmaxes(q, t, queue, temperature, target_temperature, options)
    negative_entropy = dots(t, mean_t) / target_temperature - lse_t
    return (lse_s - dots(s, mean_t) / temperature + negative_entropy).mean()


def loss(step: Step) -> Tensor:
    return step.by_softmaxes(compress_loss)
