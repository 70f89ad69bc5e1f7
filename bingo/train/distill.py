"""BINGO: views of an image, of a bag mate and of their mixture against the frozen teacher's keys."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from bingo.bags.file import load_bags
from bingo.config import DistillConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.alike import engine_same, load_same
from bingo.features.keys import CachedKeys, load_keys
from bingo.images.dataset import Dataset
from bingo.kernels.augment import share_left
from bingo.kernels.transfer import to_device
from bingo.models import Encoder, autocast, check_name, seeded_encoder
from bingo.models.arithmetic import precision_of, queue_dtype_of
from bingo.train.arithmetic import settled
from bingo.train.block_norm import keys_in_blocks, use_batch_statistics
from bingo.train.inputs import Feed, Inputs, Part, shared_inputs
from bingo.train.loop import check_run, open_data, resume, train, wrap
from bingo.train.loss import contrast_measures, paper_loss, release_weights, weighted_release_loss
from bingo.train.options import step_options
from bingo.train.queue import KeyQueue
from bingo.train.shares import Gather, PendingKeys, Result
from bingo.train.spans import span
from bingo.train.telemetry import Work
from bingo.views.loader import Batch, view_dtype
from bingo.views.plan import Plan, StepPlan


def _nothing() -> None:
    """A queue that stays as it is."""


class Bingo:
    """Student in DDP; teacher and queue outside it; one key gather per step, overlapped with the student.

    Only the anchors' keys enter the queue, after the loss has read it, as in the release. With cached keys there is
    neither a teacher nor a gather: every rank reads the keys of the whole batch.
    """

    averages_statistics = False

    def __init__(self, config: DistillConfig, source: Encoder | CachedKeys, plan: Plan, world: World) -> None:
        self.cache = None if isinstance(source, Encoder) else source
        # Its shapes as it came: an engine's weights may be of another format, or compiled, and tell no FLOPs.
        self._as_given = copy.deepcopy(source).to("meta") if isinstance(source, Encoder) else None
        self.teacher = frozen_teacher(config, source, world) if isinstance(source, Encoder) else None
        if self.teacher is not None:  # what became of it: a compiler may have failed
            config = replace(config, runtime=replace(config.runtime, engine=self.teacher.engine))
        self.keys_from = source if self.teacher is None else self.teacher
        self.config, self.plan, self.world = config, plan, world
        contrast, precision = config.contrast, precision_of(config.runtime, world.device)
        self.encoder = seeded_encoder(config.student, dim=source.dim, hidden=contrast.hidden, seed=config.seed).to(
            world.device
        )
        self.positives = 1 if config.objective == "paper" else 2
        self.mixes = config.cutmix and config.objective == "release"
        self.model = wrap(self.encoder, config, world, views=2 + self.mixes, joint=config.view_norm == "joint")
        self.guess = math.log(contrast.queue + 1) * (2 if config.objective == "paper" else 1)
        self.queue = KeyQueue(
            contrast.queue,
            source.dim,
            dtype=queue_dtype_of(contrast, precision),
            device=world.device,
            seed=config.seed,
        )
        self._negatives_of: int | None = None  # the epoch whose cached negatives are in the queue
        self.feed = Feed(config.augment, view_dtype(config.runtime, world.device), world.device)
        self.augment = self.feed.augment
        self.gather: Gather = world.gather_rows
        blocks = self.teacher is not None and config.teacher_bn == "batch"
        self.uncaptured = "--teacher-bn batch shuffles images as the host says" if blocks else ""

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def work(self) -> Work:
        student = [(self.encoder, 3 * (2 + self.mixes))]
        keys = 1 if self.config.objective == "paper" else 2
        return student if self._as_given is None else [*student, (self._as_given, keys)]

    def prepare(self, shares: Sequence[Batch], feed: Feed) -> list[Inputs]:
        cached, new = self._cached_keys(self.cache, [batch.plan for batch in shares]) if self.cache else ([], None)
        new = None if new is None else feed.tensor("new keys", new)
        found = []
        for number, batch in enumerate(shares):
            inputs = shared_inputs(self.config, self.plan, batch, feed)
            keys = [feed.tensor(f"keys {group}", rows) for group, rows in enumerate(cached[number])] if cached else []
            found.append(replace(inputs, keys=keys, new_keys=new, **self._weights(batch.plan, feed)))
        return found

    def _weights(self, step: StepPlan, feed: Feed) -> dict[str, Any]:
        """What the release objective needs besides: the boxes of CutMix and the weights of the loss."""
        if self.config.objective == "paper":
            return {}
        parts, left = self._boxes(step, feed) if self.mixes else ([], [])
        rows = np.array(left, np.float32) if len(parts) > 1 else None
        mix = torch.from_numpy(rows) if rows is not None else left[0] if left else None
        weights = release_weights((1.0, 0.0) if step.epoch < self.config.warm_epochs else (0.5, 0.5), mix)
        return {
            "parts": parts,
            "mix": None if rows is None else feed.array("mix", rows),
            "weights": feed.array("weights", np.array(weights, np.float32)),
        }

    def _boxes(self, step: StepPlan, feed: Feed) -> tuple[list[Part], list[float]]:
        """Of each block of rows that has a box of CutMix; and the share of pixels that is still the anchor's, per row
        where there are several boxes."""
        rows, block, size = len(step.groups[0]), self.config.cutmix_block or self.plan.batch, self.config.augment.size
        first = step.rank * rows
        parts, shares = [], []
        for number in range(first // block, (first + rows - 1) // block + 1):
            part = slice(max(number * block - first, 0), min((number + 1) * block - first, rows))
            box = self.plan.cutmix_box(step.epoch, step.step, number)
            parts.append(Part(part, feed.mix(f"box {number - first // block}", box)))
            shares += [share_left(box, size, size)] * (part.stop - part.start)
        return parts, shares

    def losses(self, shares: Sequence[Batch], *, measure: bool = False) -> Iterator[Result]:
        with span("augment"):
            prepared = self.prepare(shares, self.feed)
        return self.losses_of(prepared, measure=measure)

    def losses_of(self, shares: Sequence[Inputs], *, measure: bool = False) -> Iterator[Result]:
        # Per group the query view comes first and the key view last: the same one when key_view="same".
        with span("augment"):
            views = [[[make() for make in group] for group in share.views] for share in shares]
        with span("teacher"):
            keys, pending = self._keys_of(shares, views)
        for share, (anchor, positive), own in zip(shares, views, keys, strict=True):
            awaited = pending if share is shares[-1] else _nothing
            with span("loss"):  # the student's forward pass, named inside, does not count as the loss
                result = self._loss(share, anchor[0], positive[0], own, awaited, measure)
            yield result

    def _loss(
        self,
        share: Inputs,
        anchor: torch.Tensor,
        positive: torch.Tensor,
        keys: list[torch.Tensor],
        pending: PendingKeys,
        measure: bool,
    ) -> Result:
        """One share; `pending` is waited for after the student's forward pass, and then written into the queue."""
        temperature, keys_KC = self.config.contrast.temperature, self.queue.keys_KC
        queries: list[torch.Tensor] = [anchor, positive]
        if self.mixes:
            mixed = [part.mix(anchor[part.rows], positive[part.rows]) for part in share.parts]
            queries.append(mixed[0] if len(mixed) == 1 else torch.cat(mixed))
        with span("student forward"):
            found = self._queries_of(*queries)
        options = step_options(self.config, self.queue, share, pending())
        measures = contrast_measures(found[0], keys[0], keys_KC, **options) if measure else None
        if self.config.objective == "paper":
            return paper_loss(found[0], found[1], keys[0], keys_KC, temperature, **options), measures
        assert share.weights is not None
        loss = weighted_release_loss(found, keys[:2], share.weights, share.mix, keys_KC, temperature, **options)
        return loss, measures

    @torch.no_grad()
    def _keys_of(
        self, shares: Sequence[Inputs], views: list[list[list[torch.Tensor]]]
    ) -> tuple[list[list[torch.Tensor]], PendingKeys]:
        """Keys of each share's key views, and what waits for those that are new to the queue: of all ranks' anchors.

        From the teacher in one forward pass per share, the anchors' being sent to the other ranks meanwhile; or other
        views of the same images, from the cache.
        """
        if self.teacher is None:
            return [share.keys for share in shares], lambda: shares[-1].new_keys
        count = self.positives
        if self.config.teacher_bn == "batch":
            return self._keys_in_blocks(self.teacher, [share.batch.plan for share in shares], views, count)
        with autocast(self.config.runtime, self.world.device):
            keys = [list(self.teacher(torch.cat([g[-1] for g in v[:count]])).chunk(count)) for v in views]
        return keys, self.gather(torch.cat([anchor for anchor, *_ in keys]))

    def _keys_in_blocks(
        self, teacher: Encoder, steps: Sequence[StepPlan], views: list[list[list[torch.Tensor]]], count: int
    ) -> tuple[list[list[torch.Tensor]], PendingKeys]:
        """As `_keys_of`, batch norm over blocks of the global batch: anchors and positives shuffled apart."""
        epoch, step, rows = steps[0].epoch, steps[0].step, len(steps[0].groups[0])
        keys = [
            keys_in_blocks(
                teacher, torch.cat([share[group][-1] for share in views]), self.plan.shuffled(epoch, step, group),
                self.config.runtime, self.world,
            )
            for group in range(count)
        ]  # fmt: skip
        return [[found[s.rank * rows :][:rows] for found in keys] for s in steps], lambda: keys[0]

    def _cached_keys(
        self, cache: CachedKeys, steps: Sequence[StepPlan]
    ) -> tuple[list[list[torch.Tensor]], torch.Tensor | None]:
        """Keys of each share's anchors and, if they count, positives; new to the queue: those of all ranks' anchors."""
        epoch, step, rows, count = steps[0].epoch, steps[0].step, len(steps[0].groups[0]), self.positives
        views_N2 = self.plan.cached_views(epoch, step, cache.views)
        # The shares' groups may hold stand-ins for bad images, which no other rank knows of: they are read apart.
        images = [group for share in steps for group in share.groups[:count]]
        views = [views_N2[s.rank * rows :][:rows, group] for s in steps for group in range(count)]
        from_cache = self.config.cached_negatives == "cache"
        if not from_cache:
            images, views = [*images, self.plan.anchors(epoch, step)], [*views, views_N2[:, 0]]
        keys = cache.read(np.concatenate(images), np.concatenate(views)).split([len(part) for part in images])
        if from_cache:
            self._draw_negatives(cache, epoch)
        own = [list(keys[place : place + count]) for place in range(0, count * len(steps), count)]
        return own, None if from_cache else keys[-1]

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


