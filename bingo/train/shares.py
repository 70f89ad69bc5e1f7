"""One step of a run, by as many processes as there are: each plays one rank of the run or several.

A run keeps its number of ranks for life. Its ranks differ in what they see: their rows of the global batch, their
batch-norm statistics, their dropout. A process that stands for several of them accumulates their gradients, each
divided by their number, so that the sum is what averaging over processes would have given; for two to the last bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import nn

from bingo.models import Encoder
from bingo.train.queue import KeyQueue
from bingo.views.loader import Batch

Result = tuple[torch.Tensor, torch.Tensor | None]
"""A loss (scalar) and, if measured, what `contrast_measures` says of the anchors' queries and keys (3)."""


class Method(Protocol):
    """What a training method adds to the loop."""

    encoder: Encoder
    """The network that is trained, evaluated and saved."""
    model: nn.Module
    """The encoder as the loop calls it: wrapped for several views, compiled, in DDP."""
    queue: KeyQueue
    guess: float
    """The loss of a student that tells no image from another."""
    averages_statistics: bool
    """Whether `after_step` averages batch-norm statistics over ranks; otherwise the first rank's are the run's."""

    def losses(self, shares: Sequence[Batch], *, measure: bool = False) -> Iterator[Result]:
        """Loss of each share of a step, computed when it is asked for; keys of all shares before the first.

        After the last one the step's keys are in the queue; all shares have read it as it was.
        """

    def after_step(self) -> None:
        """Called once the optimiser has stepped."""

    def modules(self) -> dict[str, nn.Module]:
        """Modules whose state belongs in a checkpoint."""


def backward(method: Method, shares: Sequence[Batch], seed: int, *, measure: bool) -> Result:
    """Accumulate the gradients of this process's shares of a step; their mean loss and measures.

    seed: of the step; dropout is a function of it and of the rank: no generator state to save, none to lose.
    """
    found: list[Result] = []
    statistics = Statistics(method.encoder, len(shares))
    losses = method.losses(shares, measure=measure)
    for batch in shares:
        torch.manual_seed((seed * 65_537 + batch.plan.rank) % 2**64)
        with _apart(method.model, last=batch is shares[-1]), statistics.of_a_share():
            loss, measures = next(losses)
            (loss / len(shares)).backward()
        found.append((loss.detach(), measures))
    statistics.join(mean=method.averages_statistics)
    loss, measured = torch.stack([loss for loss, _ in found]).mean(), [part for _, part in found if part is not None]
    return loss, torch.stack(measured).mean(dim=0) if measured else None


def _apart(model: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Gradients travel once a step: with the last share."""
    if last or not isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


class Statistics:
    """Batch-norm statistics of a process's shares: each starts where the step did, as on a process of its own."""

    def __init__(self, encoder: nn.Module, shares: int) -> None:
        self.buffers = list(encoder.buffers()) if shares > 1 else []
        self.before = [buffer.clone() for buffer in self.buffers]
        self.after: list[list[torch.Tensor]] = []

    @contextmanager
    def of_a_share(self) -> Iterator[None]:
        self._set(self.before)
        yield
        self.after.append([buffer.clone() for buffer in self.buffers])

    def join(self, *, mean: bool) -> None:
        """Leave the first share's in the network, or with mean the mean over the shares."""
        self._set(self.after[0])
        if mean:
            for buffer, *parts in zip(self.buffers, *self.after, strict=True):
                if buffer.is_floating_point():
                    buffer.copy_(torch.stack(parts).mean(dim=0))

    def _set(self, values: list[torch.Tensor]) -> None:
        for buffer, value in zip(self.buffers, values, strict=True):
            buffer.copy_(value)
