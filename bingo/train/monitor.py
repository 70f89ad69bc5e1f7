"""Evaluations while training: kNN accuracy, and what features say without labels, of the current weights.

They change nothing of the training: no random number is drawn, and batch norm's statistics stay.
"""

import numpy as np
import torch

from bingo.config import TrainingConfig
from bingo.distributed import World
from bingo.evaluate.accuracy import knn_accuracy
from bingo.evaluate.representation import PAIR_ROWS, described, four_digits, neighbour_agreement, spaced
from bingo.features.extract import cut, extract
from bingo.features.keys import CachedKeys
from bingo.models import autocast
from bingo.train.shares import Method
from bingo.views.decode_failures import Failures
from bingo.views.loader import evaluation_batches, view_dtype


class Evaluation:
    """Looks at a method's encoder with rank 0's batch-norm statistics. train, val: the images, and which are bad.

    The teacher's keys of the sample that is compared are made once, at the first look, and kept.
    """

    def __init__(self, method: Method, train: Failures, val: Failures, config: TrainingConfig, world: World) -> None:
        self.method, self.train, self.val, self.config, self.world = method, train, val, config, world
        self.sample = spaced(len(train.dataset), PAIR_ROWS)
        self._keys: torch.Tensor | None = None

    def __call__(self) -> dict[str, float]:
        """`knn` (k = 10, cosine) as a fraction, and `left_out`, the images that it leaves out because they cannot be
        decoded; on rank 0 also `described` of the training images, and in distillation `teacher_agreement`."""
        encoder, world = self.method.saved, self.world
        world.broadcast([buffer for buffer in encoder.buffers() if buffer.is_floating_point()])
        parts, left_out, found = [], 0, dict[str, float]()
        for failures in (self.train, self.val):
            data = failures.dataset
            features = extract(
                encoder, data, self.config.augment, self.config.optim.batch, self.config.runtime, world,
                loader=self.config.loader, failures=failures,
            )  # fmt: skip
            keep = torch.ones(len(data), dtype=torch.bool, device=world.device)
            keep[world.gather_lists(list(failures.found))] = False
            left_out += len(data) - int(keep.sum())
            parts += [features[keep], torch.from_numpy(data.labels).long().to(world.device)[keep]]
            if failures is self.train and world.main:
                found = self._agreement(features, keep)
        self.method.encoder.train()
        knn = knn_accuracy(*parts, k=min(10, len(parts[0])))  # refuses features that are not finite
        return {"knn": knn, "left_out": left_out, **(described(parts[0]) if world.main else {}), **found}

    def _agreement(self, features: torch.Tensor, keep: torch.Tensor) -> dict[str, float]:
        """With the teacher, or its cached keys; nothing where the keys' network is trained too."""
        if any(module is self.method.keys_from for module in self.method.modules().values()):
            return {}
        rows = self.sample.to(features.device)
        if self._keys is None:
            self._keys = self._teacher_keys()
        rows, keys = rows[keep[rows]], self._keys[keep[rows]]
        return {"teacher_agreement": four_digits(neighbour_agreement(features[rows], keys))} if len(rows) > 1 else {}

    @torch.no_grad()
    def _teacher_keys(self) -> torch.Tensor:
        """Of the sample's images, by rank 0 alone: of centre crops; from a cache the mean over its views."""
        source, config, images = self.method.keys_from, self.config, self.sample.numpy()
        if isinstance(source, CachedKeys):
            views = [source.read(images, np.full(len(images), view)) for view in range(source.views)]
            return torch.stack(views).mean(dim=0)
        device, batch = self.world.device, config.optim.batch // self.world.ranks
        found = []
        for block in evaluation_batches(
            self.train.dataset, config.augment, [images[part] for part in cut(0, len(images), batch)], device=device,
            threads=self.world.threads, settings=config.loader, failures=self.train,
        ):  # fmt: skip
            with autocast(config.runtime, device):
                found.append(source.project(block.to(view_dtype(config.runtime, device))))
        return torch.cat(found)
