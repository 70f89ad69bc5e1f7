"""MoCo-v2 pre-training: the teacher where none is at hand, and the undistilled baseline of a student.

One departure from MoCo-v2: the key encoder runs in eval mode on an exponential average of the batch-norm statistics
(EMAN, Cai et al. 2021) instead of shuffled batch norm, so no images travel between ranks and small batches do not leak.
`--key-bn shuffle` brings MoCo's own way back (`bingo.train.block_norm`).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from bingo.config import PretrainConfig
from bingo.distributed import World
from bingo.losses.bag import contrast_measures, contrastive_loss
from bingo.losses.queue import KeyQueue
from bingo.losses.step import bag_options
from bingo.models import autocast, check_name, seeded_encoder
from bingo.models.arithmetic import precision_of, queue_dtype_of
from bingo.train.arithmetic import settled
from bingo.train.averages import average_of, follow, share_statistics
from bingo.train.block_norm import keys_in_blocks, use_batch_statistics
from bingo.train.inputs import Feed, Inputs, shared_inputs
from bingo.train.loop import check_run, open_data, resume, train, wrap
from bingo.train.shares import Gather, PendingKeys, Result
from bingo.train.spans import span
from bingo.train.telemetry import Work
from bingo.views.loader import Batch, view_dtype
from bingo.views.plan import Plan


class MoCo:
    """Query encoder by gradient, key encoder by momentum, one queue."""

    own_queue: KeyQueue | None = None

    def __init__(self, config: PretrainConfig, plan: Plan, world: World) -> None:
        self.config, self.plan, self.world = config, plan, world
        contrast, precision = config.contrast, precision_of(config.runtime, world.device)
        self.averages_statistics = config.key_bn == "eman"  # the key encoder uses them: they must agree between ranks
        self.encoder = seeded_encoder(
            config.model, dim=contrast.dim, hidden=contrast.hidden, seed=config.seed, layers=contrast.layers
        ).to(world.device)
        self.model = wrap(self.encoder, config, world)
        self.key_encoder = average_of(self.encoder)
        self.saved, self.own_queue = self.encoder, None
        if config.key_bn == "shuffle":
            use_batch_statistics(self.key_encoder, "--key-bn shuffle")
        self.keys_from = self.key_encoder
        self.guess = math.log(contrast.queue + 1)
        self.queue = KeyQueue(
            contrast.queue,
            contrast.dim,
            dtype=queue_dtype_of(contrast, precision),
            device=world.device,
            seed=config.seed,
        )
        self.feed = Feed(config.augment, view_dtype(config.runtime, world.device), world.device)
        self.augment = self.feed.augment
        self.gather: Gather = world.gather_rows
        self.uncaptured = "--key-bn shuffle shuffles images as the host says" if config.key_bn == "shuffle" else ""

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "key_encoder": self.key_encoder}

    def work(self) -> Work:
        return [(self.encoder, 3), (self.key_encoder, 1)]

    def prepare(self, shares: Sequence[Batch], feed: Feed) -> list[Inputs]:
        return [shared_inputs(self.config, self.plan, batch, feed) for batch in shares]

    def losses(self, shares: Sequence[Batch], *, measure: bool = False) -> Iterator[Result]:
        with span("augment"):
            prepared = self.prepare(shares, self.feed)
        return self.losses_of(prepared, measure=measure)

    def losses_of(self, shares: Sequence[Inputs], *, measure: bool = False) -> Iterator[Result]:
        with span("augment"):
            views = [[make() for make in share.views[0]] for share in shares]
        with span("teacher"):
            keys, gathered = self._keys_of([share.batch for share in shares], [view_k for _, view_k in views])
        keys_KC = self.queue.keys_KC
        for share, (view_q, _), key in zip(shares, views, keys, strict=True):
            with span("student forward"), autocast(self.config.runtime, self.world.device):
                (query,) = self.model(view_q)
            with span("loss"):
                new = gathered() if share is shares[-1] else None
                options = bag_options(self.config, self.queue, share.exclude, new, share.ids)
                measures = contrast_measures(query, key, keys_KC, **options) if measure else None
                loss = contrastive_loss(query, key, keys_KC, self.config.contrast.temperature, **options)
            yield loss, measures

    @torch.no_grad()
    def _keys_of(self, shares: Sequence[Batch], views: list[torch.Tensor]) -> tuple[list[torch.Tensor], PendingKeys]:
        """Keys of each share, and what waits for those of all ranks."""
        runtime, rows, step = self.config.runtime, len(views[0]), shares[0].plan
        if self.config.key_bn == "shuffle":
            order = self.plan.shuffled(step.epoch, step.step, 0)
            keys = keys_in_blocks(self.key_encoder, torch.cat(views), order, runtime, self.world)
            return [keys[share.plan.rank * rows :][:rows] for share in shares], lambda: keys
        with autocast(runtime, self.world.device):
            own = [self.key_encoder(view) for view in views]
        return own, self.gather(torch.cat(own))

    @torch.no_grad()
    def after_step(self) -> None:
        if self.averages_statistics:
            share_statistics(self.encoder, self.world)
        follow(self.key_encoder, self.encoder, self.config.key_momentum, buffers=self.averages_statistics)


def run(config: PretrainConfig, key: str, world: World) -> dict[str, Any]:
    """Train or resume; writes `model.pt`, `metrics.jsonl` and `checkpoints/` in `config.out`."""
    check_name(config.model)
    dataset, val = open_data(config, world)
    state, world = resume(config, key, world)
    world.together(lambda: check_run(config, dataset, world))
    plan = Plan(dataset.sizes, config.optim.batch, config.augment, config.seed, views=(2,))
    config = world.by_main(lambda: settled(config, world.device, config.optim.epochs * plan.steps_per_epoch, state))
    return train(config, key, (dataset, val), plan, MoCo(config, plan, world), world, state)
