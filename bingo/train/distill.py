"""Distillation: views of an image, by BINGO of a bag mate and their mixture too, against a frozen teacher's keys."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
from bingo.losses import loss_of
from bingo.losses.bag import contrast_measures, release_weights
from bingo.losses.queue import KeyQueue
from bingo.losses.step import Own, Step
from bingo.models import Encoder, autocast, check_name, seeded_encoder
from bingo.models.arithmetic import precision_of, queue_dtype_of
from bingo.objectives import local_share
from bingo.train.arithmetic import settled
from bingo.train.averages import average_of, follow, share_statistics
from bingo.train.block_norm import keys_in_blocks, use_batch_statistics
from bingo.train.inputs import Feed, Inputs, Part, shared_inputs
from bingo.train.loop import check_run, open_data, resume, train, wrap
from bingo.train.shares import Gather, PendingKeys, Result
from bingo.train.spans import span
from bingo.train.telemetry import Work
from bingo.views.loader import Batch, view_dtype
from bingo.views.plan import Local, Plan, Replay, StepPlan

MOMENTUM = 0.999
"""Share that a step keeps of a momentum student, as published for DisCo and MoCo-v2."""


def _nothing() -> None:
    """A queue that stays as it is."""


class Distillation:
    """Student in DDP; teacher and queue outside it; one key gather per step, overlapped with the student.

    Only the anchors' keys enter the queue, after the loss has read it, as in the release. With cached keys there is
    neither a teacher nor a gather: every rank reads the keys of the whole batch.
    """

    def __init__(self, config: DistillConfig, source: Encoder | CachedKeys, plan: Plan, world: World) -> None:
        self.cache = None if isinstance(source, Encoder) else source
        # Its shapes as it came: an engine's weights may be of another format, or compiled, and tell no FLOPs.
        self._as_given = copy.deepcopy(source).to("meta") if isinstance(source, Encoder) else None
        self.teacher = frozen_teacher(config, source, world) if isinstance(source, Encoder) else None
        if self.teacher is not None:  # what became of it: a compiler may have failed
            config = replace(config, runtime=replace(config.runtime, engine=self.teacher.engine))
        self.keys_from = source if self.teacher is None else self.teacher
        self.config, self.plan, self.world, self.row = config, plan, world, config.method
        contrast, row = config.contrast, self.row
        self.encoder = seeded_encoder(
            config.student, dim=source.dim, hidden=contrast.hidden, seed=config.seed, layers=contrast.layers
        ).to(world.device)
        self.mixes = row.mixes and config.cutmix
        self.passes = row.passes(mixes=config.cutmix) + config.local_crops
        self.model = wrap(self.encoder, config, world, views=self.passes, joint=config.view_norm == "joint")
        self.guess = row.guesses * math.log(contrast.queue + 1) if row.guess == "queue" else None
        self.queue = self._queue(source.dim)
        self.own_queue = self._queue(source.dim) if row.own_queue else None
        self.momentum = average_of(self.encoder) if row.own_queue == "momentum" else None
        self.averages_statistics = self.momentum is not None  # it uses them: they must agree between ranks
        self.saved = average_of(self.encoder) if config.student_ema else self.encoder
        self._negatives_of: int | None = None  # the epoch whose cached negatives are in the queue
        self.feed = Feed(config.augment, view_dtype(config.runtime, world.device), world.device)
        self.augment = self.feed.augment
        self.gather: Gather = world.gather_rows
        self._own_rows: list[torch.Tensor] = []
        self._loss_of = loss_of(config.objective)
        self.uncaptured = ""
        if self.teacher is not None and config.teacher_bn == "batch":
            self.uncaptured = "--teacher-bn batch shuffles images as the host says"
        elif row.own_queue:
            self.uncaptured = f"--objective {config.objective} fills a second queue"

    def _queue(self, dim: int) -> KeyQueue:
        contrast, device = self.config.contrast, self.world.device
        dtype = queue_dtype_of(contrast, precision_of(self.config.runtime, device))
        return KeyQueue(contrast.queue, dim, dtype=dtype, device=device, seed=self.config.seed)

    def modules(self) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {"encoder": self.encoder}
        if self.momentum is not None:
            found["momentum"] = self.momentum
        if self.saved is not self.encoder:
            found["average"] = self.saved
        return found

    def work(self) -> Work:
        config = self.config
        local = local_share(config.local_crops, config.local_size, config.augment.size)
        views = self.passes - config.local_crops + local
        student = [(self.encoder, 3 * views), *([] if self.momentum is None else [(self.momentum, 1)])]
        return student if self._as_given is None else [*student, (self._as_given, self.row.keys)]

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
        if not self.row.mixes:
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
        # Per group the query view comes first and the key view last: the same one when they share a view.
        with span("augment"):
            views = [[[make() for make in group] for group in share.views] for share in shares]
        with span("teacher"):
            keys, pending = self._keys_of(shares, views)
            own_keys, own_pending = self._momentum_keys_of(views)
        for number, share in enumerate(shares):
            last = share is shares[-1]
            with span("loss"):  # the student's forward pass, named inside, does not count as the loss
                queries, of_step = self._queries_of(share, views[number]), keys[number]
                first = queries[0]
                if self.config.local_crops:  # each view against the image's own key, all in one call
                    of_step, queries = [key.repeat(len(queries), 1) for key in of_step], [torch.cat(queries)]
                own = self._own(own_keys[number] if own_keys else None, first, own_pending, last=last)
                new = pending() if last else None
                unit = F.normalize(keys[number][0], dim=1) if self.row.lengths else keys[number][0]
                step = Step(
                    self.config, queries, of_step, self.queue, new, share.ids, share.exclude, share.weights,
                    share.mix, own,
                )  # fmt: skip
                measures = contrast_measures(first, unit, self.queue.keys_KC, **step.reading()) if measure else None
                result = self._loss_of(step), measures
            yield result

    def _queries_of(self, share: Inputs, views: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """Raw queries of the student's views of a share."""
        seen = views[0][: self.row.views]
        if self.config.local_crops:
            seen = [*seen, *views[0][self.plan.views[0] :]]
        if self.row.bags:
            seen = [seen[0], views[1][0]]
        if self.mixes:
            mixed = [part.mix(seen[0][part.rows], seen[1][part.rows]) for part in share.parts]
            seen = [*seen, mixed[0] if len(mixed) == 1 else torch.cat(mixed)]
        with span("student forward"), autocast(self.config.runtime, self.world.device):
            found: list[torch.Tensor] = self.model(*seen)
        return found

    @torch.no_grad()
    def _momentum_keys_of(self, views: list[list[list[torch.Tensor]]]) -> tuple[list[torch.Tensor], PendingKeys]:
        """The momentum student's keys of the shares' second views, and what waits for those of all ranks."""
        if self.momentum is None:
            return [], _nothing
        with autocast(self.config.runtime, self.world.device):
            keys = [self.momentum(share[0][1]) for share in views]
        return keys, self.gather(torch.cat(keys))

    @torch.no_grad()
    def _own(self, keys: torch.Tensor | None, queries: torch.Tensor, pending: PendingKeys, *, last: bool) -> Own | None:
        """The second queue and, with the last share, what it gets."""
        if self.own_queue is None:
            return None
        if self.momentum is None:  # the student's own rows: known only now, so nothing hides their way
            self._own_rows.append(F.normalize(queries.detach(), dim=1))
            pending = self.gather(torch.cat(self._own_rows)) if last else _nothing
            self._own_rows = [] if last else self._own_rows
        return Own(self.own_queue, keys, pending() if last else None)

    @torch.no_grad()
    def _keys_of(
        self, shares: Sequence[Inputs], views: list[list[list[torch.Tensor]]]
    ) -> tuple[list[list[torch.Tensor]], PendingKeys]:
        """Keys of each share's key views, and what waits for those that are new to the queue: of all ranks' anchors.

        From the teacher in one forward pass per share, the anchors' being sent to the other ranks meanwhile; or of
        views of the same images, from the cache.
        """
        if self.teacher is None:
            return [share.keys for share in shares], lambda: shares[-1].new_keys
        count, seen = self.row.keys, [self._key_views(share) for share in views]
        if self.config.teacher_bn == "batch":
            return self._keys_in_blocks(self.teacher, [share.batch.plan for share in shares], seen)
        with autocast(self.config.runtime, self.world.device):
            keys = [list(self.teacher(torch.cat(share), lengths=self.row.lengths).chunk(count)) for share in seen]
        anchors = torch.cat([anchor for anchor, *_ in keys])
        # The queue holds unit rows: made before they travel, since a captured step gathers what is sent here.
        return keys, self.gather(F.normalize(anchors, dim=1) if self.row.lengths else anchors)

    def _key_views(self, views: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """The views that the teacher sees of a share: of its groups, or of the anchors' two views."""
        if self.row.views == 1:
            counts = self.plan.views[: self.row.keys]
            return [group[count - 1] for group, count in zip(views, counts, strict=False)]
        return views[0] if self.config.same_view else views[0][::-1]

    def _keys_in_blocks(
        self, teacher: Encoder, steps: Sequence[StepPlan], seen: list[list[torch.Tensor]]
    ) -> tuple[list[list[torch.Tensor]], PendingKeys]:
        """As `_keys_of`, batch norm over blocks of the global batch: each of a step's key views shuffled apart."""
        epoch, step, rows = steps[0].epoch, steps[0].step, len(steps[0].groups[0])
        keys = [
            keys_in_blocks(
                teacher, torch.cat([share[group] for share in seen]), self.plan.shuffled(epoch, step, group),
                self.config.runtime, self.world,
            )
            for group in range(self.row.keys)
        ]  # fmt: skip
        return [[found[s.rank * rows :][:rows] for found in keys] for s in steps], lambda: keys[0]

    def _cached_keys(
        self, cache: CachedKeys, steps: Sequence[StepPlan]
    ) -> tuple[list[list[torch.Tensor]], torch.Tensor | None]:
        """Keys of each share's key views; new to the queue: those of all ranks' anchors."""
        epoch, step, rows, count = steps[0].epoch, steps[0].step, len(steps[0].groups[0]), self.row.keys
        views_N2 = self.plan.cached_views(epoch, step, cache.views, apart=self.row.views == 2)
        # The shares' groups may hold stand-ins for bad images, which no other rank knows of: they are read apart.
        images = [share.groups[key if self.row.bags else 0] for share in steps for key in range(count)]
        views = [views_N2[s.rank * rows :][:rows, key] for s in steps for key in range(count)]
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

    def after_step(self) -> None:
        """The averages follow; the loss has written the queue, and the teacher is frozen."""
        if self.momentum is not None:
            share_statistics(self.encoder, self.world)
            follow(self.momentum, self.encoder, MOMENTUM)
        if self.saved is not self.encoder:
            follow(self.saved, self.encoder, self.config.student_ema)


def frozen_teacher(config: DistillConfig, teacher: Encoder, world: World) -> Encoder:
    """The teacher on the device as it makes a step's keys: an engine, or with statistics of the batch as it is."""
    teacher.to(world.device).eval().requires_grad_(False)
    if config.runtime.channels_last:
        teacher.to(memory_format=torch.channels_last)
    if config.teacher_bn == "batch":
        use_batch_statistics(teacher, "--teacher-bn batch")
        return teacher
    return engine_same(
        teacher,
        config.runtime,
        world,
        rows=config.method.keys * config.optim.batch // world.ranks,
        size=config.augment.size,
        dtype=view_dtype(config.runtime, world.device),
    )


def view_counts(config: DistillConfig) -> tuple[int, ...]:
    """Crops per decoded anchor and, of an objective with bags, per decoded positive."""
    row, alone = config.method, config.keys is not None or config.same_view
    if not row.bags:
        return (row.views if alone else max(2, row.views),)
    return (1, 1) if alone else (2, row.keys)


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
    plan = Plan(
        dataset.sizes, config.optim.batch, config.augment, config.seed,
        views=view_counts(config), bags=members(config, dataset, teacher_hash, world), replay=replay(config, source),
        local=Local(config.local_crops, config.local) if config.local_crops else None,
    )  # fmt: skip
    config = world.by_main(lambda: settled(config, world.device, config.optim.epochs * plan.steps_per_epoch, state))
    method = Distillation(config, source, plan, world)
    return train(method.config, key, (dataset, val), plan, method, world, state)


def members(config: DistillConfig, dataset: Dataset, teacher_hash: str, world: World) -> np.ndarray | None:
    """The bags (N x k int32) of the dataset by this teacher, the same on every rank; None where none are given."""
    if config.bags is None:
        return None
    path = config.bags / "bags.npz" if config.bags.is_dir() else config.bags
    bags = world.together(
        lambda: load_bags(path, dataset_hash=dataset.hash, teacher_hash=teacher_hash),
        lambda found: {f"the content of {path}": found.hash},
    )
    return bags.members


def replay(config: DistillConfig, source: Encoder | CachedKeys) -> Replay | None:
    """Which of a step's views are a cache's own views, drawn again: those that the student shares with the keys."""
    if isinstance(source, Encoder) or not config.same_view:
        return None
    row = config.method
    places = ((0, 0), (0, 1)) if row.views == 2 else tuple((group, 0) for group in range(row.keys))
    if row.views == 2 and source.views < 2:
        raise UserError(
            f"--objective {config.objective} compares two views of an image, and {config.keys} holds one: make it with "
            "`bingo keys --views 2` or more"
        )
    return Replay(source.seed, source.views, places)


def key_source(config: DistillConfig, dataset: Dataset, world: World) -> tuple[Encoder | CachedKeys, str]:
    """The teacher, or the cache that stands for it, and the content hash of the teacher's weights."""
    if config.keys is not None:
        cache = load_keys(config.keys, dataset, config.augment, world)
        return cache, cache.teacher
    assert config.teacher is not None
    return load_same(config.teacher, config.augment.size, world, head=True, arch=config.arch)
