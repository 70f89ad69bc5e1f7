"""BINGO as its published code has it: see `bingo.losses.bag.release_loss`."""

from torch import Tensor

from bingo.losses.bag import weighted_release_loss
from bingo.losses.step import Step


def loss(step: Step) -> Tensor:
    assert step.weights is not None
    return weighted_release_loss(
        step.queries, step.keys, step.weights, step.mix, step.queue.keys_KC, step.temperature, **step.options()
    )
