"""SGD, on a GPU in one kernel for all weights, LARS, and their state from a checkpoint.

On a CPU it stays torch's loop over the weights: the fused step halves its time there, 2 % of a step, but rounds small
tensors otherwise, and recorded results keep their last bit.
"""

from collections.abc import Iterable
from typing import Any

import torch

from bingo.config_parts import Optimiser

TRUST = 0.001
"""Length of a LARS step over that of its weights, at a rate of one."""


class Lars(torch.optim.SGD):
    """SGD whose gradient of each matrix or filter bank is first given the length TRUST |w|, weight decay within
    (layer-wise adaptive rate scaling, arXiv 1708.03888).

    As self-supervised training uses it, vectors (biases, batch norm) get neither scaling nor weight decay. Nothing
    waits for the device.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, decay: float, **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self.decay = decay

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            matrices = [weight for weight in group["params"] if weight.ndim > 1 and weight.grad is not None]
            for weight in matrices:
                assert weight.grad is not None
                grad = weight.grad.add_(weight, alpha=self.decay)
                length, of_grad = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(grad)
                grad.mul_(torch.where((length > 0) & (of_grad > 0), TRUST * length / of_grad, torch.ones_like(length)))
        return super().step(closure)


def sgd(
    parameters: Iterable[torch.nn.Parameter], optim: Optimiser, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay, or LARS; fused: by default where all weights are on a GPU.

    A fused step wants gradients that lie in memory as their weights do: autograd's do.
    """
    weights = list(parameters)
    if optim.kind == "lars":
        return Lars(weights, decay=optim.weight_decay, lr=optim.lr, momentum=optim.momentum)
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
