"""CoSS (arXiv 2409.13939): the cosine of each row and, as space similarity, the cosine of each channel over the batch.

With S and T (B, C) the outputs of student and teacher as the heads give them, not normalised:

    loss = -mean_i cos(S[i], T[i]) - lambda mean_d cos(S[:, d], T[:, d])

lambda is 1 here: the public text does not say which value was used. B is a rank's batch. The published batches hold
images with their nearest neighbours; here they are those of any objective.
"""

import torch.nn.functional as F
from torch import Tensor

from bingo.losses.step import Step, check_rows

SPACE = 1.0
"""lambda, the weight of the channels' term."""


def coss_loss(q: Tensor, t: Tensor, space: float = SPACE) -> Tensor:
    """q, t: (B, C) raw outputs of student and teacher. Returns a scalar."""
    check_rows(q, t)
    t = t.to(q.dtype)
    return -F.cosine_similarity(q, t, dim=1).mean() - space * F.cosine_similarity(q, t, dim=0).mean()


def loss(step: Step) -> Tensor:
    found = coss_loss(step.queries[0], step.keys[0])
    step.write()
    return found
