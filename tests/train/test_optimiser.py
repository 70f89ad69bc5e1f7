"""The fused step is torch's plain one, whatever memory layout a checkpoint's momentum has; on a CPU there is none."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from bingo.config_parts import Optimiser
from bingo.models import seeded_encoder
from bingo.train.optimiser import load_sgd, sgd

OPTIM = Optimiser(lr=0.1, momentum=0.9, weight_decay=0.01)
LAST = torch.channels_last


def small(layout: torch.memory_format) -> nn.Module:
    return seeded_encoder("tiny-8", dim=16, hidden=32, seed=0).backbone.to(memory_format=layout)


def trained(network: nn.Module, optimiser: torch.optim.Optimizer, steps: range) -> list[torch.Tensor]:
    """The weights after steps on random images of their own."""
    for step in steps:
        images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad(set_to_none=True)
        network(images.contiguous(memory_format=LAST)).square().sum().backward()
        optimiser.step()
    return [parameter.detach() for parameter in network.parameters()]


def plain_sgd(network: nn.Module) -> torch.optim.SGD:
    values: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    return torch.optim.SGD(network.parameters(), foreach=False, fused=False, **values)


def test_on_a_cpu_it_is_the_plain_step_to_the_last_bit() -> None:
    ours, theirs = small(LAST), small(LAST)
    optimiser = sgd(ours.parameters(), OPTIM)
    assert not optimiser.param_groups[0]["fused"]
    assert all(map(torch.equal, trained(ours, optimiser, range(5)), trained(theirs, plain_sgd(theirs), range(5))))


def test_gradients_lie_in_memory_as_their_weights() -> None:
    """Which the fused step rests on."""
    network = small(LAST)
    for images in (torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16).contiguous(memory_format=LAST)):
        network.zero_grad(set_to_none=True)
        network(images).sum().backward()
        for parameter in network.parameters():
            assert parameter.grad is not None
            assert parameter.grad.stride() == parameter.stride()


@pytest.mark.parametrize(("before", "after"), [(torch.contiguous_format, LAST), (LAST, torch.contiguous_format)])
def test_momentum_of_another_layout_and_of_an_earlier_release(
    before: torch.memory_format, after: torch.memory_format
) -> None:
    """As if the run had had the new layout all along."""
    begun = small(before)
    earlier = plain_sgd(begun)
    trained(begun, earlier, range(2))
    gone_on, theirs = (copy.deepcopy(begun).to(memory_format=after) for _ in range(2))
    optimiser = sgd(gone_on.parameters(), OPTIM, fused=True)
    load_sgd(optimiser, copy.deepcopy(earlier.state_dict()))
    assert optimiser.param_groups[0]["fused"] is True
    plain = plain_sgd(theirs)
    plain.load_state_dict(copy.deepcopy(earlier.state_dict()))
    found, expected = trained(gone_on, optimiser, range(2, 5)), trained(theirs, plain, range(2, 5))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
