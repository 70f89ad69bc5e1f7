"""`bingo bench step`: a distillation step beside a release-style one: speed, memory, where time goes.

Input is what the loader hands over: random uint8 crops on the device and the parameters of a real `Plan` over made-up
image sizes and random bags, so neither DALI nor files are needed; loading is not measured. A variant's time is a burst
of whole steps without any timer inside, divided by their number; the parts come from other steps with a mark between
them (events on a GPU, the host's clock elsewhere), so their sum can exceed the step. Variants are interleaved, every
sample is kept, and a speed-up is shown only where the first step's loss agrees with the release-style one. With cached
keys no teacher is there: the step reads its keys from an array in the host's memory, within `augment`.
"""

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bingo.bench.arguments import pick_device
from bingo.bench.keeper import Keeper
from bingo.bench.samples import Estimate, paired_ratio, with_noise
from bingo.bench.step.clock import Clock, forward_hooks
from bingo.bench.step.record import Figures, Result, ShapeRecord
from bingo.bench.step.release import ReleaseStyle
from bingo.bench.step.rows import rows
from bingo.bench.step.table import table
from bingo.bench.step.variants import (
    BASE,
    RELEASE,
    Changes,
    StepShape,
    default_shape,
    peers,
    variants,
)
from bingo.bench.timing import both_clocks, device_name
from bingo.config import DistillConfig
from bingo.config_parts import Augmentation, Contrast, Impl, Optimiser, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.keys import CachedKeys, as_stored
from bingo.kernels.dispatch import resolve_impl
from bingo.models import Encoder, seeded_encoder
from bingo.train.distill import Distillation, view_counts
from bingo.views.loader import Batch, augmenter
from bingo.views.plan import Plan

LOSS_GATE = 0.02
WARM_UP = 3
LEAST_SAMPLES = 3
# What a first torch.compile of student and backward pass may take, seconds; with less time left it is not begun.
COMPILE_SECONDS = 60.0
# Names of networks that need nothing but torch, for machines without torchvision.
STAND_INS = ("tiny-16", "tiny-32")
Mark = Callable[[str], None]


@dataclass
class Runner:
    """One variant with its optimiser, the batches it goes through in turn, and what was measured."""

    name: str
    method: Distillation | ReleaseStyle
    optimiser: torch.optim.Optimizer
    batches: list[Batch]
    first_loss: float = float("nan")
    peak_bytes: int | None = None
    taken: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    def step(self, mark: Mark = lambda part: None) -> Tensor:
        """Everything the training loop does between two batches, in its order."""
        loss = loss_of(self.method, self.batches[self.taken % len(self.batches)])
        mark("loss")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        mark("backward")
        self.optimiser.step()
        mark("optimiser")
        self.method.after_step()
        mark("queue")
        self.taken += 1
        return loss.detach()


def loss_of(method: Distillation | ReleaseStyle, batch: Batch) -> Tensor:
    """The scalar loss."""
    return next(method.losses([batch]))[0] if isinstance(method, Distillation) else method.loss(batch)


def make_config(shape: StepShape, changes: Changes) -> DistillConfig:
    """The release objective past its warm-up epochs, so that every positive has a weight."""
    cached, nowhere = changes.cached, Path("synthetic")
    runtime = Runtime(
        precision=changes.precision,
        channels_last=changes.channels_last,
        compile=changes.compile,
        engine=changes.engine,
        impl=cast(Impl, shape.impl),
    )
    return DistillConfig(
        data=nowhere, out=nowhere, bags=nowhere, student=shape.student, warm_epochs=0,
        teacher=None if cached else nowhere, keys=nowhere if cached else None,
        contrast=Contrast(shape.dim, shape.hidden, shape.queue, changes.queue_dtype),
        augment=Augmentation(size=shape.size), optim=Optimiser(batch=shape.batch), runtime=runtime,
    )  # fmt: skip


def make_batches(shape: StepShape, config: DistillConfig, steps: int = 4) -> tuple[Plan, list[Batch]]:
    """A plan over made-up images with random bags of five, and its first steps on random crops (uint8 noise)."""
    rng = np.random.default_rng(0)
    images = max(steps * shape.batch, 1000)
    sizes = rng.integers(320, 560, size=(images, 2)).astype(np.int32)
    bags = rng.integers(images, size=(images, 5)).astype(np.int32)
    plan = Plan(sizes, shape.batch, config.augment, config.seed, views=view_counts(config), bags=bags)
    pixels = (shape.batch, shape.size, shape.size, 3)
    crops = [
        [torch.randint(256, pixels, dtype=torch.uint8, device=shape.device) for _ in range(count)]
        for count in plan.views
    ]
    return plan, [Batch(plan.step(step), crops) for step in range(steps)]


