"""The loop of a training on labels: plan, decode, loss, step, accuracy, checkpoint; resumable at any step."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from bingo.config_parts import Loader, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import METRICS
from bingo.images.dataset import Dataset
from bingo.progress import progress_bar
from bingo.supervised.plan import LabelPlan, Share, labelled_batches
from bingo.train.background import Background
from bingo.train.checkpoint import leave_saved, save_beside
from bingo.train.metrics import Metrics
from bingo.train.shares import Statistics
from bingo.views.loader import augmenter, view_dtype

log = logging.getLogger(__name__)


class Score(NamedTuple):
    """The accuracy on the validation images after so many epochs, as fractions; top5 is top-C where C < 5."""

    epochs: int
    top1: float
    top5: float


class Learner(Protocol):
    """What is trained."""

    @property
    def network(self) -> nn.Module:
        """Everything that a checkpoint must hold besides the optimiser."""

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """One group of parameters for each of `rates`."""

    def rates(self, epoch: int) -> Sequence[float]:
        """The learning rate of each of the optimiser's groups."""

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W -> B x C float32."""

    def after_step(self) -> None:
        """Called once the optimiser has stepped."""

    def score(self) -> tuple[float, float]:
        """Top-1 and top-5 accuracy on the validation images, the same on every rank."""


@dataclass(frozen=True)
class Course:
    """What a learner is shown, and for how long. cure: what to do where it diverges; every: epochs between scores."""

    dataset: Dataset
    plan: LabelPlan
    epochs: int
    every: int
    out: Path
    key: str
    runtime: Runtime
    loader: Loader
    cure: str


def fit(course: Course, learner: Learner, world: World, state: dict[str, Any] | None) -> list[Score]:
    """Train, or go on from `state`; the scores of all epochs that were measured, the last epoch among them.

    Asked to leave, all ranks save a checkpoint at the same step boundary and raise `Leaving`. Bit-exact on a CPU for a
    fixed number of processes and threads: killed anywhere and started again, it ends with the same weights. Gradients
    are averaged over the processes in fp64, each weighted by its images, so their number changes roundings at most.
    `UserError` naming step or epoch where the loss or a weight is not finite.
    """
    plan = course.plan
    per_epoch = plan.steps_per_epoch
    total = course.epochs * per_epoch
    start, scores = 0, list[Score]()
    if state:
        start, scores = state["step"], [Score(*values) for values in state["scores"]]
        learner.network.load_state_dict(state["network"], strict=True)
        learner.optimiser.load_state_dict(state["optimiser"])
        world.watch.event("resumed", step=start, ranks=world.ranks, size=world.size)
    world.watch.event("training", step=start, steps=total)
    metrics = Metrics(course.out / METRICS, world, state, course.cure)
    augment = augmenter(plan.augment, view_dtype(course.runtime, world.device))
    labels = torch.from_numpy(course.dataset.labels).long()
    batches = labelled_batches(course.dataset, plan, world, start=start, stop=total, settings=course.loader)
    parameters = [parameter for group in learner.optimiser.param_groups for parameter in group["params"]]
    bar = progress_bar("step", total, start, images=plan.batch, show=world.main)
    with Background() as background, bar as advance:
        for step in range(start, total):
            epoch, done = step // per_epoch, step + 1
            epoch_ends = done % per_epoch == 0
            for group, rate in zip(learner.optimiser.param_groups, learner.rates(epoch), strict=True):
                group["lr"] = rate
            learner.optimiser.zero_grad(set_to_none=True)
            statistics, losses = Statistics(learner.network, world.shares), list[torch.Tensor]()
            for _ in range(world.shares):
                share, crops = next(batches)
                torch.manual_seed(((plan.seed * 1_000_003 + step) * 65_537 + share.rank) % 2**64)  # of dropout
                with statistics.of_a_share():
                    logits = learner.logits(augment(crops, share.view.params))
                    losses.append(_loss(logits, labels[share.images].to(logits.device), share, world))
                    losses[-1].backward()
            if world.shares > 1:
                statistics.join(mean=True)
            world.average([parameter.grad for parameter in parameters if parameter.grad is not None])
            learner.optimiser.step()
            learner.after_step()
            line = {"step": step, "epoch": epoch, "lr": learner.optimiser.param_groups[0]["lr"]}
            metrics.step(torch.stack(losses).detach().sum(), line | {"time": round(time.time(), 3)})
            if epoch_ends:
                metrics.flush()
                _check_finite(parameters, epoch, course.cure)
                if done == total or (epoch + 1) % course.every == 0:
                    scores.append(Score(epoch + 1, *learner.score()))
                    metrics.accuracy(done, *scores[-1])
            world.watch.beat(done)
            leaves = done < total and world.leaving()
            if epoch_ends or leaves or done % course.runtime.checkpoint_every == 0:
                written = metrics.state()
                now = partial(_state, course, learner, written, scores, world)
                save_beside(background, course.out, done, now, world)
            elif done % course.runtime.log_every == 0:
                metrics.flush()
            advance(done, note=_note(epoch, course.epochs, metrics.newest))
            background.look()
            if leaves:
                leave_saved(background, world, done)
        background.wait()
    world.settle()
    metrics.close()
    return scores


def _loss(logits: torch.Tensor, labels: torch.Tensor, share: Share, world: World) -> torch.Tensor:
    """Of this share, so that the mean over processes of the sums over their shares is the mean over the batch."""
    rows = F.cross_entropy(logits[: share.rows], labels[: share.rows], reduction="sum")
    return rows * (world.size / share.total)


def _check_finite(parameters: Sequence[torch.Tensor], epoch: int, cure: str) -> None:
    """The losses of an epoch may all be finite and the weights after its last step not."""
    if not all(bool(parameter.isfinite().all()) for parameter in parameters):
        raise UserError(f"the classifier diverged in epoch {epoch + 1} (weights not finite): {cure}, in a new --out")


def _state(
    course: Course, learner: Learner, written: dict[str, Any], scores: list[Score], world: World
) -> dict[str, Any]:
    return {
        "key": course.key,
        "ranks": world.ranks,
        **written,
        "network": learner.network.state_dict(),
        "optimiser": learner.optimiser.state_dict(),
        "scores": [list(score) for score in scores],
    }


def _note(epoch: int, epochs: int, newest: dict[str, float]) -> str:
    """Where a training is, for people."""
    words = [f"{word} {newest[name]:.3g}" for word, name in (("loss", "loss"), ("top-1", "top1")) if name in newest]
    return ", ".join([f"epoch {epoch + 1} of {epochs}", *words])
