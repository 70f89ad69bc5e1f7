"""SimReg and half of SEED: regression on the teacher's key, and its ranking of the queue.

loss = 2 - 2 cos(s, t) + 0.5 seed, with one output for both. The sum is the loss of the modern recipe; nobody has
published it.
"""

from torch import Tensor

from bingo.losses.bag import Reading
from bingo.losses.seed import seed_loss
from bingo.losses.simreg import simreg_loss
from bingo.losses.step import Step

WEIGHT = 0.5
"""Of SEED's term."""


def simreg_seed_loss(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Tensor:
    """Mean over rows. q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). Gradients reach q alone."""
    seed = seed_loss(q, t, queue, temperature, target_temperature, options)
    return simreg_loss(q, t) + WEIGHT * seed


def loss(step: Step) -> Tensor:
    return step.by_softmaxes(simreg_seed_loss)
