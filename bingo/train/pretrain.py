"""MoCo-v2 pre-training: the teacher where none is at hand, and the undistilled baseline of a student.

One departure from MoCo-v2: the key encoder runs in eval mode on an exponential average of the batch-norm statistics
(EMAN, Cai et al. 2021) instead of shuffled batch norm, so no images travel between ranks and small batches do not leak.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from bingo.config import PretrainConfig
from bingo.distributed import World
from bingo.images.open import open_images
from bingo.models import autocast, check_name, seeded_encoder
from bingo.train.loop import check_run, resume, train, wrap
from bingo.train.loss import contrast_measures, contrastive_loss
from bingo.train.options import step_options
from bingo.train.queue import KeyQueue
from bingo.train.shares import Result
from bingo.views.loader import Batch, augmenter, view_dtype
from bingo.views.plan import Plan


class MoCo:
    """Query encoder by gradient, key encoder by momentum, one queue."""

    averages_statistics = True

    def __init__(self, config: PretrainConfig, plan: Plan, world: World) -> None:
        self.config, self.plan, self.world = config, plan, world
        contrast = config.contrast
        self.encoder = seeded_encoder(config.model, dim=contrast.dim, hidden=contrast.hidden, seed=config.seed).to(
            world.device
        )
        self.model = wrap(self.encoder, config, world)
        self.key_encoder = copy.deepcopy(self.encoder).eval().requires_grad_(False)
        self.guess = math.log(contrast.queue + 1)
        self.queue = KeyQueue(
            contrast.queue, contrast.dim, dtype=contrast.queue_dtype, device=world.device, seed=config.seed
        )
        self.augment = augmenter(config.augment, view_dtype(config.runtime, world.device))

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "key_encoder": self.key_encoder}

    def losses(self, shares: Sequence[Batch], *, measure: bool = False) -> Iterator[Result]:
        views = [[self.augment(crop, b.params(0, v)) for v, crop in enumerate(b.crops[0])] for b in shares]
        with torch.no_grad(), autocast(self.config.runtime, self.world.device):
            keys = [self.key_encoder(view_k) for _, view_k in views]
        gathered = self.world.gather_rows(torch.cat(keys))
        keys_KC = self.queue.keys_KC
        for batch, (view_q, _), key in zip(shares, views, keys, strict=True):
            with autocast(self.config.runtime, self.world.device):
                (query,) = self.model(view_q)
            new = gathered() if batch is shares[-1] else None
            options = step_options(self.config, self.queue, self.plan, batch, new)
            measures = contrast_measures(query, key, keys_KC, **options) if measure else None
            yield contrastive_loss(query, key, keys_KC, self.config.contrast.temperature, **options), measures

    @torch.no_grad()
    def after_step(self) -> None:
        statistics = [b for b in self.encoder.buffers() if b.is_floating_point()]
        self.world.average(statistics)  # the key encoder uses them: they must agree between ranks
        momentum = self.config.key_momentum
        pairs = [
            *zip(self.key_encoder.parameters(), self.encoder.parameters(), strict=True),
            *zip((b for b in self.key_encoder.buffers() if b.is_floating_point()), statistics, strict=True),
        ]
        torch._foreach_lerp_([old for old, _ in pairs], [new.detach() for _, new in pairs], 1 - momentum)


def run(config: PretrainConfig, key: str, world: World) -> dict[str, Any]:
    """Train or resume; writes `model.pt`, `metrics.jsonl` and `checkpoints/` in `config.out`."""
    check_name(config.model)
    dataset = open_images(config.data, config.loader, tell=world.main)
    state, world = resume(config, key, world)
    check_run(config, dataset, world)
    plan = Plan(dataset.sizes, config.optim.batch, config.augment, config.seed, views=(2,))
    return train(config, key, dataset, plan, MoCo(config, plan, world), world, state)
