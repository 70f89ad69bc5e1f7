"""The plan of a training on labels: each chosen image once per epoch, one crop and a flip of it.

As in `bingo.views.plan` every number is a function of (seed, epoch, position): a run resumes at any step, and the
number of ranks changes no pixel. Unlike there an epoch's last step may have fewer images, as in the published scripts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from bingo.config_parts import Augmentation, Loader
from bingo.distributed import World, shard
from bingo.images.dataset import Dataset
from bingo.views.decode_failures import Failures
from bingo.views.loader import ONE_ROW_EACH, CropStream, Group
from bingo.views.plan import (
    LABELLED_ORDER,
    LABELLED_VIEW,
    VIEW_DRAWS,
    View,
    philox,
    random_resized_crop,
    uniforms,
    view_params,
)


def crops_and_flips(augment: Augmentation, scale: tuple[float, float], flip_p: float) -> Augmentation:
    """An augmentation of crops and flips alone, of images that are seen (size, mean, deviation) as `augment` says."""
    return replace(augment, scale=scale, flip_p=flip_p, jitter_p=0.0, grey_p=0.0, blur_p=0.0)


class Share(NamedTuple):
    """One rank's part of a step: images (int64) and their views, of which the first `rows` count, among `total`.

    A rank that no image is left for gets one that does not count.
    """

    rank: int
    images: np.ndarray
    view: View
    rows: int
    total: int


@dataclass(frozen=True)
class LabelPlan:
    """The plan of a whole run.

    sizes: N x 2 int32 (height, width) of all images; images: int64, those that are trained on; batch: global; whole:
    the images that fill no step are an epoch's last one, otherwise they are left out, others in each epoch.
    """

    sizes: np.ndarray
    images: np.ndarray
    batch: int
    augment: Augmentation
    seed: int
    whole: bool = True

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.images) / self.batch) if self.whole else len(self.images) // self.batch

    @cached_property
    def _orders(self) -> dict[int, np.ndarray]:
        return {}

    def order(self, epoch: int) -> np.ndarray:
        """The images in the order of an epoch (int64); the last one is kept."""
        if epoch not in self._orders:
            self._orders.clear()
            bits = philox(self.seed, epoch, LABELLED_ORDER)
            self._orders[epoch] = self.images[np.random.Generator(bits).permutation(len(self.images))]
        return self._orders[epoch]

    def share(self, global_step: int, rank: int, ranks: int) -> Share:
        """A rank's part of a step: contiguous in the global batch, equal parts but for one image."""
        epoch, step = divmod(global_step, self.steps_per_epoch)
        first = step * self.batch
        total = min(self.batch, len(self.images) - first)
        low, high = shard(total, rank, ranks)
        rows = high - low
        low = min(low, total - 1)
        images = self.order(epoch)[first + low : first + low + max(rows, 1)]
        u = uniforms(self.seed, epoch, LABELLED_VIEW, first + low, len(images), VIEW_DRAWS)
        start, end = random_resized_crop(u[:, :22], self.sizes[images], self.augment.scale)
        return Share(rank, images, View(start, end, view_params(u[:, 22:], self.augment)), rows, total)


def labelled_batches(
    dataset: Dataset, plan: LabelPlan, world: World, *, start: int, stop: int, settings: Loader
) -> Iterator[tuple[Share, torch.Tensor]]:
    """Shares and their uint8 crops (B x size x size x 3) of the global steps start .. stop of this process.

    Of each rank that it plays, in turn. An image that cannot be decoded stops the run, as in every evaluation.
    """
    shares: dict[int, Share] = {}

    def request(number: int) -> list[Group]:
        after, played = divmod(number, world.shares)
        share = shares[number] = plan.share(start + after, world.first_share + played, world.ranks)
        return [(share.images, [(share.view.start, share.view.end)])]

    stream = CropStream(
        dataset,
        request,
        (stop - start) * world.shares,
        [[plan.augment.size]],
        Failures(dataset, remedy=ONE_ROW_EACH),
        batch=math.ceil(min(plan.batch, len(plan.images)) / world.ranks),
        device=world.device,
        threads=world.threads,
        settings=settings,
        whole_pixels=True,
    )
    for number, (crops,) in enumerate(stream):
        yield shares.pop(number), crops
