"""Names for the parts of a training step, for a profiler; without one they cost next to nothing."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

PREFIX = "bingo: "
STEP = PREFIX + "step "
"""And the number of the step: around all of its parts."""
PARTS = ("data wait", "augment", "teacher", "student forward", "loss", "backward", "optimiser", "after step")
"""What a step is made of, in its order; `bingo bench profile` reads them back."""
_NOTHING: AbstractContextManager[None] = nullcontext()


def span(part: str) -> AbstractContextManager[Any]:
    """Name what runs inside, if a profiler listens. part: one of `PARTS`."""
    if torch.autograd.profiler._is_profiler_enabled:
        return torch.profiler.record_function(PREFIX + part)
    return _NOTHING
