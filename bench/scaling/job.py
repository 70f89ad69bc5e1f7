"""The measured job: steps of a real distillation on every rank, with messages between the ranks and without.

A sample is a burst of whole steps: batch, augmentation, teacher, student in DDP, key gather, loss, backward pass,
optimiser, queue. All ranks begin a burst together, at a barrier outside it, and the device is idle at both ends. Bursts
of two kinds take turns, in ABBA order:

- with messages: the step of `bingo distill`.
- without: the same step under DDP's `no_sync`, and each rank puts copies of its own keys into the queue in place of the
  others'. What a rank takes then is its own work alone; so ranks that are slow are seen, which with messages all wait
  for each other. Their weights drift apart, and are rank 0's again before the next burst.

The part of the step with messages that exceeds the one without is exposed communication: messages that nothing hides,
and waiting for slower ranks. No timer is inside a burst but around the loader.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bingo.bench.scaling.samples import Burst, RankSamples, write_samples
from bingo.config import DistillConfig
from bingo.config_parts import MOST, Optimiser
from bingo.config_scaling import ScalingConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.alike import open_same
from bingo.images.dataset import Dataset
from bingo.models import check_name, seeded_encoder
from bingo.train.arithmetic import settled
from bingo.train.distill import Distillation, view_counts
from bingo.train.graph import make_step
from bingo.train.loop import check_run
from bingo.train.optimiser import sgd
from bingo.variables import node
from bingo.views.decode_failures import Failures
from bingo.views.loader import Batch, training_batches
from bingo.views.plan import Plan

BAG = 5
CROPS = 4
"""Random batches that a rank goes through in turn."""
NOWHERE = Path("random")


class Alone(World):
    """A rank that sends nothing: rows of the others are copies of its own."""

    def gather_rows(self, rows: torch.Tensor) -> Callable[[], torch.Tensor]:
        copies = rows.repeat(self.size, *[1] * (rows.dim() - 1))
        return lambda: copies


def run(config: ScalingConfig, key: str, world: World) -> dict[str, Any]:
    """Measure; writes every rank's samples. The figures are medians over the bursts of rank 0.

    `UserError` for another number of ranks than the settings say, unknown networks, and images that are too few.
    """
    if world.size != config.ranks:
        raise UserError(f"the settings say ranks={config.ranks}, and {world.size} take part: start as many as they say")
    check_name(config.student)
    check_name(config.teacher)
    settings = world.by_main(lambda: settled(distillation(config), world.device, MOST))
    plan, batches = (random_batches if config.data is None else loaded_batches)(config, settings, world)
    teacher = seeded_encoder(config.teacher, dim=config.contrast.dim, hidden=config.contrast.hidden, seed=1)
    runner = Runner(config, Distillation(settings, teacher, plan, world), batches, world)
    found = world.everyone(runner.measure())
    parameters = sum(p.numel() for p in runner.method.encoder.parameters())
    if world.main:
        write_samples(config.out, found, gradient_bytes=4 * parameters)
    return {
        "images_per_second": round(world.size * config.batch / median(found[0], "together", "seconds"), 2),
        "cpu_seconds_per_step": round(median(found[0], "together", "cpu"), 4),
    }


def median(rank: RankSamples, kind: str, figure: str) -> float:
    """Of one figure over one rank's bursts of a kind."""
    bursts: list[dict[str, float]] = rank[kind]  # type: ignore[literal-required]
    return float(np.median([burst[figure] for burst in bursts]))


def distillation(config: ScalingConfig) -> DistillConfig:
    """The release objective past its warm-up epochs, so that every positive has a weight; `auto` as in a long run."""
    return DistillConfig(
        data=config.data or NOWHERE, out=config.out, bags=NOWHERE, teacher=NOWHERE, student=config.student,
        warm_epochs=0, contrast=config.contrast, augment=config.augment, runtime=config.runtime, loader=config.loader,
        optim=Optimiser(batch=config.batch * config.ranks), seed=config.seed,
    )  # fmt: skip


def steps_in_all(config: ScalingConfig) -> int:
    """Warm-up, which is a burst of each kind, included."""
    return 2 * (config.rounds + 1) * config.steps