def make_cache(config: DistillConfig, teacher: Encoder, batches: list[Batch], images: int) -> CachedKeys:
    """One key per image: the teacher's of the key view where the image is an anchor of a batch, elsewhere another's."""
    device = batches[0].crops[0][-1].device
    teacher.to(device).eval()
    views = augmenter(config.augment, torch.float32)
    with torch.no_grad():
        keys = torch.cat([teacher(views(batch.crops[0][-1], batch.params(0, -1))) for batch in batches])
    owner = np.arange(images) % len(keys)
    owner[np.concatenate([batch.plan.groups[0] for batch in batches])] = np.arange(len(keys))
    return CachedKeys(as_stored(keys, "bf16")[owner][:, None], "bf16", "synthetic", device, 0)


def build(name: str, changes: Changes, shape: StepShape, batches: list[Batch], plan: Plan) -> Runner:
    """A variant before its first step; teachers and students of all variants start from the same weights."""
    config = make_config(shape, changes)
    teacher = seeded_encoder(shape.teacher, dim=shape.dim, hidden=shape.hidden, seed=1)
    method: Distillation | ReleaseStyle
    if name.startswith(RELEASE):
        method = ReleaseStyle(config, teacher, plan, shape.device)
    elif config.keys is None:
        method = Distillation(config, teacher, plan, World(0, 1, shape.device, 1))
    else:
        cache = make_cache(config, teacher, batches, len(plan.sizes))
        plan = replace(plan, views=view_counts(config))
        batches = [Batch(plan.step(step), [crops[:1] for crops in batch.crops]) for step, batch in enumerate(batches)]
        method = Distillation(config, cache, plan, World(0, 1, shape.device, 1))
    method.encoder.train()
    optim = config.optim
    optimiser = torch.optim.SGD(
        method.model.parameters(), lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay
    )
    return Runner(name, method, optimiser, batches)


def set_up(name: str, changes: Changes, shape: StepShape, batches: list[Batch], plan: Plan) -> Runner:
    """Build a variant, warm it up, and measure what it adds to the device's memory at its peak."""
    gpu = shape.device.type == "cuda"
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(shape.device) if gpu else 0
    runner = build(name, changes, shape, batches, plan)
    runner.first_loss = runner.step().item()
    for _ in range(WARM_UP):
        runner.step()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats(shape.device)
        runner.step()
        torch.cuda.synchronize()
        runner.peak_bytes = torch.cuda.max_memory_allocated(shape.device) - before
    return runner


def settle(runner: Runner, shape: StepShape) -> None:
    """On a GPU: give back the memory that other variants hold in the allocator, and take this one's in a step."""
    if shape.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        runner.step()
        torch.cuda.synchronize()


def time_whole(runner: Runner, shape: StepShape) -> None:
    """One sample: seconds per step of a burst by both clocks, started and ended with an idle device."""
    settle(runner, shape)

    def burst() -> None:
        for _ in range(shape.burst):
            runner.step()
        if shape.device.type == "cuda":
            torch.cuda.synchronize()

    cpu, wall = both_clocks(burst)
    runner.cpu_seconds.append(cpu / shape.burst)
    runner.seconds.append(wall / shape.burst)


def time_parts(runner: Runner, shape: StepShape) -> None:
    """One sample of every part. The forward passes are told by hooks; what lies before them is `augment`."""
    settle(runner, shape)
    clock = Clock(shape.device)
    with forward_hooks(runner.method, clock):
        clock("start")
        runner.step(clock)
    for part, seconds in clock.seconds().items():
        runner.parts.setdefault(part, []).append(seconds)


def measure(
    runners: list[Runner],
    shape: StepShape,
    deadline: float,
    on_change: Callable[[], None] = lambda: None,
    first: int = 0,
) -> None:
    """Interleave the runners, forwards and backwards in turn; stops early at the deadline (time.monotonic).

    first: the number of the first round, by which samples that were taken side by side find each other.
    """
    for sample in range(shape.samples):
        if sample >= LEAST_SAMPLES and time.monotonic() > deadline:
            return
        for runner in runners if sample % 2 == 0 else reversed(runners):
            time_whole(runner, shape)
            runner.rounds.append(first + sample)
        for runner in runners if sample < LEAST_SAMPLES else ():
            time_parts(runner, shape)
        on_change()


def run(
    shape: StepShape, seconds_budget: float = float("inf"), on_change: Callable[[Result], None] = lambda _: None
) -> Result:
    """Measure every variant at one shape; `on_change` gets the result so far whenever there is more of it.

    A variant that fails (out of memory, no compiler) is an entry that says so.
    """
    deadline = time.monotonic() + seconds_budget
    old, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True  # for all: shapes never change
    try:
        return _run(shape, deadline, on_change)
    finally:
        torch.backends.cudnn.benchmark = old


