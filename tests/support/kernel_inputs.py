"""A small shape for the kernel benchmark, and how far an answer is from fp64."""

from torch import Tensor

from bingo.bench.kernels.workload import LOSS, Inputs, LossShape, exact
from bingo.bench.timing import (
    relative_error,
)

SHAPE = LossShape(rows=24, keys=512, dim=32)


def errors(answer: tuple[Tensor, ...], inputs: Inputs, task: str = LOSS) -> list[float]:
    return [relative_error(mine, truth) for mine, truth in zip(answer, exact(inputs, task), strict=True)]
