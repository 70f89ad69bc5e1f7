"""The libraries with class indices are asked for our loss."""

import torch

from bingo.bench.kernels.libraries import from_cross_entropy
from bingo.bench.kernels.workload import Inputs
from tests.support.kernel_inputs import SHAPE, errors


def test_class_index_libraries_are_asked_fairly(inputs: Inputs) -> None:
    """Loss and gradient of class 0 in fp32 are turned into our loss and gradient."""
    rows = inputs.scaled_half.float().requires_grad_()
    queue = inputs.queues.half[0].float()
    loss = torch.nn.functional.cross_entropy(
        rows @ queue.T, torch.zeros(SHAPE.rows, dtype=torch.long), reduction="none"
    )
    (slope,) = torch.autograd.grad(loss.sum(), rows)
    assert max(errors(from_cross_entropy(inputs, queue[0], loss.detach(), slope), inputs)) < 2e-3
