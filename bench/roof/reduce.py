"""All-reduce between ranks: seconds by message size, and the alpha and beta that explain them.

Under torchrun or a submitted job the ranks are there (NCCL on GPUs, gloo elsewhere). Alone, this process starts ranks
on its own machine, fresh interpreters that meet through loopback.
"""

import json
import math
import socket
import statistics
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from bingo.bench import fresh_process
from bingo.bench.ceilings import SAMPLES
from bingo.config_parts import Device, Runtime
from bingo.distributed import World, world
from bingo.errors import UserError
from bingo.variables import place

CALLS = 5
LIMIT_S = 600.0


class Curve(NamedTuple):
    """Ranks on how many nodes, and bytes -> seconds of one all-reduce, all samples of the slowest rank."""

    ranks: int
    nodes: int
    seconds: dict[int, list[float]]


class Link(NamedTuple):
    """seconds = alpha + beta * bytes that a rank sends and adds up; alpha in seconds, rate = 1 / beta in bytes/s."""

    alpha: float
    rate: float


def curve(here: World, sizes: Sequence[int], nodes: int, samples: int = SAMPLES) -> Curve:
    """Measured by every rank together; the same on all of them."""
    found = {}
    for size in sizes:
        message = torch.ones(max(1, size // 4), device=here.device)
        found[size] = [_slowest(here, message) for _ in range(samples + 1)][1:]
    return Curve(here.size, nodes, found)


def _slowest(here: World, message: torch.Tensor) -> float:
    """Seconds of one all-reduce of a rank that began with the others, over CALLS; the slowest rank's."""
    here.barrier()
    _settle(here.device)
    start = time.perf_counter()
    for _ in range(CALLS):
        dist.all_reduce(message, dist.ReduceOp.MAX)
    _settle(here.device)
    mine = torch.tensor([(time.perf_counter() - start) / CALLS], dtype=torch.float64, device=here.device)
    dist.all_reduce(mine, dist.ReduceOp.MAX)
    return float(mine)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def fit_link(found: Curve) -> Link:
    """Alpha and beta by least squares of the relative error; each at least next to nothing.

    A ring of N ranks moves 2 (N - 1) / N times the message through every rank.
    """
    grown = 2 * (found.ranks - 1) / found.ranks
    points = [(grown * size, statistics.median(samples)) for size, samples in found.seconds.items()]
    rows = torch.tensor([[1 / t, size / t] for size, t in points], dtype=torch.float64)
    alpha, beta = torch.linalg.lstsq(rows, torch.ones(len(points), 1, dtype=torch.float64)).solution.flatten().tolist()
    if beta <= 0:  # nothing but noise: the largest message says how fast the link is at least
        size, seconds = max(points)
        return Link(min(seconds for _, seconds in points), size / seconds)
    return Link(max(alpha, 0.0), 1 / beta)


def local_curve(ranks: int, sizes: Sequence[int], device: Device, samples: int) -> Curve:
    """Of ranks that are started here for it. `UserError`: one of them failed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = fresh_process.environment() | {
        "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    command = fresh_process.command(rank_main, [list(sizes), device, samples])
    started = [
        subprocess.Popen(
            command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=LIMIT_S) for process in started]
    finally:
        for process in started:
            process.kill()
    for rank, (process, (_, error)) in enumerate(zip(started, said, strict=True)):
        if process.returncode:
            last = (error.strip().splitlines() or ["no output"])[-1]
            raise UserError(f"rank {rank} of {ranks} failed: {last}; set --ranks to fewer, or to 1 for none")
    seconds = json.loads(said[0][0].splitlines()[-1])
    return Curve(ranks, 1, {int(size): samples for size, samples in seconds.items()})


def rank_main(sizes: list[int], device: Device, samples: int) -> None:
    """One of `local_curve`'s ranks; the first prints the seconds."""
    with world(Runtime(device=device, threads=1)) as here:
        found = curve(here, sizes, 1, samples)
        if here.main:
            print(json.dumps(found.seconds), flush=True)


def nodes_of(here: World) -> int:
    """Nodes of the ranks that are there, by how many of them a node has."""
    return math.ceil(here.size / place().local_size)
