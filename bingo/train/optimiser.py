"""SGD, on a GPU in one kernel for all weights, and its state from a checkpoint.

On a CPU it stays torch's loop over the weights: the fused step halves its time there, 2 % of a step, but rounds small
tensors otherwise, and recorded results keep their last bit.
"""

from collections.abc import Iterable
from typing import Any

import torch

from bingo.config_parts import Optimiser


def sgd(
    parameters: Iterable[torch.nn.Parameter], optim: Optimiser, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay; fused: by default where all weights are on a GPU.

    A fused step wants gradients that lie in memory as their weights do: autograd's do.
    """
    weights = list(parameters)
    if fused is None:
        fused = all(weight.is_cuda for weight in weights)
    settings: dict[str, Any] = {"fused": True} if fused else {}  # False would also forbid torch's own choice
    return torch.optim.SGD(weights, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay, **settings)


def load_sgd(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what a checkpoint holds: of another device, of an earlier release, of another memory layout too.

    The fused step goes through weight and momentum side by side: momentum that lies otherwise, as that of a run begun
    without `channels_last` does, would be added to other weights and nothing would tell.
    """
    ways = [{name: group[name] for name in ("fused", "foreach")} for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, way in zip(optimiser.param_groups, ways, strict=True):
        group.update(way)  # how a step runs is this device's
    for parameter, values in optimiser.state.items():
        momentum = values.get("momentum_buffer")
        if momentum is not None and momentum.stride() != parameter.stride():
            values["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
