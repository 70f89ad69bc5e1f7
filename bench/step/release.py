"""A distillation step as the published code takes it, written from its behaviour: our step's peer.

Three student and two teacher forward passes one after the other, three losses each with its (B, 2, 1 + K) logits in
memory, fp32, contiguous images. What its user can switch on without another method is there too, to tell method and
precision apart: bf16 autocast, channels-last memory, torch.compile of both networks. Where there is a choice it gets
the cheaper form: the teacher stays in eval mode, augmentation is ours and on the device, the queue's pointer is a
Python number (no wait for the device), and one process has none of the blocking collectives (all-gathers of images and
keys) that several ranks add to each step.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bingo.config import DistillConfig
from bingo.kernels.augment import cutmix
from bingo.kernels.view_params import ViewParams
from bingo.models import Encoder, autocast, seeded_encoder
from bingo.views.loader import Batch, augmenter, view_dtype
from bingo.views.plan import Plan


class ReleaseStyle:
    """The same method as `bingo.train.distill` with objective "release": same seeds, same views, same loss."""

    def __init__(self, config: DistillConfig, teacher: Encoder, plan: Plan, device: torch.device) -> None:
        self.config, self.plan = config, plan
        self.layout = torch.channels_last if config.runtime.channels_last else torch.contiguous_format
        self.teacher: nn.Module = teacher.to(device).to(memory_format=self.layout).eval().requires_grad_(False)
        contrast = config.contrast
        self.encoder = seeded_encoder(config.student, dim=teacher.dim, hidden=contrast.hidden, seed=config.seed)
        self.model: nn.Module = self.encoder.to(device).to(memory_format=self.layout)
        if config.runtime.compile:
            self.model = cast(nn.Module, torch.compile(self.model, dynamic=False))
            self.teacher = cast(nn.Module, torch.compile(self.teacher, dynamic=False))
        self.cast = autocast(config.runtime, device)
        generator = torch.Generator().manual_seed(config.seed)
        rows_KC = torch.randn(contrast.queue, teacher.dim, generator=generator)
        self.queue_KC = F.normalize(rows_KC, dim=1).to(device)
        self.pointer = 0
        self.augment = augmenter(config.augment, view_dtype(config.runtime, device))

    def loss(self, batch: Batch) -> Tensor:
        """Scalar: the mean over three views of the weighted cross-entropies against the anchor's and the mate's key."""
        (anchor, anchor_key), (positive, positive_key) = (
            [
                self.augment(crop, batch.params(g, v)).contiguous(memory_format=self.layout)
                for v, crop in enumerate(crops)
            ]
            for g, crops in enumerate(batch.crops)
        )
        with torch.no_grad(), self.cast:
            self._key = self.teacher(anchor_key)
            keys_BMC = torch.stack([self._key, self.teacher(positive_key)], dim=1)
        mixed, share = cutmix(anchor, positive, self.plan.cutmix_box(batch.plan.epoch, batch.plan.step))
        with self.cast:
            queries = [self.model(view) for view in (anchor, positive, mixed)]
        own, other = (1.0, 0.0) if batch.plan.epoch < self.config.warm_epochs else (0.5, 0.5)
        weights = [(own, other), (other, own), (share, 1 - share)]
        losses = [self._view_loss(q_BC, keys_BMC, w) for q_BC, w in zip(queries, weights, strict=True)]
        return (losses[0] + losses[1] + losses[2]) / 3

    def _view(self, crop: Tensor, params: ViewParams) -> Tensor:
        return self.augment(crop, params).contiguous(memory_format=self.layout)

    def _view_loss(self, q_BC: Tensor, keys_BMC: Tensor, weights: tuple[float, float]) -> Tensor:
        positives_BM1 = torch.einsum("bc,bmc->bm", q_BC, keys_BMC)[:, :, None]
        negatives_BMK = (q_BC @ self.queue_KC.T)[:, None].expand(-1, len(weights), -1)
        logits_BMN = torch.cat([positives_BM1, negatives_BMK], dim=2) / self.config.contrast.temperature
        target = torch.zeros(logits_BMN.shape[:2], dtype=torch.long, device=q_BC.device)
        ce_BM = F.cross_entropy(logits_BMN.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        return (weights[0] * ce_BM[:, 0] + weights[1] * ce_BM[:, 1]).mean()

    @torch.no_grad()
    def after_step(self) -> None:
        """Write the anchors' keys over the oldest ones; the queue's length must be a multiple of the batch."""
        end = self.pointer + len(self._key)
        self.queue_KC[self.pointer : end] = self._key
        self.pointer = end % len(self.queue_KC)
