"""Inputs of the kernel benchmark for all files of this folder."""

import pytest
import torch

from bingo.bench.kernels.workload import Inputs, make_inputs, make_queues
from tests.support.kernel_inputs import SHAPE

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(0)
    return make_inputs(SHAPE, make_queues(SHAPE, CPU, 0, generator), CPU, generator)
