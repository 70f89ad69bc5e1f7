"""What both methods tell the loss of a step besides queries and keys."""

import torch

from bingo.config import TrainingConfig
from bingo.losses.bag import Options
from bingo.losses.queue import KeyQueue
from bingo.train.inputs import Inputs


def step_options(config: TrainingConfig, queue: KeyQueue, inputs: Inputs, keys_NC: torch.Tensor | None) -> Options:
    """What a step's loss is told: the new keys of all ranks with their ids, and, if asked for, whose keys to leave out.

    keys_NC: this step's keys in rank order; None for a queue that stays as it is.
    """
    return {
        "impl": config.runtime.impl,
        "normalize": True,
        "unit_rows": True,  # the queue's: it holds normalised keys
        "exclude": inputs.exclude,
        "queue_ids": queue.ids_K,
        "new_keys": None if keys_NC is None else queue.entry(keys_NC, inputs.ids),
    }
