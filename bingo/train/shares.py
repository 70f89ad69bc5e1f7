"""One step of a run, by as many processes as there are: each plays one rank of the run or several.

A run keeps its number of ranks for life. Its ranks differ in what they see: their rows of the global batch, their
batch-norm statistics, their dropout. A process that stands for several of them accumulates their gradients, each
divided by their number, so that the sum is what averaging over processes would have given; for two to the last bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import nn

from bingo.features.keys import CachedKeys
from bingo.losses.queue import KeyQueue
from bingo.models import Encoder
from bingo.train.inputs import Feed, Inputs
from bingo.train.spans import span
from bingo.train.telemetry import Work
from bingo.views.loader import Batch

Result = tuple[torch.Tensor, torch.Tensor | None]
"""A loss (scalar) and, if measured, what `contrast_measures` says of the anchors' queries and keys (3)."""
PendingKeys = Callable[[], torch.Tensor | None]
"""Waits for the keys (N, C) of all ranks that a step adds to the queue; None for a queue that stays as it is."""
Gather = Callable[[torch.Tensor], PendingKeys]
"""Begins to gather the keys of this process (B, C)."""


class Method(Protocol):
    """What a training method adds to the loop."""

    encoder: Encoder
    """The network that is trained."""
    saved: Encoder
    """The network that is evaluated and saved: that one, or an average of it."""
    model: nn.Module
    """The encoder as the loop calls it: wrapped for several views, compiled, in DDP."""
    queue: KeyQueue
    own_queue: KeyQueue | None
    """A second one, of the student's own outputs, where the objective has it."""
    averages_statistics: bool
    """Whether `after_step` averages batch-norm statistics over ranks; otherwise the first rank's are the run's."""
    feed: Feed
    """How its inputs reach the device in a step that is not captured."""
    gather: Gather
    """Sends this process's keys to the others: `World.gather_rows`, unless a graph must do without."""
    uncaptured: str
    """Why its step cannot be captured in a CUDA graph; empty where it can."""

    @property
    def keys_from(self) -> Encoder | CachedKeys:
        """What gives a step's keys: the frozen teacher, its cache, or a network that is among `modules`."""

    @property
    def guess(self) -> float | None:
        """The loss of a student that tells no image from another; None where the objective has no such number."""

    def prepare(self, shares: Sequence[Batch], feed: Feed) -> list[Inputs]:
        """All that the host decides for a step. Cached negatives are put into the queue here, once an epoch."""

    def losses_of(self, shares: Sequence[Inputs], *, measure: bool = False) -> Iterator[Result]:
        """Loss of each share of a step, computed when it is asked for; keys of all shares before the first.

        After the last one the step's keys are in the queue; all shares have read it as it was.
        """

    def losses(self, shares: Sequence[Batch], *, measure: bool = False) -> Iterator[Result]:
        """`losses_of` what `prepare` makes of the shares with the method's own feed."""

    def after_step(self) -> None:
        """Called once the optimiser has stepped."""

    def modules(self) -> dict[str, nn.Module]:
        """Modules whose state belongs in a checkpoint."""

    def work(self) -> Work:
        """The networks that an image passes, see `bingo.train.telemetry.Work`."""


def backward(method: Method, shares: Sequence[Batch], seed: int, *, measure: bool) -> Result:
    """Accumulate the gradients of this process's shares of a step; their mean loss and measures.

    seed: of the step; dropout is a function of it and of the rank: no generator state to save, none to lose.
    """
    seeds = [seed_of(seed, batch) for batch in shares]
    return accumulate(method, method.losses(shares, measure=measure), seeds)


def seed_of(seed: int, share: Batch) -> int:
    """The seed of a share of the step whose seed this is."""
    return (seed * 65_537 + share.plan.rank) % 2**64


def accumulate(method: Method, losses: Iterator[Result], seeds: Sequence[int | None], *, travel: bool = True) -> Result:
    """`backward` for the losses of as many shares as there are seeds; None: the generators are left alone.

    travel: whether gradients are averaged over the processes.
    """
    found: list[Result] = []
    statistics = Statistics(method.encoder, len(seeds))
    for number, seed in enumerate(seeds, 1):
        if seed is not None:
            torch.manual_seed(seed)
        with _apart(method.model, last=travel and number == len(seeds)), statistics.of_a_share():
            loss, measures = next(losses)
            with span("backward"):
                (loss / len(seeds)).backward()
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