def frozen_teacher(config: DistillConfig, teacher: Encoder, world: World) -> Encoder:
    """The teacher on the device as it makes a step's keys: an engine, or with statistics of the batch as it is."""
    teacher.to(world.device).eval().requires_grad_(False)
    if config.runtime.channels_last:
        teacher.to(memory_format=torch.channels_last)
    if config.teacher_bn == "batch":
        use_batch_statistics(teacher, "--teacher-bn batch")
        return teacher
    views = 1 if config.objective == "paper" else 2
    return engine_same(
        teacher,
        config.runtime,
        world,
        rows=views * config.optim.batch // world.ranks,
        size=config.augment.size,
        dtype=view_dtype(config.runtime, world.device),
    )


def view_counts(config: DistillConfig) -> tuple[int, int]:
    """Crops per decoded anchor and per decoded positive."""
    if config.keys is not None or config.key_view == "same":
        return 1, 1
    return (2, 1) if config.objective == "paper" else (2, 2)


def run(config: DistillConfig, key: str, world: World) -> dict[str, Any]:
    """Distil or resume; writes `model.pt`, `metrics.jsonl` and `checkpoints/` in `config.out`."""
    check_name(config.student)
    dataset, val = open_data(config, world)
    state, world = resume(config, key, world)
    world.together(lambda: check_run(config, dataset, world))
    source, teacher_hash = key_source(config, dataset, world)
    if config.contrast.dim != source.dim:
        raise UserError(
            f"contrast.dim={config.contrast.dim} but {config.keys or f'the teacher {config.teacher}'} has "
            f"{source.dim}-d keys; set --contrast.dim {source.dim}"
        )
    path = config.bags / "bags.npz" if config.bags.is_dir() else config.bags
    bags = world.together(
        lambda: load_bags(path, dataset_hash=dataset.hash, teacher_hash=teacher_hash),
        lambda found: {f"the content of {path}": found.hash},
    )
    plan = Plan(
        dataset.sizes, config.optim.batch, config.augment, config.seed, views=view_counts(config), bags=bags.members
    )
    config = world.by_main(lambda: settled(config, world.device, config.optim.epochs * plan.steps_per_epoch, state))
    method = Bingo(config, source, plan, world)
    return train(method.config, key, (dataset, val), plan, method, world, state)


def key_source(config: DistillConfig, dataset: Dataset, world: World) -> tuple[Encoder | CachedKeys, str]:
    """The teacher, or the cache that stands for it, and the content hash of the teacher's weights."""
    if config.keys is not None:
        cache = load_keys(config.keys, dataset, config.augment, world)
        return cache, cache.teacher
    assert config.teacher is not None
    return load_same(config.teacher, config.augment.size, world, head=True, arch=config.arch)
