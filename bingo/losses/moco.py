"""InfoNCE against the teacher's key of the image, as MoCo has it against its own (arXiv 1911.05722, 2003.04297)."""

from torch import Tensor

from bingo.losses.bag import contrastive_loss
from bingo.losses.step import Step


def loss(step: Step) -> Tensor:
    return contrastive_loss(step.queries[0], step.keys[0], step.queue.keys_KC, step.temperature, **step.options())
