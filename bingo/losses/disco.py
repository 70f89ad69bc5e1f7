"""DisCo (arXiv 2104.09124): MoCo-v2 of the student on its own average, and regression on the teacher's keys.

With s1, s2 the student's unit rows of two views, k2 the momentum student's of the second, t1, t2 the teacher's keys:

    loss = ce(s1, k2) + W (|s1 - t1|^2 + |s2 - t2|^2)

The published code sums squares over the images of one GPU, 32 of 256 on 8: W = 32 makes the mean over rows here the
same.
"""

import torch.nn.functional as F
from torch import Tensor

from bingo.losses.bag import Reading, contrastive_loss
from bingo.losses.step import Step, check_rows, dots

ROWS = 32
"""Images of one GPU of the published runs, over which squares are summed."""


def disco_loss(
    q1: Tensor, q2: Tensor, k2: Tensor, t1: Tensor, t2: Tensor, queue: Tensor, temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q1, q2: (B, C) raw queries; k2, t1, t2: (B, C) unit rows; queue: (K, C) of past k2."""
    check_rows(q1, q2, k2, t1, t2)
    contrast = contrastive_loss(q1, k2, queue, temperature, **options, normalize=True)
    squares = [2 - 2 * dots(F.normalize(q, dim=1), t.to(q.dtype)) for q, t in ((q1, t1), (q2, t2))]
    return contrast + ROWS * (squares[0] + squares[1]).mean()


def loss(step: Step) -> Tensor:
    own = step.own
    assert own is not None
    assert own.keys is not None
    (q1, q2), (t1, t2) = step.queries, step.keys
    reading: Reading = {**step.reading(), "queue_ids": own.queue.ids_K}
    found = disco_loss(q1, q2, own.keys, t1, t2, own.queue.keys_KC, step.temperature, reading)
    step.write()
    return found
