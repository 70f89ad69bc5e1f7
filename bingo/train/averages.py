"""Moving averages of a network: the key encoder of MoCo, the momentum student of DisCo, the student that is saved."""

import copy
from typing import TypeVar

import torch
from torch import nn

from bingo.distributed import World

N = TypeVar("N", bound=nn.Module)


def average_of(network: N) -> N:
    """A frozen copy in eval mode, for `follow` to move."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, keep: float, *, buffers: bool = True) -> None:
    """Keep a share of the average and take the rest from the network: weights and, if asked, batch-norm statistics."""
    torch._foreach_lerp_(_values(average, buffers), _values(network, buffers), 1 - keep)


def share_statistics(network: nn.Module, world: World) -> None:
    """Batch-norm statistics become their mean over all ranks."""
    world.average([buffer for buffer in network.buffers() if buffer.is_floating_point()])


def _values(network: nn.Module, buffers: bool) -> list[torch.Tensor]:
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()] if buffers else []
    return [*(weight.detach() for weight in network.parameters()), *statistics]
