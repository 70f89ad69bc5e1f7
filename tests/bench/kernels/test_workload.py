"""The inputs of the kernel benchmark, and the loss in fp64 that every variant is held to."""

import pytest
import torch

from bingo.bench.kernels.workload import LOSS, LSE, Inputs, exact, make_queues
from tests.support.kernel_inputs import SHAPE

CPU = torch.device("cpu")


def test_inputs(inputs: Inputs) -> None:
    rows = [inputs.q.detach(), inputs.keys.flatten(0, 1), *inputs.queues.single]
    assert all(torch.allclose(r.norm(dim=1), torch.ones(len(r))) for r in rows)
    assert len({queue.sum().item() for queue in inputs.queues.single}) == len(inputs.queues) == 4
    assert inputs.weights.sum().item() == pytest.approx(1)
    many = make_queues(SHAPE, CPU, 100_000, torch.Generator())
    assert len(many) * many.half[0].nbytes >= 200_000


def test_exact_is_the_loss_in_fp64(inputs: Inputs) -> None:
    """Written here from the formula, not from the code under test."""
    loss, gradient = exact(inputs, LOSS)
    q = inputs.q.detach().double().requires_grad_()
    s = torch.einsum("rc,rmc->rm", q, inputs.keys.double()) / 0.2
    lse = torch.logsumexp(q @ inputs.queues.single[0].double().T / 0.2, dim=1)
    truth = (inputs.weights.double() * torch.log1p((lse[:, None] - s).exp())).sum(1)
    torch.testing.assert_close(loss, truth.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(truth.mean(), q)[0])
    torch.testing.assert_close(exact(inputs, LSE)[0], lse.detach())
