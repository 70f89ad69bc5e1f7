"""SimReg (arXiv 2201.05131): regression on the teacher's key, 2 - 2 cos(s, t), the squared distance of unit rows.

The published head is `--contrast.layers 4`. The queue takes no part in the loss; a step's measures read it.
"""

import torch.nn.functional as F
from torch import Tensor

from bingo.losses.step import Step, check_rows, dots


def simreg_loss(q: Tensor, t: Tensor) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows."""
    check_rows(q, t)
    return (2 - 2 * dots(F.normalize(q, dim=1), t.to(q.dtype))).mean()


def loss(step: Step) -> Tensor:
    found = simreg_loss(step.queries[0], step.keys[0])
    step.write()
    return found
