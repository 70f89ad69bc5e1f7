"""SimReg and half of SEED: regression on the teacher's key, and its ranking of the queue.

loss = 2 - 2 cos(s, t) + 0.5 seed, with one output for both. The sum is the loss of the modern recipe; nobody has
published it.
"""

from torch import Tensor

from bingo.losses.seed import seed_loss
from bingo.losses.simreg import simreg_loss
from bingo.losses.step import Step

WEIGHT = 0.5
"""Of SEED's term."""


def loss(step: Step) -> Tensor:
    q, t = step.queries[0], step.keys[0]
    seed = seed_loss(q, t, step.queue.keys_KC, step.temperature, step.target_temperature, step.reading())
    found = simreg_loss(q, t) + WEIGHT * seed
    step.write()
    return found
