"""What the host decides for a step, as tensors: the step itself is a function of them and of the weights.

`Feed` sends each number to the device by itself. `Buffers` copies it to where it was the step before, as a captured
step needs it, which reads the same memory at every replay.
Legend: B rows of a process's share, V student views, M keys of an image, N rows of the global batch, C channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bingo.config import TrainingConfig
from bingo.config_parts import Augmentation
from bingo.kernels.augment import cutmix, cutmix_on_device
from bingo.kernels.transfer import to_device
from bingo.kernels.view_params import ViewParams
from bingo.views.loader import Batch, augmenter
from bingo.views.plan import Plan

Box = tuple[int, int, int, int]
Make = Callable[[], Tensor]
"""Makes normalised views (B x 3 x H x W) where the step needs them."""
Mix = Callable[[Tensor, Tensor], Tensor]
"""CutMix of two batches of views, with a box that the host has drawn."""


class Part(NamedTuple):
    """Rows of a share that have a box of CutMix of their own."""

    rows: slice
    mix: Mix


@dataclass(frozen=True)
class Inputs:
    """One share of a step: nothing that changes from step to step reaches the losses in another way.

    views: per group, per crop. ids: (N) int64 of the step's anchors; exclude: (B, E) int64. weights: V x M of the loss;
    mix: (B), where rows differ in their share of the mixture. keys: cached ones of the share's groups, (B, C) each;
    new_keys: (N, C), cached ones that the step adds to the queue.
    """

    batch: Batch
    views: list[list[Make]]
    ids: Tensor
    exclude: Tensor | None = None
    weights: Tensor | None = None
    parts: Sequence[Part] = ()
    mix: Tensor | None = None
    keys: list[Tensor] = field(default_factory=list)
    new_keys: Tensor | None = None


class Feed:
    """Each number to the device by itself, and each operation as the host's knowledge makes it cheapest."""

    def __init__(self, config: Augmentation, dtype: torch.dtype, device: torch.device) -> None:
        self.config, self.dtype, self.device = config, dtype, device
        self.augment = augmenter(config, dtype)

    def array(self, name: str, value: np.ndarray) -> Tensor:
        """A host array on the device; name: unlike all others of a share."""
        return to_device(value, self.device)

    def tensor(self, name: str, value: Tensor) -> Tensor:
        """What is on the device already."""
        return value

    def view(self, name: str, crops: Tensor, params: ViewParams, config: Augmentation | None = None) -> Make:
        """Uint8 crops (B x H x W x 3) to views; config: of views of another size."""
        return partial(augmenter(config, self.dtype) if config else self.augment, crops, params)

    def mix(self, name: str, box: Box) -> Mix:
        return lambda a, b: cutmix(a, b, box)[0]


class Buffers(Feed):
    """The same numbers in memory that stays where it is; operations launch the same whatever the numbers are."""

    def __init__(self, config: Augmentation, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(config, dtype, device)
        self.kept: dict[str, Tensor] = {}

    def array(self, name: str, value: np.ndarray) -> Tensor:
        there = torch.from_numpy(np.ascontiguousarray(value))
        return self.tensor(name, there.pin_memory() if self.device.type == "cuda" else there)

    def tensor(self, name: str, value: Tensor) -> Tensor:
        """Copied behind all that has been asked of the device: a step before has read it by then."""
        if name not in self.kept:
            self.kept[name] = torch.empty_like(value, device=self.device)
        kept = self.kept[name]
        if (kept.shape, kept.dtype) != (value.shape, value.dtype):
            raise RuntimeError(f"{name} of a step is {tuple(value.shape)} {value.dtype}, not {tuple(kept.shape)}")
        return kept.copy_(value, non_blocking=True)

    def view(self, name: str, crops: Tensor, params: ViewParams, config: Augmentation | None = None) -> Make:
        """On a GPU a part of the step; on a CPU, where the host picks the rows of each operation, a buffer."""
        if self.device.type != "cuda":
            made = self.tensor(name, super().view(name, crops, params, config)())
            return lambda: made
        from bingo.kernels.triton_augment import augment_words, pack

        config = config or self.config
        taps = config.blur_kernel
        kept, words = self.tensor(name, crops), self.array(f"{name} words", pack(params, taps, config.blur))
        return partial(augment_words, kept, words, config.mean, config.std, taps, self.dtype, len(crops))

    def mix(self, name: str, box: Box) -> Mix:
        there = self.array(name, np.array(box))
        return lambda a, b: cutmix_on_device(a, b, there)


def shared_inputs(config: TrainingConfig, plan: Plan, batch: Batch, feed: Feed) -> Inputs:
    """What both methods need of a share: views, ids, and, if asked for, whose keys to leave out."""
    step = batch.plan
    views = [
        [
            feed.view(f"view {g}.{v}", crops, batch.params(g, v), plan.local.augment if small and plan.local else None)
            for v, (crops, small) in enumerate(zip(group, plan.small_views(g), strict=True))
        ]
        for g, group in enumerate(batch.crops)
    ]
    exclude = None
    if config.contrast.negatives == "strangers":
        exclude = feed.array("exclude", plan.relatives(step.groups[0]))
    return Inputs(batch, views, feed.array("ids", plan.anchors(step.epoch, step.step)), exclude)
