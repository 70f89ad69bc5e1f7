"""Fine-tuning: the whole network and a new classifier on a few labels, as the 1 % and 10 % protocols do."""

from typing import Any

import numpy as np
import torch
from torch import nn

from bingo.config_evaluation import EvalConfig
from bingo.distributed import World, shard
from bingo.errors import UserError
from bingo.evaluate.accuracy import top_right
from bingo.evaluate.stage import Subject
from bingo.features.extract import cut, features_of_batches
from bingo.models import Encoder, autocast
from bingo.protocols import FINETUNE_DROPS, FINETUNE_GAMMA, Schedule
from bingo.supervised.linear import seeded_linear, share_of
from bingo.supervised.loop import Course, Score, fit
from bingo.supervised.plan import LabelPlan, crops_and_flips
from bingo.supervised.subset import drawn, named
from bingo.train.checkpoint import go_on

CURE = "lower --finetune.lr and --finetune.head-lr"


class Classifier(nn.Module):
    """An encoder's backbone and a new linear layer; the projection head stays as it is and has no part."""

    def __init__(self, encoder: Encoder, classes: int, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear = seeded_linear(encoder.feature_dim, classes, seed)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W -> B x C float32."""
        return self.linear(self.encoder.features(images)).float()

    def backbone_parameters(self) -> list[nn.Parameter]:
        return [value for name, value in self.encoder.named_parameters() if not name.startswith("head.")]


class FinetuneLearner:
    """Backbone and classifier in train mode, a learning rate for each.

    Batch-norm statistics are each rank's own while training, and averaged over the ranks for the evaluation.
    """

    def __init__(self, config: EvalConfig, subject: Subject, world: World) -> None:
        self.config, self.world, self.val = config, world, subject.val
        self.network = Classifier(subject.encoder, len(subject.classes), config.seed).to(world.device).train()
        tune = config.finetune
        self.schedules = [
            Schedule(rate, tune.epochs, drops=FINETUNE_DROPS, gamma=FINETUNE_GAMMA) for rate in (tune.lr, tune.head_lr)
        ]
        groups = [self.network.backbone_parameters(), list(self.network.linear.parameters())]
        self.optimiser = torch.optim.SGD(
            [{"params": group} for group in groups], lr=tune.lr, momentum=0.9, weight_decay=tune.weight_decay
        )

    def rates(self, epoch: int) -> list[float]:
        return [schedule.at(epoch) for schedule in self.schedules]

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        with autocast(self.config.runtime, self.world.device):
            return self.network(images)

    @torch.no_grad()
    def after_step(self) -> None:
        self.world.average([buffer for buffer in self.network.buffers() if buffer.is_floating_point()])

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        """Each process goes through its part of the centre crops."""
        config, val = self.config, self.val
        low, high = shard(len(val), self.world.rank, self.world.size)
        labels = torch.from_numpy(val.labels[low:high]).long().to(self.world.device).split(config.batch)
        blocks = features_of_batches(
            self.network.encoder, val, config.augment, cut(low, high, config.batch), config.runtime, self.world,
            loader=config.loader,
        )  # fmt: skip
        right = [top_right(self.network.linear(x), y, (1, 5)) for x, y in zip(blocks, labels, strict=False)]
        self.network.train()
        return share_of(right, len(val), self.world)


def choose(config: EvalConfig, subject: Subject) -> np.ndarray:
    """The labelled images (int64, ascending); `UserError` where they cannot be found, or fill no step."""
    tune, train = config.finetune, subject.train
    if tune.names is None:
        images = drawn(train.labels, subject.classes, tune.fraction, config.seed)
    else:
        images = named(tune.names, train, subject.classes)
    if tune.batch > len(images):
        raise UserError(
            f"--finetune.batch {tune.batch} is more than the {len(images)} labelled images; lower it, or take more "
            "images: --finetune.fraction"
        )
    return images


def train_few(
    config: EvalConfig, key: str, subject: Subject, world: World
) -> tuple[list[Score], np.ndarray, Classifier, World]:
    """The scores of the epochs that were measured, the labelled images, the network, and the ranks that it had."""
    images = world.together(lambda: choose(config, subject))
    state, world = go_on(config.out, key, world)
    batch = config.finetune.batch
    if batch < 2 * world.ranks:
        raise UserError(
            f"--finetune.batch {batch} gives a rank of {world.ranks} a single image, too few for batch norm; raise it "
            f"to {2 * world.ranks} or more"
        )
    augment = crops_and_flips(config.augment, config.crop_scale, config.flip_p)
    plan = LabelPlan(subject.train.sizes, images, batch, augment, config.seed, whole=False)
    learner = FinetuneLearner(config, subject, world)
    tune = config.finetune
    course = Course(
        subject.train, plan, tune.epochs, tune.every, config.out, key, config.runtime, config.loader, CURE
    )  # fmt: skip
    return fit(course, learner, world, state), images, learner.network, world


def torchvision_state(network: Classifier) -> dict[str, Any]:
    """The fine-tuned network under the names that the classifier of its name has."""
    state: dict[str, Any] = {name: value.cpu() for name, value in network.encoder.backbone.state_dict().items()}
    layer = network.linear.state_dict()
    return state | {f"{network.encoder.classifier_name}.{name}": value.cpu() for name, value in layer.items()}
