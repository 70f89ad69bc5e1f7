"""BINGO as the paper has it (arXiv 2107.01691): see `bingo.losses.bag.paper_loss`."""

from torch import Tensor

from bingo.losses.bag import paper_loss
from bingo.losses.step import Step


def loss(step: Step) -> Tensor:
    anchor, positive = step.queries
    return paper_loss(anchor, positive, step.keys[0], step.queue.keys_KC, step.temperature, **step.options())
