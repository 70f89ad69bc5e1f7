"""Linear classifiers on a frozen network, trained on new crops in each epoch: `--protocol release | moco | simreg`."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bingo.config_evaluation import EvalConfig
from bingo.distributed import World, shard
from bingo.evaluate.accuracy import top_right
from bingo.evaluate.stage import Subject
from bingo.features.extract import cut, features_of_batches
from bingo.features.stored import check_rows
from bingo.images.dataset import Dataset
from bingo.models import autocast
from bingo.supervised.loop import Course, Score, fit
from bingo.supervised.plan import LabelPlan, crops_and_flips
from bingo.train.checkpoint import go_on

CHUNK = 8192  # rows whose logits are in memory at once
SMALLEST = 1e-5  # added to variances, as SimReg and CompRess do
CURE = "lower --linear-lr"


class LinearHead(nn.Module):
    """Logits of pooled features (B x D float32 -> B x C).

    standardise: of rows of unit length, less `mean` and times `scale` (D each), as SimReg and CompRess do.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int, classes: int, *, standardise: bool, seed: int) -> None:
        super().__init__()
        self.standardise = standardise
        self.linear = seeded_linear(dim, classes, seed, like_torch=standardise)
        if standardise:
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("scale", torch.ones(dim))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.standardise:
            features = (F.normalize(features, dim=1) - self.mean) * self.scale
        return self.linear(features)

    def folded(self) -> dict[str, Any]:
        """weight C x D and bias C that act on features, or with `normalise` on features of unit length."""
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        if self.standardise:
            weight = weight.double() * self.scale.double()
            bias = bias.double() - weight @ self.mean.double()
        found: dict[str, Any] = {"weight": weight.float().cpu(), "bias": bias.float().cpu()}
        return found | {"normalise": True} if self.standardise else found


def seeded_linear(dim: int, classes: int, seed: int, *, like_torch: bool = False) -> nn.Linear:
    """A layer whose weights are a function of the seed: N(0, 0.01²) and bias 0 as MoCo's, or as torch makes them."""
    layer = nn.utils.skip_init(nn.Linear, dim, classes)
    generator = torch.Generator().manual_seed(seed)
    bound = dim**-0.5
    with torch.no_grad():
        if like_torch:
            for parameter in (layer.weight, layer.bias):
                parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
        else:
            layer.weight.copy_(0.01 * torch.randn(layer.weight.shape, generator=generator))
            layer.bias.zero_()
    return layer


class LinearLearner:
    """A linear head on a network in eval mode, whose weights and statistics stay as they are."""

    def __init__(self, config: EvalConfig, subject: Subject, world: World, *, fresh: bool) -> None:
        """fresh: training begins, so statistics are computed where the protocol wants them."""
        self.config, self.protocol, self.world = config, config.linear, world
        self.encoder = subject.encoder.eval().requires_grad_(False)
        self.network = LinearHead(
            self.encoder.feature_dim,
            len(subject.classes),
            standardise=self.protocol.standardise,
            seed=config.seed,
        )
        if fresh and self.protocol.standardise:
            self.network.mean, self.network.scale = self._statistics(subject.train)
        self.network.to(world.device)
        self.optimiser = torch.optim.SGD(
            self.network.linear.parameters(),
            lr=self.protocol.schedule.lr,
            momentum=0.9,
            weight_decay=self.protocol.weight_decay,
        )
        self.features = self._own_features(subject.val)
        low, high = shard(len(subject.val), world.rank, world.size)
        self.labels = torch.from_numpy(subject.val.labels[low:high]).long().to(world.device)
        self.count = len(subject.val)

    def rates(self, epoch: int) -> list[float]:
        return [self.protocol.schedule.at(epoch)]

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), autocast(self.config.runtime, self.world.device):
            features = self.encoder.features(images)
        return self.network(features.float())

    def after_step(self) -> None:
        """Nothing but the optimiser's weights changes."""

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        blocks = zip(self.features.split(CHUNK), self.labels.split(CHUNK), strict=True)
        right = [top_right(self.network(x), y, (1, 5)) for x, y in blocks]
        return share_of(right, self.count, self.world)

    def _own_features(self, data: Dataset) -> torch.Tensor:
        """Features of this process's part of the centre crops: the network is frozen, so they hold for all epochs."""
        low, high = shard(len(data), self.world.rank, self.world.size)
        config = self.config
        blocks = features_of_batches(
            self.encoder, data, config.augment, cut(low, high, config.batch), config.runtime, self.world,
            loader=config.loader,
        )  # fmt: skip
        empty = torch.zeros(0, self.encoder.feature_dim, device=self.world.device)
        rows = torch.cat([empty, *blocks])
        if len(rows):
            check_rows(rows, "features", config.run, lambda row: data.paths[low + row], zeros=True)
        return rows

    def _statistics(self, data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and 1 / deviation (D each, float32) of the unit features of all centre crops, batch by batch in fp64."""
        low, high = shard(len(data), self.world.rank, self.world.size)
        config, dim = self.config, self.encoder.feature_dim
        sums = torch.zeros(2, dim, dtype=torch.float64, device=self.world.device)
        for block in features_of_batches(
            self.encoder, data, config.augment, cut(low, high, config.batch), config.runtime, self.world,
            loader=config.loader,
        ):  # fmt: skip
            unit = F.normalize(block, dim=1).double()
            sums += torch.stack([unit.sum(0), unit.square().sum(0)])
        total, squares = torch.stack(self.world.everyone(sums.cpu())).sum(0)
        mean = total / len(data)
        variance = ((squares - len(data) * mean.square()) / max(len(data) - 1, 1)).clamp(min=0)
        return mean.float(), (variance.float() + SMALLEST).rsqrt()


def share_of(right: list[list[int]], count: int, world: World) -> tuple[float, float]:
    """Top-1 and top-5 accuracy from what every process has counted in its part of `count` images."""
    mine = [sum(found[k] for found in right) for k in range(2)]
    top1, top5 = (sum(values) / count for values in zip(*world.everyone(mine), strict=True))
    return top1, top5


def train_linear(
    config: EvalConfig, key: str, subject: Subject, world: World
) -> tuple[list[Score], dict[str, Any], World]:
    """The scores of all epochs, the classifier after the last (see `LinearHead.folded`), and the ranks that it had."""
    state, world = go_on(config.out, key, world)
    learner = LinearLearner(config, subject, world, fresh=state is None)
    augment = crops_and_flips(config.augment, config.crop_scale, config.flip_p)
    train = subject.train
    plan = LabelPlan(train.sizes, np.arange(len(train)), config.linear_batch, augment, config.seed)
    epochs = config.linear.schedule.epochs
    course = Course(train, plan, epochs, 1, config.out, key, config.runtime, config.loader, CURE)
    return fit(course, learner, world, state), learner.network.folded(), world
