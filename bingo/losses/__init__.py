"""The losses, one module each: `bingo.objectives` is their table.

Each module has the loss as a function of tensors, with its formula and source, and `loss(step)`, which the trainer
calls. Means are over rows, so a loss does not depend on the number of ranks.
"""

import importlib
import importlib.util
from collections.abc import Callable

from torch import Tensor

from bingo.losses.step import Step
from bingo.objectives import OBJECTIVES


def loss_of(name: str) -> Callable[[Step], Tensor]:
    """The loss of an objective of the table: a scalar of a share of a step."""
    module = OBJECTIVES[name].module
    ours = importlib.util.find_spec(f"{__name__}.{module}") is not None
    found: Callable[[Step], Tensor] = importlib.import_module(f"{__name__}.{module}" if ours else module).loss
    return found