def _run(shape: StepShape, deadline: float, on_change: Callable[[Result], None]) -> Result:
    plan, batches = make_batches(shape, make_config(shape, Changes()))
    runners: dict[str, Runner] = {}
    errors: dict[str, str] = {}
    waits = any(changes.compiles for changes in variants(shape).values())
    for compiled in (False, True):
        chosen = {name: changes for name, changes in variants(shape).items() if changes.compiles == compiled}
        for name, changes in chosen.items():
            if compiled and deadline - time.monotonic() < COMPILE_SECONDS:
                errors[name] = "not begun: too little of the time budget was left"
                continue
            try:
                runners[name] = set_up(name, changes, shape, batches, plan)
            except (RuntimeError, ValueError, torch.OutOfMemoryError) as error:  # also torch's compiler errors
                errors[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            on_change(result(shape, runners, errors))
        # With compiled variants all others are measured again, so that none has a quieter machine. On a GPU those stand
        # before a compiler can fail; on a CPU they wait for it.
        joined = any(name in runners for name in chosen)
        first = shape.device.type == "cuda" or not waits
        if (joined or not any(runner.rounds for runner in runners.values())) if compiled else first:
            keep = lambda: on_change(result(shape, runners, errors))  # noqa: E731
            measure(list(runners.values()), shape, deadline, keep, shape.samples * compiled)
        on_change(result(shape, runners, errors))
    return result(shape, runners, errors)


def result(shape: StepShape, runners: dict[str, Runner], errors: dict[str, str]) -> Result:
    """A JSON-ready record: shape, settings, and per variant samples, parts (seconds) and peak memory (bytes)."""
    found: dict[str, Figures] = {name: _figures(runner, shape, runners) for name, runner in runners.items()}
    found |= {name: {"error": text} for name, text in errors.items()}
    sizes = {name: value for name, value in vars(shape).items() if name != "device"}
    return {
        "shape": cast(ShapeRecord, {**sizes, "device": str(shape.device)}),
        "hardware": device_name(shape.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "settings": {
            "cudnn_benchmark": True,
            "convolutions_may_use_tf32": torch.backends.cudnn.allow_tf32,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        },
        "variants": found,
    }


def _figures(runner: Runner, shape: StepShape, runners: dict[str, Runner]) -> Figures:
    base = runners.get(BASE)
    figures: Figures = {
        "first_loss": runner.first_loss,
        "peak_bytes": runner.peak_bytes,
        "parts": runner.parts,
        "order": "interleaved, reversed every other sample",
        "discarded_steps": WARM_UP + 1,
    }
    if runner.seconds:
        whole = with_noise(runner.seconds)
        figures |= {"seconds": whole, "samples_per_second": shape.batch / whole["median"]}
        if shape.device.type == "cpu":
            figures["cpu_seconds"] = with_noise(runner.cpu_seconds)
    if base is None or runner is base:
        return figures
    error = abs(runner.first_loss / base.first_loss - 1)
    figures["loss_gate"] = {"ok": error <= LOSS_GATE, "error": error, "bound": LOSS_GATE}
    if runner.seconds and base.seconds and error <= LOSS_GATE:
        figures["over_release"] = _ratio(base, runner, shape)
        others = [runners[name] for name in peers(runner.name) if name in runners and runners[name].seconds]
        figures["over_peers"] = {other.name: _ratio(other, runner, shape) for other in others}
    return figures


def _ratio(peer: Runner, runner: Runner, shape: StepShape) -> Estimate:
    """How many times as fast as a peer, over the rounds that both were in; on a CPU by the processor's clock.

    Other programs lengthen the wall's.
    """
    above, below = (
        dict(zip(r.rounds, r.cpu_seconds if shape.device.type == "cpu" else r.seconds, strict=True))
        for r in (peer, runner)
    )
    common = sorted(above.keys() & below.keys())
    return paired_ratio([above[turn] for turn in common], [below[turn] for turn in common])


def main(options: argparse.Namespace) -> int:
    """`bingo bench step`; `--json FILE` keeps every sample."""
    base = default_shape(pick_device(options.device))
    names = ("student", "teacher", "size", "queue", "dim", "samples", "burst", "impl")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.variants:
        given["only"] = tuple(options.variants)
    if options.compile:
        given["compile"] = options.compile == "yes"
    shapes = [replace(base, **given, batch=batch) for batch in options.batch or (base.batch,)]
    check(shapes)
    if options.threads:
        torch.set_num_threads(options.threads)
    found: list[Result] = []
    keeper = Keeper(options.json, "step")
    for shape in shapes:
        keeper.say(f"batch {shape.batch}, {shape.samples} samples of each variant")
        found.append(run(shape, on_change=lambda now: keeper.keep(rows([*found, now]), [*found, now])))
        print("\n".join(table(found[-1])), end="\n\n", flush=True)
    return keeper.finish(rows(found), found)


def check(shapes: list[StepShape]) -> None:
    """`UserError` for what could not run; no measurement is begun before all of them can."""
    for shape in shapes:
        variants(shape)
        if shape.queue % shape.batch:
            raise UserError(
                f"--queue {shape.queue} is not a multiple of --batch {shape.batch}, as the release-style step needs"
            )
        if not has_torchvision() and not {shape.student[:4], shape.teacher[:4]} == {"tiny"}:
            raise UserError(
                f"{shape.student} and {shape.teacher} need torchvision, which does not import; "
                f"add --student {STAND_INS[0]} --teacher {STAND_INS[1]}"
            )
        try:
            resolve_impl(shape.impl, shape.device)
        except ValueError as error:
            raise UserError(f"--impl {shape.impl}: {error}") from error


def has_torchvision() -> bool:
    """Whether torchvision's networks are there."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return False
    return True
