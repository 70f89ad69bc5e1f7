"""Which side of a step is not finite, told afterwards: sums of keys and queries stay on the device until a flush."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from bingo.features.keys import CachedKeys
from bingo.train.shares import Method

KEYS, QUERIES = range(2)
FULL_PRECISION = "look at the network and the images, or set --runtime.precision fp32"
CURES = {
    "the teacher's keys": FULL_PRECISION,
    "the key encoder's keys": "lower --optim.lr or raise --contrast.temperature",
    "the cached keys": "make them again with `bingo keys`",
    "the keys in the queue": "go on from a checkpoint that is whole",
}
"""Side -> what to do; the student's is that of every loss that is not finite."""


class Sides:
    """Adds up what the networks of a method give, step after step.

    A sum with a NaN or an infinity in it never comes back, so the first step after which one is not finite is the
    step. The sums keep their place on the device: a step that is captured adds to them at each replay, and nobody waits
    for them before a flush does for the losses.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self.method = method
        self.sums = torch.zeros(2, device=device)
        method.model.register_forward_hook(self._adding(QUERIES))
        source = method.keys_from
        if isinstance(source, CachedKeys):
            self.keys = "the cached keys"
        else:
            source.register_forward_hook(self._adding(KEYS))
            moves = any(module is source for module in method.modules().values())
            self.keys = "the key encoder's keys" if moves else "the teacher's keys"

    def _adding(self, place: int) -> Callable[[nn.Module, Any, Any], None]:
        @torch.no_grad()
        def add(module: nn.Module, given: Any, found: Any) -> None:
            for rows in [found] if isinstance(found, torch.Tensor) else found:
                self.sums[place].add_(rows.detach().float().sum())

        return add

    def now(self) -> torch.Tensor:
        """The sums up to here (2), a copy."""
        return self.sums.clone()

    def blamed(self, sums: Sequence[float]) -> list[str]:
        """The sides that are not finite at the first step with such a loss. sums: `now` after it, as all ranks have it.

        Where both networks' outputs are finite it is the keys that came from no network.
        """
        names = ("the student's queries", self.keys)
        found = [name for name, place in zip(names, (QUERIES, KEYS), strict=True) if not math.isfinite(sums[place])]
        if not found and isinstance(self.method.keys_from, CachedKeys):
            return [self.keys]
        if not found and not self.method.queue.keys_KC.isfinite().all():
            return ["the keys in the queue"]
        return found


def weight_norm(network: nn.Module) -> torch.Tensor:
    """The length of all weights as one vector, 0-d fp64 on the device: no finite weights overflow it."""
    weights = [parameter.detach() for parameter in network.parameters()]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(weights, 2, torch.float64)))
