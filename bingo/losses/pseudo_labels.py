"""LightlyTrain's first distillation: the queue is a pseudo-classifier, and the teacher's softmax over it a soft label.

loss = -sum_j softmax_j(t . D / tau_T) log softmax_j(s . D / tau_S) = L_S - s . mean_T / tau_S, the cross-entropy whose
KL CompRess-1q takes. Published: both temperatures 0.07, and images mixed pairwise (mixup), which is left out here: no
cache could hold the keys of mixtures.
"""

from torch import Tensor

from bingo.losses.bag import Reading
from bingo.losses.step import Step, dots, softmaxes


def pseudo_label_loss(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). Gradients reach q alone."""
    s, _, lse_s, _, mean_t = softmaxes(q, t, queue, temperature, target_temperature, options)
    return (lse_s - dots(s, mean_t) / temperature).mean()


def loss(step: Step) -> Tensor:
    return step.by_softmaxes(pseudo_label_loss)
