"""`bingo bench roof`: what this machine does at most, in the form that `bingo bench predict --fit` reads."""

import argparse
import math
from typing import cast

import torch

from bingo.bench.ceilings import COPY_BYTES, copy_seconds, host_seconds, short_seconds
from bingo.bench.record import Better, Clock, Row, write_result
from bingo.bench.roof.reduce import Curve, curve, fit_link, local_curve, nodes_of
from bingo.bench.samples import median_interval, shown
from bingo.bench.timing import device_name
from bingo.config_parts import Device, Runtime
from bingo.distributed import World, world
from bingo.models import Encoder
from bingo.models.costs import ops_of
from bingo.roof import matmul_roof
from bingo.variables import place

MESSAGES = {"cuda": tuple(4096 << shift for shift in range(0, 16, 2)), "cpu": tuple(4096 << s for s in range(0, 12, 2))}
SCALES = {
    "flops per second": (1e-9, "GFLOP/s"),
    "bytes per second": (1e-9, "GB/s"),
    "seconds": (1e6, "us"),
    "host seconds": (1e6, "us"),
    "alpha seconds": (1e6, "us"),
}


def main(options: argparse.Namespace) -> int:
    """Rank 0 prints the table and writes the file; alone, ranks are started here for the all-reduce."""
    with world(Runtime(device=cast(Device, options.device))) as here:
        curves = _curves(here, options)
        if not here.main:
            return 0
        rows = device_rows(here.device, options.size or 0, options.samples) + reduce_rows(curves)
    print("\n".join(lines(rows, f"{device_name(here.device)}, torch {torch.__version__}")))
    if options.json:
        write_result(options.json, "roof", rows)
    return 0


def _curves(here: World, options: argparse.Namespace) -> list[Curve]:
    """Of the ranks that are there, or of some that are started here."""
    sizes = options.bytes or MESSAGES[here.device.type]
    if place().size > 1:
        return [curve(here, sizes, nodes_of(here), options.samples)]
    usual = torch.cuda.device_count() if here.device.type == "cuda" else 2
    ranks = usual if options.ranks is None else options.ranks
    return [local_curve(ranks, sizes, cast(Device, here.device.type), options.samples)] if ranks > 1 else []


def device_rows(device: torch.device, size: int, samples: int) -> list[Row]:
    """Products in every precision, copies, the shortest kernel and a launch's cost. size: rows of products, 0: usual.

    Products of fp32 are those of TF32 on a GPU, as convolutions are by PyTorch's defaults.
    """
    rows: list[Row] = []
    clock: Clock = "cuda" if device.type == "cuda" else "wall"
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
        found = matmul_roof(device, dtype, side=size)
        rates = [2 * found.side**3 / seconds for seconds in found.seconds]
        rows.append(_row(f"{'tf32' if found.tf32 else name} products", "flops per second", "wall", rates))
    moved = 2 * COPY_BYTES[device.type]  # read and written
    copies = [moved / s for s in copy_seconds(device, samples=samples)]
    rows.append(_row("copies", "bytes per second", clock, copies))
    rows.append(_row("shortest kernel", "seconds", clock, short_seconds(device, samples)))
    rows.append(_row("one launch", "host seconds", "cpu", launch_seconds(device, samples)))
    return rows


def launch_seconds(device: torch.device, samples: int) -> list[float]:
    """CPU seconds per launch of a tiny network's training step: forward, backward and optimiser in eager PyTorch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    encoder = Encoder("tiny-4", dim=16, hidden=32).to(device)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.rand(2, 3, 8, 8, device=device)

    def step() -> None:
        loss = encoder.project(images).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    step()
    try:
        return host_seconds(step, sum(op.name != "empty" for op in ops_of(step)), samples)
    finally:
        torch.set_num_threads(threads)


def reduce_rows(curves: list[Curve]) -> list[Row]:
    """Every point of the curves, and the alpha and rate of each link.

    Between nodes the rate is that of one GPU's adapter, as every GPU sends its share of a node's sum, and alpha that of
    one doubling of the nodes: the terms of `bingo bench predict`.
    """
    rows = []
    for found in curves:
        ranks = f"all-reduce, {found.nodes} nodes, {found.ranks} ranks"
        for size, seconds in found.seconds.items():
            rows.append(_row(f"{ranks}, {size} bytes", "seconds", "wall", seconds))
        link = fit_link(found)
        case, doublings, sharers = "all-reduce within a node", 1, 1
        if found.nodes > 1:
            case, sharers = "all-reduce between nodes", found.ranks // found.nodes
            doublings = math.ceil(math.log2(found.nodes))
        rows.append(_row(case, "alpha seconds", "none", [link.alpha / doublings]))
        rows.append(_row(case, "bytes per second", "none", [link.rate / sharers]))
    return rows


def _row(case: str, metric: str, clock: Clock, samples: list[float]) -> Row:
    better: Better = "higher" if metric.endswith("per second") else "lower"
    return {
        "case": case, "variant": "this machine", "metric": metric, "better": better, "clock": clock,
        "processes": [samples], "discarded": 2,
    }  # fmt: skip


def lines(rows: list[Row], machine: str) -> list[str]:
    """Medians with 95 % intervals."""
    told = [f"ceilings of {machine}"]
    for row in rows:
        scale, unit = SCALES[row["metric"]]
        found = median_interval(row["processes"][0])
        told.append(f"  {row['case']:44} {shown(found, scale):>26} {unit}, n={found['n']}, clock {row['clock']}")
    return told
