"""CompRess-2q (arXiv 2010.14713): two queues whose rows belong together, the teacher's D_T and the student's D_S.

loss = KL(softmax(t . D_T / tau_T) || softmax(s . D_S / tau_S)) = L_S - s . mean_S / tau_S + t . mean_T / tau_T - L_T,
with mean_S and mean_T the means of D_S and of D_T, both by the teacher's softmax over D_T. Both queues get a step's
rows after it.
"""

from torch import Tensor

from bingo.losses.bag import Reading
from bingo.losses.step import Step, check_rows, dots, student_lse, teacher_softmax, unit


def compress_2q_loss(
    q: Tensor,
    t: Tensor,
    queue_t: Tensor,
    queue_s: Tensor,
    temperature: float,
    target_temperature: float,
    options: Reading,
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue_t, queue_s: (K, C), aligned."""
    check_rows(q, t)
    s = unit(q, queue_s)
    t = t.to(s.dtype)
    lse_s = student_lse(s, queue_s, temperature, options)
    lse_t, mean_t = teacher_softmax(t, queue_t, target_temperature, options)
    _, mean_s = teacher_softmax(t, queue_t, target_temperature, options, values=queue_s)
    negative_entropy = dots(t, mean_t) / target_temperature - lse_t
    return (lse_s - dots(s, mean_s) / temperature + negative_entropy).mean()


def loss(step: Step) -> Tensor:
    assert step.own is not None
    found = compress_2q_loss(
        step.queries[0], step.keys[0], step.queue.keys_KC, step.own.queue.keys_KC,
        step.temperature, step.target_temperature, step.reading(),
    )  # fmt: skip
    step.write()
    return found
