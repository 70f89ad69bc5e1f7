"""What an objective is given: one share of a step, and how the queue is read and written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.config import DistillConfig, TrainingConfig
from bingo.errors import UserError
from bingo.kernels import NewKeys, queue_softmax
from bingo.kernels.ring import write_keys
from bingo.losses.bag import Options, Reading
from bingo.losses.queue import KeyQueue


@dataclass(frozen=True)
class Own:
    """A queue of the student's own outputs: unit rows of a momentum student, or of the student itself.

    keys: this share's (B, C), of the momentum student; new: all ranks' (N, C) in rank order, with the last share.
    """

    queue: KeyQueue
    keys: Tensor | None
    new: Tensor | None


@dataclass(frozen=True)
class Step:
    """One share of a step. B rows of this share, C channels, K keys of the queue.

    queries: (B, C) raw outputs of the student: views of the anchors, then of bag mates, then mixtures.
    keys: (B, C) teacher's unit rows of the key views; with `lengths` as the teacher gives them.
    new_keys: (N, C) all ranks' keys, which the queue gets after it was read; None where it stays as it is. ids: (N)
    int64 of their images; exclude: (B, E) int64, images whose keys take no part. weights: V x M of the bag loss; mix:
    (B), where rows differ in their share of a mixture.
    """

    config: DistillConfig
    queries: list[Tensor]
    keys: list[Tensor]
    queue: KeyQueue
    new_keys: Tensor | None
    ids: Tensor
    exclude: Tensor | None = None
    weights: Tensor | None = None
    mix: Tensor | None = None
    own: Own | None = None

    @property
    def temperature(self) -> float:
        return self.config.contrast.temperature

    @property
    def target_temperature(self) -> float:
        """Of the teacher's softmax."""
        return self.config.target_temperature

    def options(self) -> Options:
        """What `bag_loss` is told: it writes the new keys itself."""
        return bag_options(self.config, self.queue, self.exclude, self.new_keys, self.ids)

    def reading(self) -> Reading:
        """What any pass over the queue is told."""
        return reading(self.config, self.queue, self.exclude)

    def by_softmaxes(self, function: Callable[..., Tensor]) -> Tensor:
        """A loss of one view and its key by both softmaxes over the queue, which then gets the new keys."""
        found = function(
            self.queries[0], self.keys[0], self.queue.keys_KC, self.temperature, self.target_temperature, self.reading()
        )
        self.write()
        return found

    def entry(self) -> NewKeys | None:
        return None if self.new_keys is None else self.queue.entry(self.new_keys, self.ids)

    def write(self) -> None:
        """Write the new keys behind the last reading, where no `bag_loss` does."""
        if (new := self.entry()) is not None:
            write_keys(self.queue.keys_KC, self.queue.ids_K, new)
        if self.own is not None and self.own.new is not None:
            queue = self.own.queue
            write_keys(queue.keys_KC, queue.ids_K, queue.entry(self.own.new, self.ids))


def reading(config: TrainingConfig, queue: KeyQueue, exclude: Tensor | None) -> Reading:
    """What any pass over a training's queue is told. exclude: (B, E) int64, images whose keys take no part."""
    return {
        "impl": config.runtime.impl,
        "unit_rows": True,  # the queue's: it holds normalised keys
        "exclude": exclude,
        "queue_ids": queue.ids_K,
    }


def bag_options(
    config: TrainingConfig, queue: KeyQueue, exclude: Tensor | None, new_NC: Tensor | None, ids: Tensor
) -> Options:
    """What `bag_loss` is told besides. new_NC: keys of all ranks in rank order, which the queue gets behind the last
    reading, with the ids (N) of their images; None for a queue that stays as it is."""
    new_keys = None if new_NC is None else queue.entry(new_NC, ids)
    return {**reading(config, queue, exclude), "normalize": True, "new_keys": new_keys}


class Softmaxes(NamedTuple):
    """Of a student's and a teacher's rows over the queue.

    s, t: (B, C) unit rows; lse_s, lse_t: (B) log-sum-exp; mean_t: (B, C) mean of the queue by the teacher's softmax.
    Gradients reach s and lse_s alone.
    """

    s: Tensor
    t: Tensor
    lse_s: Tensor
    lse_t: Tensor
    mean_t: Tensor


def softmaxes(
    q: Tensor, t: Tensor, queue: Tensor, temperature: float, target_temperature: float, options: Reading
) -> Softmaxes:
    """q: (B, C) raw queries; t: (B, C) teacher's unit rows; queue: (K, C). `UserError` for other shapes."""
    check_rows(q, t)
    s = unit(q, queue)
    t = t.to(s.dtype)
    lse_s = student_lse(s, queue, temperature, options)
    return Softmaxes(s, t, lse_s, *teacher_softmax(t, queue, target_temperature, options))


def unit(rows: Tensor, queue: Tensor) -> Tensor:
    """Rows of length one in the precision that the queue's sums have: fp64 for fp64, else fp32."""
    return F.normalize(rows.to(torch.promote_types(queue.dtype, torch.float32)), dim=1)


def student_lse(unit_RC: Tensor, queue: Tensor, temperature: float, options: Reading) -> Tensor:
    """Log-sum-exp (R) of unit rows over the queue, with its gradient."""
    return _softmax(unit_RC, queue, temperature, options)[0]


@torch.no_grad()
def teacher_softmax(
    keys_RC: Tensor, queue: Tensor, temperature: float, options: Reading, values: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A teacher's log-sum-exp (R) over the queue, and by its softmax the mean (R, C) of the queue, or of `values`."""
    return _softmax(keys_RC.to(unit_dtype(queue)), queue, temperature, options, values)


def unit_dtype(queue: Tensor) -> torch.dtype:
    return torch.promote_types(queue.dtype, torch.float32)


def _softmax(
    rows_RC: Tensor, queue: Tensor, temperature: float, options: Reading, values: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    try:
        if values is None:
            return queue_softmax(rows_RC, queue, temperature, **options)
        return queue_softmax(rows_RC, queue, temperature, values=values, **options)
    except ValueError as error:
        raise UserError(str(error)) from error


def dots(a_RC: Tensor, b_RC: Tensor) -> Tensor:
    """Inner product of each pair of rows (R)."""
    return (a_RC * b_RC).sum(dim=1)


def check_rows(*tensors: Tensor) -> None:
    """`UserError` unless all have one shape (B, C) with a row at least."""
    shapes: Sequence[tuple[int, ...]] = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise UserError(f"queries and keys of a step must share one shape (B, C), not {', '.join(map(str, shapes))}")
    if shapes[0][0] == 0:
        raise UserError("the batch is empty, so its mean loss is undefined; pass at least one row")
