"""What both methods tell the loss of a step besides queries and keys."""

import torch

from bingo.config import TrainingConfig
from bingo.kernels.transfer import to_device
from bingo.train.loss import Options
from bingo.train.queue import KeyQueue
from bingo.views.loader import Batch
from bingo.views.plan import Plan


def step_options(
    config: TrainingConfig, queue: KeyQueue, plan: Plan, batch: Batch, keys_NC: torch.Tensor | None
) -> Options:
    """What a step's loss is told: the new keys of all ranks with their ids, and, if asked for, whose keys to leave out.

    keys_NC: this step's keys in rank order; None for a queue that stays as it is.
    """
    device = queue.keys_KC.device
    new = None
    if keys_NC is not None:
        new = queue.entry(keys_NC, to_device(plan.anchors(batch.plan.epoch, batch.plan.step), device))
    exclude = None
    if config.contrast.negatives == "strangers":
        exclude = to_device(plan.relatives(batch.plan.groups[0]), device)
    return {
        "impl": config.runtime.impl,
        "normalize": True,
        "unit_rows": True,  # the queue's: it holds normalised keys
        "exclude": exclude,
        "queue_ids": queue.ids_K,
        "new_keys": new,
    }
