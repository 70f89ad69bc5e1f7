"""BINGO: the student's views of an image, of a bag mate and of their mixture, against the frozen teacher's keys."""

from typing import Any

import torch
from torch import nn

from bingo.bags import load_bags
from bingo.config import DistillConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.image_folder import open_images
from bingo.kernels.augment import cutmix
from bingo.loader import Batch, augmenter, view_dtype
from bingo.loss import contrast_accuracy, paper_loss, release_loss
from bingo.models import Encoder, load_encoder, seeded_encoder
from bingo.plan import Plan
from bingo.queue import KeyQueue
from bingo.train import autocast, check_run, step_options, train, wrap


class Bingo:
    """Student in DDP; teacher and queue outside it; one key gather per step, overlapped with the student.

    Only the anchors' keys enter the queue, after the loss has read it, as in the release.
    """

    def __init__(self, config: DistillConfig, teacher: Encoder, plan: Plan, world: World) -> None:
        self.config, self.plan, self.world = config, plan, world
        contrast = config.contrast
        self.teacher = teacher.to(world.device).eval().requires_grad_(False)
        if config.runtime.channels_last:
            self.teacher.to(memory_format=torch.channels_last)
        self.encoder = seeded_encoder(config.student, dim=teacher.dim, hidden=contrast.hidden, seed=config.seed).to(
            world.device
        )
        self.model = wrap(self.encoder, config, world, joint=config.view_norm == "joint")
        self.queue = KeyQueue(
            contrast.queue, teacher.dim, dtype=contrast.queue_dtype, device=world.device, seed=config.seed
        )
        self.augment = augmenter(config.augment, view_dtype(config.runtime, world.device))

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def loss(self, batch: Batch, *, measure: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        # Per group the query view comes first and the key view last: the same one when key_view="same".
        anchor, positive = (
            [self.augment(crop, batch.params(g, v)) for v, crop in enumerate(crops)]
            for g, crops in enumerate(batch.crops)
        )
        temperature, keys_KC = self.config.contrast.temperature, self.queue.keys_KC
        paper = self.config.objective == "paper"
        k_anchor, *k_positive = self._keys_of(anchor[-1]) if paper else self._keys_of(anchor[-1], positive[-1])
        queries, share = [anchor[0], positive[0]], None
        if self.config.cutmix and not paper:
            box = self.plan.cutmix_box(batch.plan.epoch, batch.plan.step)
            mixed, share = cutmix(anchor[0], positive[0], box)
            queries.append(mixed)
        q_anchor, q_positive, *q_mixed = self._queries_of(*queries)
        options = step_options(self.config, self.queue, self.plan, batch, self._gathered())
        accuracy = contrast_accuracy(q_anchor, k_anchor, keys_KC, **options) if measure else None
        if paper:
            return paper_loss(q_anchor, q_positive, k_anchor, keys_KC, temperature, **options), accuracy
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
        return loss, accuracy

    @torch.no_grad()
    def _keys_of(self, *views: torch.Tensor) -> list[torch.Tensor]:
        """Teacher keys of each view in one forward pass; the first view's are sent to the other ranks meanwhile."""
        with autocast(self.config, self.world.device):
            keys = self.teacher(torch.cat(views)).chunk(len(views))
        self._gathered = self.world.gather_rows(keys[0])
        return list(keys)

    def _queries_of(self, *views: torch.Tensor) -> list[torch.Tensor]:
        with autocast(self.config, self.world.device):
            return self.model(*views)

    def after_step(self) -> None:
        """Nothing is left to do: the loss has written the queue, and the teacher is frozen."""


def view_counts(config: DistillConfig) -> tuple[int, int]:
    """Crops per decoded anchor and per decoded positive."""
    if config.key_view == "same":
        return 1, 1
    return (2, 1) if config.objective == "paper" else (2, 2)


def run(config: DistillConfig, key: str, world: World) -> dict[str, Any]:
    """Distil or resume; writes `model.pt`, `metrics.jsonl` and `checkpoints/` in `config.out`."""
    dataset = open_images(config.data, config.loader, tell=world.main)
    check_run(config, dataset, world)
    teacher, teacher_hash = load_encoder(config.teacher)
    if config.contrast.dim != teacher.dim:
        raise UserError(
            f"contrast.dim={config.contrast.dim} but the teacher {config.teacher} has {teacher.dim}-d keys; "
            f"set --contrast.dim {teacher.dim}"
        )
    path = config.bags / "bags.npz" if config.bags.is_dir() else config.bags
    bags = load_bags(path, dataset_hash=dataset.hash, teacher_hash=teacher_hash)
    plan = Plan(
        dataset.sizes, config.optim.batch, config.augment, config.seed, views=view_counts(config), bags=bags.members
    )
    return train(config, key, dataset, plan, Bingo(config, teacher, plan, world), world)
