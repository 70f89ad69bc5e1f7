"""`bingo bench loader`: what decoding, cropping and augmenting cost, ours beside other loaders.

The main figure is CPU time per decoded image (all threads and worker processes), which a busy machine disturbs least;
each image gives two views. Variants take turns, forwards and backwards, every sample is kept, and a ratio is shown only
where our crops and colours passed the accuracy gate. DALI's pipelines are built anew for every burst (13 ms), which a
training run does once: bursts are long. Images are made here unless a folder is given; without a GPU the
part that needs one is a row that says so.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from bingo.bench.arguments import chosen, pick_device, seconds_on
from bingo.bench.keeper import Keeper
from bingo.bench.loader import on_gpu as loader_gpu
from bingo.bench.loader.gate import gate
from bingo.bench.loader.images import describe, make_images
from bingo.bench.loader.record import Measured, Result, Row, ShapeRecord
from bingo.bench.loader.rivals import RIVALS
from bingo.bench.loader.rows import rows
from bingo.bench.loader.table import sound, table
from bingo.bench.loader.variants import OURS, RELEASE, STAGES, Variant, build, names, stages
from bingo.bench.samples import paired_ratio, with_noise
from bingo.bench.timing import first_line, visits
from bingo.environment import cpu_name
from bingo.errors import UserError
from bingo.images.image_folder import ImageFolder
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder

IMAGES = 256  # made where no folder is given


@dataclass(frozen=True)
class LoaderShape:
    """What is run: images per batch, batches per sample, rounds of two samples each, threads or workers, device."""

    device: torch.device
    batch: int = 16
    burst: int = 16
    rounds: int = 3
    threads: int = 1
    seconds: float = 30.0
    variants: tuple[str, ...] = ()


@dataclass
class Runner:
    """One variant up to one stage, and its samples in seconds per decoded image."""

    variant: Variant
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    taken: int = 0

    def sample(self, shape: LoaderShape, steps_per_epoch: int) -> None:
        """One burst; both of a round, and those of every runner, have the same images."""
        first = self.taken // 2 * shape.burst % max(1, steps_per_epoch - shape.burst + 1)
        images = shape.batch * shape.burst
        cpu, wall = self.variant.cpu_seconds(), time.perf_counter()
        self.variant.burst(first, shape.burst)
        self.wall.append((time.perf_counter() - wall) / images)
        self.cpu.append((self.variant.cpu_seconds() - cpu) / images)
        self.taken += 1


def run(
    folder: Path, packed: Path, shape: LoaderShape, on_change: Callable[[Result], None] = lambda found: None
) -> Result:
    """Measure every variant and stage on the images of `folder`, of which `packed` is the packed form.

    on_change gets the result so far after every half of a round.
    """
    data = open_dataset(packed)
    threads = torch.get_num_threads()
    torch.set_num_threads(shape.threads)
    try:
        found: Result = {
            "shape": cast(ShapeRecord, {**vars(shape), "device": str(shape.device)}),
            "hardware": {"cpu": cpu_name(), "gpu": _gpu_name(shape.device)},
            "images": describe([folder / path for path in data.paths]),
            "gate": gate(data, shape.batch, shape.threads, shape.device),
            "order": [], "discarded_bursts": 1, "rows": [], "gpu": {"absent": "not measured yet"},
        }  # fmt: skip

        def so_far(measured: Measured) -> None:
            found.update(measured)
            on_change(found)

        so_far(_measure(folder, packed, shape, len(data) // shape.batch, so_far))
        batches = {shape.batch, 4 * shape.batch} if len(data) >= 4 * shape.batch else {shape.batch}
        found["gpu"] = loader_gpu.run(data, tuple(batches), shape.threads, shape.device, shape.rounds, shape.seconds)
        return found
    finally:
        torch.set_num_threads(threads)


def _gpu_name(device: torch.device) -> str | None:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _measure(
    folder: Path, packed: Path, shape: LoaderShape, steps_per_epoch: int, on_change: Callable[[Measured], None]
) -> Measured:
    runners: dict[tuple[str, str], Runner] = {}
    failed: dict[tuple[str, str], str] = {}
    cases = [(name, stage) for name in chosen(names(), shape.variants) for stage in stages(name)]
    with contextlib.ExitStack() as stack:
        for name, stage in cases:
            try:
                variant = build(
                    name, stage, folder, packed, batch=shape.batch, threads=shape.threads, device=shape.device
                )
                stack.callback(variant.close)
                variant.burst(0, shape.burst)  # warm-up: starts the workers
                runners[name, stage] = Runner(variant)
            except UserError as error:  # an absent library, and how to get it
                failed[name, stage] = str(error)
            except Exception as error:  # a variant that fails is a row that says so
                failed[name, stage] = f"{type(error).__name__}: {first_line(error)}"
        order = [cases[int(index)] for index in visits([str(cases.index(case)) for case in runners], shape.rounds)]
        for number, case in enumerate(order, start=1):
            runners[case].sample(shape, steps_per_epoch)
            if number % len(runners) == 0:
                on_change(_measured(cases, order[:number], runners, failed))
    return _measured(cases, order, runners, failed)


def _measured(
    cases: list[tuple[str, str]],
    order: list[tuple[str, str]],
    runners: dict[tuple[str, str], Runner],
    failed: dict[tuple[str, str], str],
) -> Measured:
    made = [_row(case, runners, failed) for case in cases]
    return {"order": [" / ".join(case) for case in order], "discarded_bursts": 1, "rows": made}


def _row(case: tuple[str, str], runners: dict[tuple[str, str], Runner], failed: dict[tuple[str, str], str]) -> Row:
    name, stage = case
    if case in failed:
        return {"variant": name, "stage": stage, "error": failed[case]}
    ours = runners.get((OURS, stage))
    mine, base, whole = runners[case], runners.get((RELEASE, stage)), runners.get((RELEASE, STAGES[-1]))
    cpu, wall = with_noise(mine.cpu), with_noise(mine.wall)
    row: Row = {
        "variant": name,
        "stage": stage,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "images_per_cpu_second": 1 / cpu["median"],
        "images_per_second": 1 / wall["median"],
    }
    if base is not None and base is not mine:
        row["over_release"] = paired_ratio(base.cpu, mine.cpu)
    if whole is not None and whole is not mine:
        row["over_release_whole"] = paired_ratio(whole.cpu, mine.cpu)
    if ours is not None and ours is not mine:
        row["over_ours"] = paired_ratio(mine.cpu, ours.cpu)
    if name in RIVALS:
        row["numerics"] = RIVALS[name].numerics
    return row


@contextlib.contextmanager
def images(options: Any) -> Iterator[tuple[Path, Path]]:
    """(image folder, its packed form): the user's folder, or made ones, kept below --cache if that is given."""
    with tempfile.TemporaryDirectory(prefix="bingo-bench-") as temporary:
        folder = options.data or (options.cache or Path(temporary)) / "images"
        data = open_dataset(folder) if options.data else None
        if data is not None and not isinstance(data, ImageFolder):
            raise UserError(f"--data {folder} is a packed dataset; name the image folder that it was packed from")
        count = options.images or IMAGES if data is None else len(data)
        if count < options.batch * options.burst:
            raise UserError(
                f"{count} images are fewer than --batch {options.batch} times --burst {options.burst}; lower one"
            )
        if data is None:
            make_images(folder, count)
        pack_folder(folder, Path(temporary) / "packed", convert=True)
        yield folder, Path(temporary) / "packed"


def main(options: argparse.Namespace) -> int:
    """`bingo bench loader`; `--json FILE` keeps every sample. 1 if the accuracy gate failed."""
    chosen(names(), options.variants)
    device = pick_device(options.device)
    shape = LoaderShape(
        device, options.batch, options.burst, options.rounds, options.threads,
        seconds_on(device, options.seconds, LoaderShape.seconds), options.variants,
    )  # fmt: skip
    keeper = Keeper(options.json, "loader")
    keeper.say("making and packing the images")
    with images(options) as (folder, packed):
        found = run(folder, packed, shape, lambda now: keeper.keep(rows(now), now))
    print("\n".join(table(found)), flush=True)
    keeper.finish(rows(found), found)
    return 0 if sound(found["gate"]) else 1
