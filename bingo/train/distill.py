"""BINGO: views of an image, of a bag mate and of their mixture against the frozen teacher's keys."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from bingo.bags.file import load_bags
from bingo.config import DistillConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.keys import CachedKeys, load_keys
from bingo.images.dataset import Dataset
from bingo.images.open import open_images
from bingo.kernels.augment import cutmix
from bingo.kernels.transfer import to_device
from bingo.models import Encoder, autocast, check_alive, check_name, load_encoder, seeded_encoder
from bingo.train.loop import check_run, resume, train, wrap
from bingo.train.loss import contrast_measures, paper_loss, release_loss
from bingo.train.options import step_options
from bingo.train.queue import KeyQueue
from bingo.train.shares import Result
from bingo.views.loader import Batch, augmenter, view_dtype
from bingo.views.plan import Plan, StepPlan

PendingKeys = Callable[[], torch.Tensor | None]
"""Waits for the keys (N, C) of all ranks that a step adds to the queue; None for a queue that stays as it is."""


def _nothing() -> None:
    """A queue that stays as it is."""


class Bingo:
    """Student in DDP; teacher and queue outside it; one key gather per step, overlapped with the student.

    Only the anchors' keys enter the queue, after the loss has read it, as in the release. With cached keys there is
    neither a teacher nor a gather: every rank reads the keys of the whole batch.
    """

    averages_statistics = False

    def __init__(self, config: DistillConfig, source: Encoder | CachedKeys, plan: Plan, world: World) -> None:
        self.config, self.plan, self.world = config, plan, world
        contrast = config.contrast
        self.teacher = source if isinstance(source, Encoder) else None
        self.cache = None if isinstance(source, Encoder) else source
        if self.teacher is not None:
            self.teacher.to(world.device).eval().requires_grad_(False)
            if config.runtime.channels_last:
                self.teacher.to(memory_format=torch.channels_last)
        self.encoder = seeded_encoder(config.student, dim=source.dim, hidden=contrast.hidden, seed=config.seed).to(
            world.device
        )
        self.mixes = config.cutmix and config.objective == "release"
        self.model = wrap(self.encoder, config, world, views=2 + self.mixes, joint=config.view_norm == "joint")
        self.guess = math.log(contrast.queue + 1) * (2 if config.objective == "paper" else 1)
        self.queue = KeyQueue(
            contrast.queue, source.dim, dtype=contrast.queue_dtype, device=world.device, seed=config.seed
        )
        self._negatives_of: int | None = None  # the epoch whose cached negatives are in the queue
        self.augment = augmenter(config.augment, view_dtype(config.runtime, world.device))

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def losses(self, shares: Sequence[Batch], *, measure: bool = False) -> Iterator[Result]:
        # Per group the query view comes first and the key view last: the same one when key_view="same".
        views = [
            [[self.augment(crop, b.params(g, v)) for v, crop in enumerate(crops)] for g, crops in enumerate(b.crops)]
            for b in shares
        ]
        keys, pending = self._keys_of(shares, views)
        for batch, (anchor, positive), own in zip(shares, views, keys, strict=True):
            awaited = pending if batch is shares[-1] else _nothing
            yield self._loss(batch, anchor[0], positive[0], own, awaited, measure)

    def _loss(
        self,
        batch: Batch,
        anchor: torch.Tensor,
        positive: torch.Tensor,
        keys: list[torch.Tensor],
        pending: PendingKeys,
        measure: bool,
    ) -> Result:
        """One share; `pending` is waited for after the student's forward pass, and then written into the queue."""
        temperature, keys_KC = self.config.contrast.temperature, self.queue.keys_KC
        k_anchor, *k_positive = keys
        queries, share = [anchor, positive], None
        if self.mixes:
            box = self.plan.cutmix_box(batch.plan.epoch, batch.plan.step)
            mixed, share = cutmix(anchor, positive, box)
            queries.append(mixed)
        q_anchor, q_positive, *q_mixed = self._queries_of(*queries)
        options = step_options(self.config, self.queue, self.plan, batch, pending())
        measures = contrast_measures(q_anchor, k_anchor, keys_KC, **options) if measure else None
        if self.config.objective == "paper":
            return paper_loss(q_anchor, q_positive, k_anchor, keys_KC, temperature, **options), measures
        loss = release_loss(
            q_anchor,
            q_positive,
            q_mixed[0] if q_mixed else None,
            k_anchor,
            k_positive[0],
            keys_KC,
            temperature,
            lambdas=(1.0, 0.0) if batch.plan.epoch < self.config.warm_epochs else (0.5, 0.5),
            mix=share,
            **options,
        )
        return loss, measures

    @torch.no_grad()
    def _keys_of(
        self, shares: Sequence[Batch], views: list[list[list[torch.Tensor]]]
    ) -> tuple[list[list[torch.Tensor]], PendingKeys]:
        """Keys of each share's key views, and what waits for those that are new to the queue: of all ranks' anchors.

        From the teacher in one forward pass per share, the anchors' being sent to the other ranks meanwhile; or other
        views of the same images, from the cache.
        """
        count = 1 if self.config.objective == "paper" else 2
        if self.teacher is None:
            return self._cached_keys([batch.plan for batch in shares], count)
        with autocast(self.config.runtime, self.world.device):
            keys = [list(self.teacher(torch.cat([g[-1] for g in v[:count]])).chunk(count)) for v in views]
        return keys, self.world.gather_rows(torch.cat([anchor for anchor, *_ in keys]))

    def _cached_keys(self, steps: Sequence[StepPlan], count: int) -> tuple[list[list[torch.Tensor]], PendingKeys]:
        """Keys of each share's anchors and, if count is 2, positives; new to the queue: those of all ranks' anchors."""
        assert self.cache is not None
        epoch, step, rows = steps[0].epoch, steps[0].step, len(steps[0].groups[0])
        views_N2 = self.plan.cached_views(epoch, step, self.cache.views)
        # The shares' groups may hold stand-ins for bad images, which no other rank knows of: they are read apart.
        images = [group for share in steps for group in share.groups[:count]]
        views = [views_N2[s.rank * rows :][:rows, group] for s in steps for group in range(count)]
        from_cache = self.config.cached_negatives == "cache"
        if not from_cache:
            images, views = [*images, self.plan.anchors(epoch, step)], [*views, views_N2[:, 0]]
        keys = self.cache.read(np.concatenate(images), np.concatenate(views)).split([len(part) for part in images])
        if from_cache:
            self._draw_negatives(self.cache, epoch)
        own = [list(keys[place : place + count]) for place in range(0, count * len(steps), count)]
        return own, _nothing if from_cache else lambda: keys[-1]

    def _draw_negatives(self, cache: CachedKeys, epoch: int) -> None:
        """Fill the queue with the epoch's negatives, once."""
        if self._negatives_of != epoch:
            images, views = self.plan.cached_negatives(epoch, len(self.queue.ids_K), cache.views)
            self.queue.fill(cache.read(images, views), to_device(images, self.world.device))
            self._negatives_of = epoch

    def _queries_of(self, *views: torch.Tensor) -> list[torch.Tensor]:
        with autocast(self.config.runtime, self.world.device):
            return self.model(*views)

    def after_step(self) -> None:
        """Nothing is left to do: the loss has written the queue, and the teacher is frozen."""


