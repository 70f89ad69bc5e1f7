"""The losses, one module each: `bingo.objectives` is their table.

Each module has the loss as a function of tensors, with its formula and source, and `loss(step)`, which the trainer
calls. Means are over rows, so a loss does not depend on the number of ranks.
"""

import importlib
from collections.abc import Callable

from torch import Tensor

from bingo.losses.step import Step
from bingo.objectives import OBJECTIVES


def loss_of(name: str) -> Callable[[Step], Tensor]:
    """The loss of an objective of the table: a scalar of a share of a step."""
    module = OBJECTIVES[name].module
    found: Callable[[Step], Tensor] = importlib.import_module(module if "." in module else f"{__name__}.{module}").loss
    return found
