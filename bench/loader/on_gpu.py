"""`bingo bench loader` on a GPU: decoder settings, pixels against the CPU's, memory over time."""

import time

import torch

from bingo.bench.loader.record import Gpu, Memory, Pixels, SweepRow
from bingo.bench.loader.variants import AUGMENT, Ours
from bingo.bench.samples import with_noise
from bingo.bench.timing import first_line, visits
from bingo.config_parts import Loader
from bingo.distributed import World
from bingo.images.dataset import Dataset
from bingo.views.loader import training_batches
from bingo.views.plan import Plan

LOADS = (0.0, 0.35, 0.65, 1.0)


def run(
    data: Dataset, batches: tuple[int, ...], threads: int, device: torch.device, rounds: int, seconds: float
) -> Gpu:
    """Everything this file measures; on a machine without a GPU one row that says so."""
    if device.type != "cuda":
        return {"absent": "torch sees no GPU"}
    return {
        "decoder": versions(),
        "sweep": sweep(data, batches, threads, device, rounds),
        "pixels": [pixels(data, min(batches), threads, device, fancy) for fancy in (True, False)],
        "memory": memory(data, max(batches), threads, device, seconds),
    }


def versions() -> dict[str, str | None]:
    """What decodes. Whether the card has JPEG engines shows in the sweep: without them the load changes nothing."""
    from bingo.environment import driver, version

    names = ("nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13", "nvidia-nvjpeg")
    return {"driver": driver(), **{name: version(name) for name in names}}


def sweep(data: Dataset, batches: tuple[int, ...], threads: int, device: torch.device, rounds: int) -> list[SweepRow]:
    """Images per second of decode and two crops for every load, batch and upsampling, visited in turn."""
    cases: list[tuple[float, int, bool]] = [(load, batch, True) for load in LOADS for batch in batches]
    cases += [(0.65, max(batches), False)]
    rows: dict[str, SweepRow] = {}
    samples: dict[str, list[float]] = {}
    loaders: dict[str, Ours] = {}
    for load, batch, fancy in cases:
        name = f"load {load}, batch {batch}" + ("" if fancy else ", plain upsampling")
        samples[name] = []
        rows[name] = {"name": name, "load": load, "batch": batch, "fancy": fancy, "seconds": samples[name]}
        loaders[name] = Ours(data, "crop", batch, threads, device, Loader(load, fancy))
    for name in [*loaders, *visits(list(loaders), rounds)]:
        ours = loaders[name]
        steps = max(1, min(ours.plan.steps_per_epoch, 2048 // ours.plan.batch))
        began = time.perf_counter()
        try:
            ours.burst(0, steps)
        except Exception as error:  # a setting that does not work is a row that says so
            rows[name]["error"] = first_line(error)
            continue
        samples[name].append((time.perf_counter() - began) / (steps * ours.plan.batch))
    for name, row in rows.items():
        if len(samples[name]) > 1:  # the first is warm-up
            row["seconds"] = summary = with_noise(samples[name][1:])
            row["images_per_second"] = 1 / summary["median"]
    return list(rows.values())


def pixels(data: Dataset, batch: int, threads: int, device: torch.device, fancy: bool) -> Pixels:
    """Crops of one batch by the GPU's decoder against the CPU's: share of equal values and the largest difference."""
    plan = Plan(data.sizes, batch, AUGMENT)
    found = []
    for where in (torch.device("cpu"), device):
        stream = training_batches(
            data, plan, World(0, 1, where, threads), start=0, stop=1,
            settings=Loader(fancy_upsampling=fancy),
        )  # fmt: skip
        found.append(torch.cat(next(stream).crops[0]).cpu().int())
    difference = (found[0] - found[1]).abs()
    return {
        "fancy": fancy,
        "share_equal": (difference == 0).float().mean().item(),
        "mean_levels": difference.float().mean().item(),
        "largest_levels": int(difference.max()),
    }


def memory(data: Dataset, batch: int, threads: int, device: torch.device, seconds: float) -> Memory:
    """Bytes in use on the device while streaming for a while: [seconds, bytes] about once a second."""
    plan = Plan(data.sizes, batch, AUGMENT)
    stream = training_batches(data, plan, World(0, 1, device, threads), start=0, stop=10**9, settings=Loader())
    began = time.perf_counter()
    marks: list[list[float]] = []
    for _ in stream:
        now = time.perf_counter() - began
        if not marks or now - marks[-1][0] >= 1:
            free, total = torch.cuda.mem_get_info(device)
            marks.append([now, total - free])
        if now > seconds:
            break
    return {"batch": batch, "marks": marks, "growth_bytes": marks[-1][1] - marks[len(marks) // 2][1]}
