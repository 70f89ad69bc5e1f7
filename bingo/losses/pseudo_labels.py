"""LightlyTrain's first distillation: the queue is a pseudo-classifier, and the teacher's softmax over it a soft label.

loss = -sum_j softmax_j(t . D / tau_T) log softmax_j(s . D / tau_S) = L_S - s . mean_T / tau_S, the cross-entropy whose
KL CompRess-1q takes. Published: both temperatures 0.07, and images mixed pairwise (mixup), which is left out here: no
cache could hold the keys of mixtures.
"""

from torch import Tensor

from bingo.losses.bag import Reading
from bingo.losses.step import Step, check_rows, dots, student_lse, teacher_softmax, unit


def pseudo_label_loss(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). Gradients reach q alone."""
    check_rows(q, t)
    s = unit(q, queue)
    lse_s = student_lse(s, queue, temperature, options)
    _, mean_t = teacher_softmax(t, queue, target_temperature, options)
    return (lse_s - dots(s, mean_t) / temperature).mean()


def loss(step: Step) -> Tensor:
    found = pseudo_label_loss(
        step.queries[0], step.keys[0], step.queue.keys_KC, step.temperature, step.target_temperature, step.reading()
    )
    step.write()
    return found
