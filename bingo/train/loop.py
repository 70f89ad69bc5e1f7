"""The training loop of both methods, read from top to bottom: plan, decode, loss, step, checkpoint."""

import copy
import logging
import math
import time
import warnings
from functools import partial
from typing import Any

import torch
from torch import nn

from bingo.config import TrainingConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.alike import open_same
from bingo.files import first_line
from bingo.images.classes import check_labels
from bingo.images.dataset import Dataset
from bingo.images.open import left_out_now
from bingo.kernels import resolve_impl
from bingo.models import Encoder, autocast, compiled_or_not, save_encoder
from bingo.progress import progress_bar
from bingo.train.arithmetic import arithmetic, unusual
from bingo.train.background import Background
from bingo.train.checkpoint import go_on, leave_saved, save_beside
from bingo.train.graph import make_step
from bingo.train.health import Health
from bingo.train.metrics import Metrics
from bingo.train.monitor import Evaluation
from bingo.train.optimiser import load_sgd, sgd
from bingo.train.profile import StepProfile
from bingo.train.shares import Method
from bingo.train.sides import Sides, weight_norm
from bingo.train.sinks import Sinks, check_sinks
from bingo.train.telemetry import Speed
from bingo.views.decode_failures import Failures
from bingo.views.loader import training_batches, view_dtype
from bingo.views.plan import Plan

log = logging.getLogger(__name__)


class PerView(nn.Module):
    """Raw queries of several views in one forward pass, so that DDP sees one; batch norm per view or joint."""

    def __init__(self, encoder: Encoder, *, joint: bool, compiled: bool) -> None:
        super().__init__()
        self.encoder, self.joint = encoder, joint
        self._project = compiled_or_not(encoder.project, encoder.name) if compiled else encoder.project

    def forward(self, *views: torch.Tensor) -> list[torch.Tensor]:
        if self.joint:
            return list(self._project(torch.cat(views)).chunk(len(views)))
        return [self._project(view) for view in views]