def random_batches(config: ScalingConfig, settings: DistillConfig, world: World) -> tuple[Plan, Iterator[Batch]]:
    """A plan over made-up images, and this rank's batches of uint8 noise on its device.

    A few sets of crops come again and again; what is planned for them is new in every step.
    """
    rng = np.random.default_rng(config.seed)
    images = max(4 * settings.optim.batch, 1000)
    sizes = rng.integers(320, 560, size=(images, 2)).astype(np.int32)
    plan = plan_of(settings, sizes, rng)
    pixels = (config.batch, config.augment.size, config.augment.size, 3)
    generator = torch.Generator().manual_seed(config.seed * 65_537 + world.rank)

    def crop() -> torch.Tensor:
        return torch.randint(256, pixels, dtype=torch.uint8, generator=generator).to(world.device)

    crops = [[[crop() for _ in range(count)] for count in plan.views] for _ in range(CROPS)]

    def batches() -> Iterator[Batch]:
        for step in range(steps_in_all(config)):
            yield Batch(plan.step(step, world.rank, world.size), crops[step % CROPS])

    return plan, batches()


def loaded_batches(config: ScalingConfig, settings: DistillConfig, world: World) -> tuple[Plan, Iterator[Batch]]:
    """The images of `config.data` through the loader of every training."""
    assert config.data is not None
    dataset = open_same(config.data, config.loader, world)
    world.together(lambda: check_images(settings, dataset, world))
    plan = plan_of(settings, dataset.sizes, np.random.default_rng(config.seed))
    failures = Failures(dataset, config.loader.most_bad(len(dataset)), "run `bingo check`")
    batches = training_batches(
        dataset, plan, world, start=0, stop=steps_in_all(config), settings=config.loader, failures=failures
    )
    return plan, batches


def check_images(settings: DistillConfig, dataset: Dataset, world: World) -> None:
    """As a training refuses them, with the flags of this measurement."""
    try:
        check_run(settings, dataset, world)
    except UserError as error:
        told = str(error).replace("--contrast.queue", "--queue").replace("--optim.batch", "--batch")
        raise UserError(told) from None


def plan_of(settings: DistillConfig, sizes: np.ndarray, rng: np.random.Generator) -> Plan:
    """A training's plan with random bags."""
    bags = rng.integers(len(sizes), size=(len(sizes), BAG)).astype(np.int32)
    return Plan(sizes, settings.optim.batch, settings.augment, settings.seed, views=view_counts(settings), bags=bags)


class Runner:
    """A method with its optimiser and its batches, and the clock around bursts of steps."""

    def __init__(self, config: ScalingConfig, method: Distillation, batches: Iterator[Batch], world: World) -> None:
        self.config, self.method, self.batches, self.world = config, method, batches, world
        self.done = 0
        method.encoder.train()
        optimiser = sgd(method.model.parameters(), method.config.optim)
        self.train_on = make_step(method.config, method, optimiser, world)

    def measure(self) -> RankSamples:
        """This rank's samples in the order they were taken. Asked to leave, all ranks do so between two rounds."""
        found: RankSamples = {
            "rank": self.world.rank, "host": node(), "device": str(self.world.device), "threads": self.world.threads,
            "together": [], "alone": [],
        }  # fmt: skip
        for number in range(-1, self.config.rounds):
            for kind in ("together", "alone") if number % 2 == 0 else ("alone", "together"):
                burst = self.burst(alone=kind == "alone")
                if number >= 0:
                    found[kind].append(burst)
            self.world.watch.beat(self.done)
            if self.world.leaving(now=True):
                self.world.leave(self.done, "a measurement, which begins anew")
        return found

    def burst(self, *, alone: bool) -> Burst:
        """Seconds per step: of the wall, of the processor with all threads, and of waiting for the loader."""
        loader = 0.0
        with self.without_messages() if alone else contextlib.nullcontext():
            self.world.barrier()
            self.wait()
            began, cpu = time.perf_counter(), time.process_time()
            for _ in range(self.config.steps):
                asked = time.perf_counter()
                batch = next(self.batches)
                loader += time.perf_counter() - asked
                self.step(batch)
            self.wait()
            found = [time.perf_counter() - began, time.process_time() - cpu, loader]
        seconds, cpu, loader = (part / self.config.steps for part in found)
        return {"seconds": seconds, "cpu": cpu, "loader": loader}

    def step(self, batch: Batch) -> None:
        """The training loop's own step."""
        seed = self.config.seed * 1_000_003 + self.done
        self.train_on([batch], self.method.config.optim.lr, seed, measure=False)
        self.done += 1

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)

    @contextlib.contextmanager
    def without_messages(self) -> Iterator[None]:
        """Inside, the ranks do not know of each other; afterwards they have rank 0's weights."""
        model = self.method.model
        in_ddp = isinstance(model, torch.nn.parallel.DistributedDataParallel)
        self.method.world = alone = Alone(**vars(self.world))
        self.method.gather, gather = alone.gather_rows, self.method.gather
        try:
            with model.no_sync() if in_ddp else contextlib.nullcontext():  # type: ignore[operator]
                yield
        finally:
            self.method.world, self.method.gather = self.world, gather
        self.world.broadcast([parameter.detach() for parameter in model.parameters()])