def view_counts(config: DistillConfig) -> tuple[int, int]:
    """Crops per decoded anchor and per decoded positive."""
    if config.keys is not None or config.key_view == "same":
        return 1, 1
    return (2, 1) if config.objective == "paper" else (2, 2)


def run(config: DistillConfig, key: str, world: World) -> dict[str, Any]:
    """Distil or resume; writes `model.pt`, `metrics.jsonl` and `checkpoints/` in `config.out`."""
    check_name(config.student)
    dataset = open_images(config.data, config.loader, tell=world.main)
    state, world = resume(config, key, world)
    check_run(config, dataset, world)
    source, teacher_hash = key_source(config, dataset, world)
    if config.contrast.dim != source.dim:
        raise UserError(
            f"contrast.dim={config.contrast.dim} but {config.keys or f'the teacher {config.teacher}'} has "
            f"{source.dim}-d keys; set --contrast.dim {source.dim}"
        )
    path = config.bags / "bags.npz" if config.bags.is_dir() else config.bags
    bags = load_bags(path, dataset_hash=dataset.hash, teacher_hash=teacher_hash)
    plan = Plan(
        dataset.sizes, config.optim.batch, config.augment, config.seed, views=view_counts(config), bags=bags.members
    )
    return train(config, key, dataset, plan, Bingo(config, source, plan, world), world, state)


def key_source(config: DistillConfig, dataset: Dataset, world: World) -> tuple[Encoder | CachedKeys, str]:
    """The teacher, or the cache that stands for it, and the content hash of the teacher's weights."""
    if config.keys is not None:
        cache = load_keys(config.keys, dataset, config.augment, world)
        return cache, cache.teacher
    assert config.teacher is not None
    teacher, content = load_encoder(config.teacher)
    check_alive(teacher.to(world.device), config.teacher, config.augment.size, head=True)
    return teacher, content