def wrap(encoder: Encoder, config: TrainingConfig, world: World, *, views: int = 1, joint: bool = False) -> nn.Module:
    """The encoder on its device, compiled if asked for, in DDP if there are peers. views: how many a call is given.

    No buffers are broadcast: batch-norm statistics never enter the training forward pass, and rank 0's are saved.
    """
    check_student(encoder, config, world, joint=joint)
    if config.runtime.channels_last:
        encoder.to(memory_format=torch.channels_last)
    model: nn.Module = PerView(encoder, joint=joint, compiled=bool(config.runtime.compile))
    if world.size > 1:
        ids = [world.device.index] if world.device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch 2.14 announces a successor of broadcast_buffers that torch 2.11 does not have.
            warnings.simplefilter("ignore", FutureWarning)
            model = nn.parallel.DistributedDataParallel(
                model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        _settle_buckets(model, encoder, config, world, views)
    return model


@torch.no_grad()
def check_student(encoder: Encoder, config: TrainingConfig, world: World, *, joint: bool) -> None:
    """`UserError` where a network cannot take what a rank gives it: its images' size, or one image alone."""
    rows, size = min(2, config.optim.batch // world.ranks), config.augment.size
    network = copy.deepcopy(encoder).to("meta").train()  # shapes alone are computed
    try:
        network.project(torch.zeros(2 * rows if joint else rows, 3, size, size, device="meta"))
    except NotImplementedError:  # an operation that shapes alone do not say enough for
        return
    except (RuntimeError, ValueError, AssertionError) as error:
        single = "a single image per rank" if rows == 1 else "images"
        remedy = "raise --optim.batch, --augment.size" if rows == 1 else "set another --augment.size"
        raise UserError(
            f"{encoder.name} cannot be trained on {single} of {size} pixels ({first_line(error)}); "
            f"{remedy} or choose another network"
        ) from error


def _settle_buckets(model: nn.Module, encoder: Encoder, config: TrainingConfig, world: World, views: int) -> None:
    """One forward and backward pass whose gradients are thrown away.

    After its first backward pass DDP sorts its gradient buckets anew, and with three ranks or more other places in a
    bucket mean other orders of summation. That must lie behind every start, or a resumed run would round otherwise.
    """
    rows, size = config.optim.batch // world.ranks, config.augment.size
    images = torch.zeros(rows, 3, size, size, dtype=view_dtype(config.runtime, world.device), device=world.device)
    kept = [buffer.clone() for buffer in encoder.buffers()]
    with autocast(config.runtime, world.device):
        queries = model(*[images.to(memory_format=torch.channels_last)] * views)
    torch.stack([query.sum() for query in queries]).sum().backward()
    model.zero_grad(set_to_none=True)
    for buffer, value in zip(encoder.buffers(), kept, strict=True):
        buffer.copy_(value)


def check_run(config: TrainingConfig, dataset: Dataset, world: World) -> None:
    """Refuse, before any work, what cannot be trained."""
    if config.optim.batch > len(dataset):
        raise UserError(
            f"the global batch of {config.optim.batch} is larger than the {len(dataset)} images of {config.data}; "
            "lower --optim.batch"
        )
    if config.optim.batch % world.ranks:
        raise UserError(
            f"the global batch of {config.optim.batch} does not divide among {world.ranks} ranks; "
            "set --optim.batch to a multiple"
        )
    if config.contrast.queue >= len(dataset):
        raise UserError(
            f"a queue of {config.contrast.queue} keys is not smaller than the {len(dataset)} images of {config.data}: "
            f"every image would be its own negative; set --contrast.queue below {len(dataset)} "
            f"({max(1, len(dataset) // 8)} is a good start)"
        )
    if config.contrast.queue > len(dataset) // 2 and config.contrast.negatives == "all" and world.main:
        log.warning(
            "a queue of %d keys holds most of the %d images of %s, relatives of each among its negatives; "
            "lower --contrast.queue or set --contrast.negatives strangers",
            config.contrast.queue, len(dataset), config.data,
        )  # fmt: skip
    check_sinks(config.monitor.sinks)
    try:
        resolve_impl(config.runtime.impl, world.device)
    except ValueError as error:
        raise UserError(f"runtime.impl={config.runtime.impl}: {error}") from error


def open_data(config: TrainingConfig, world: World) -> tuple[Dataset, Dataset | None]:
    """The images to train on and those of the monitor, if it has any; the same on every rank, with the same classes."""
    dataset = open_same(config.data, config.loader, world)
    val = open_same(config.monitor.val, config.loader, world) if config.monitor.val else None
    if val:
        check_labels(dataset, val, tell=world.main)
    return dataset, val


def resume(config: TrainingConfig, key: str, world: World) -> tuple[dict[str, Any] | None, World]:
    """The state to go on from, if there is one, and the processes as the ranks that the run was begun with.

    Tensors are on the CPU. `TransientError` where the run has saved more than its folder holds now.
    """
    return go_on(config.out, key, world)


def train(
    config: TrainingConfig,
    key: str,
    data: tuple[Dataset, Dataset | None],
    plan: Plan,
    method: Method,
    world: World,
    state: dict[str, Any] | None,
) -> dict[str, Any]:
    """Run the training, or go on from `state`; returns the figures for the stage record.

    data: see `open_data`. Asked to leave, all ranks save a checkpoint at the same step boundary and raise `Leaving`.
    Writes `model.pt`, `metrics.jsonl` and `checkpoints/` below `config.out`. Bit-exact on the CPU for a fixed number of
    processes and threads: killed at any point and started again, it ends with the weights of an uninterrupted run. So
    does one of two ranks that goes on in one process; fewer processes than ranks change roundings at most.
    """
    dataset, val = data
    per_epoch = plan.steps_per_epoch
    total = config.optim.epochs * per_epoch
    optimiser = sgd(method.model.parameters(), config.optim)
    train_on = make_step(config, method, optimiser, world)
    folder = config.out / "checkpoints"
    start = state["step"] if state else 0
    if start > total:
        raise UserError(
            f"{folder} holds a checkpoint of step {start}, but this run has {total} steps in all; move that file away, "
            "or choose another --out"
        )
    profile = StepProfile(config.runtime.profile, config.out, range(start, total), world)
    length = float(weight_norm(method.encoder))  # before it is what a state says
    health = Health(method.guess, per_epoch, length, math.ceil(config.contrast.queue / config.optim.batch))
    if state:
        _restore(state, method, optimiser)
        world.watch.event("resumed", step=start, ranks=world.ranks, size=world.size)
    world.watch.event("training", step=start, steps=total)
    metrics = Metrics(config.out / "metrics.jsonl", world, state, sides=Sides(method, world.device))
    sinks = Sinks(config, main=world.main)
    metrics.readers += [health.look, sinks.take]
    failures, val_failures = (
        Failures(data, config.loader.most_bad(len(data)), "raise --loader.max-bad, or run `bingo check` and pack again")
        for data in (dataset, val or dataset)
    )
    evaluation = Evaluation(method, failures, val_failures, config, world)
    batches = training_batches(
        dataset,
        plan,
        world,
        start=start,
        stop=total,
        settings=config.loader,
        failures=failures,
    )
    began, speed = time.perf_counter(), Speed(config.optim.batch, world)
    method.encoder.train()
    bar = progress_bar("step", total, start, images=config.optim.batch, show=world.main)
    with sinks, Background() as background, bar as advance:
        for step in range(start, total):
            profile.at(step)
            shares = speed.take(batches, world.shares)
            learning_rate = config.optim.lr_at(step, per_epoch)
            done = step + 1
            epoch_ends = done % per_epoch == 0
            measure = epoch_ends or done % config.runtime.log_every == 0
            loss, measures = train_on(shares, learning_rate, config.seed * 1_000_003 + step, measure=measure)
            if measures is not None:
                measures = torch.cat([measures, weight_norm(method.encoder).to(measures.dtype)[None]])
            line = {"step": step, "epoch": step // per_epoch, "lr": learning_rate, "time": round(time.time(), 3)}
            metrics.step(loss, line | (speed.figures() if measure else {}), measures)
            if epoch_ends and val and (done == total or (done // per_epoch) % config.monitor.every == 0):
                with speed.aside():
                    found = evaluation()
                metrics.evaluation(done, done // per_epoch, **found)
            world.watch.beat(done)
            leaves = done < total and world.leaving()
            saves = epoch_ends or leaves or done % config.runtime.checkpoint_every == 0
            if saves or done % config.runtime.log_every == 0:
                metrics.bad(done, failures)
            if saves:
                written = {**metrics.state(), "arithmetic": arithmetic(config)}
                now = partial(_state, method, optimiser, key, written, world)
                save_beside(background, config.out, done, now, world)
                speed.tell(done)
            elif done % config.runtime.log_every == 0:
                metrics.flush()
            advance(done, note=_note(step // per_epoch, config.optim.epochs, metrics.newest))
            background.look()
            if leaves:
                leave_saved(background, world, done)
        background.wait()
    profile.at(total)
    world.settle()
    weights = save_encoder(config.out / "model.pt", method.saved) if world.main else ""
    seconds = time.perf_counter() - began
    metrics.close()
    told = speed.whole(method.work(), config.augment.size, config.runtime.precision)
    return {
        "bad_images": len(metrics.bad_images) or None,
        "left_out": left_out_now(dataset) or None,
        "lost_lines": metrics.lost or None,
        "steps": total,
        "ranks": world.ranks,
        "resumed_from": start,
        "knn": None,
        **metrics.figures(),
        **unusual(config),
        "weights": weights,
        "steps_per_second": round((total - start) / max(seconds, 1e-9), 2),
        **told,
    }


def _note(epoch: int, epochs: int, newest: dict[str, float]) -> str:
    """Where a training is, for people."""
    words = (("loss", "loss"), ("top-1", "top1"), ("kNN", "knn"))
    told = [f"{word} {newest[name]:.3g}" for word, name in words if name in newest]
    waits = newest.get("loader_wait", 0)
    told += [f"{100 * waits:.0f} % waiting for images"] if waits >= 0.005 else []
    return ", ".join([f"epoch {epoch + 1} of {epochs}", *told])


def _state(
    method: Method, optimiser: torch.optim.Optimizer, key: str, written: dict[str, Any], world: World
) -> dict[str, Any]:
    modules = {name: module.state_dict() for name, module in method.modules().items()}
    return {
        "key": key,
        "ranks": world.ranks,
        **written,
        "modules": modules,
        "optimiser": optimiser.state_dict(),
        "queue": method.queue.state(),
        **({"own_queue": method.own_queue.state()} if method.own_queue else {}),
    }


def _restore(state: dict[str, Any], method: Method, optimiser: torch.optim.Optimizer) -> None:
    for name, module in method.modules().items():
        module.load_state_dict(state["modules"][name], strict=True)
    load_sgd(optimiser, state["optimiser"])
    method.queue.load(state["queue"])
    if method.own_queue:
        method.own_queue.load(state["own_queue"])
