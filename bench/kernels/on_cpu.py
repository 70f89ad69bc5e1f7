"""The queue-softmax loss on the CPU: the chunked implementation against the naive one, time and memory.

Both compute the release's M = 2 loss and its gradient. The naive one does what the published code does: for each
positive the R x (1 + K) logits are put in memory and go through a softmax. Timing: samples of the two are interleaved,
after an accuracy gate. Memory: each runs once in a fresh process, and its extra memory is the kernel's high-water mark
of resident memory (VmHWM, reset just before the call) minus the resident memory at that moment; so pages that the
process had mapped and not touched count once they are. There, glibc is told to give every block of 64 KB and more pages
of its own and to return them when freed: memory left over from making the inputs cannot hide what a loss needs.
"""

import re
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bingo.bench import fresh_process
from bingo.bench.kernels.record import CpuResult
from bingo.bench.kernels.workload import naive_loss, unit, with_gradient
from bingo.bench.samples import median_interval, ratio_interval
from bingo.bench.timing import relative_error
from bingo.environment import cpu_name
from bingo.kernels import bag_loss, queue_softmax
from bingo.kernels.reference import queue_softmax_chunked
from bingo.kernels.request import Request

TEMPERATURE = 0.2
POSITIVES = 2
GATE = 1e-5
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def naive(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    return naive_loss(q, keys, weights, queue, TEMPERATURE)


def chunked(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    return bag_loss(q, keys, weights, queue, TEMPERATURE, impl="chunked", unit_rows=True)


LOSSES: dict[str, Callable[..., Tensor]] = {"naive": naive, "chunked": chunked}


def run(rows: int = 768, queue: int = 65536, dim: int = 128, samples: int = 7) -> CpuResult:
    """Measure loss and gradient (fp32) of both; seconds, bytes and every sample in a JSON-ready record.

    ValueError for sizes below 1; RuntimeError, before anything is timed, if the chunked loss or gradient is further
    than 1e-5 (relative) from fp64.
    """
    if min(rows, queue, dim, samples) < 1:
        raise ValueError("rows, queue, dim and samples must be at least 1")
    inputs = make_inputs(rows, queue, dim)
    errors = _accuracy(inputs)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for sample in range(samples + 1):  # the first of each is warm-up
        for name in LOSSES:
            elapsed = _time(name, inputs)
            if sample:
                seconds[name].append(elapsed)
    ratios = [naive / ours for naive, ours in zip(seconds["naive"], seconds["chunked"], strict=True)]
    return {
        "kind": "cpu",
        "shape": {"rows": rows, "queue": queue, "dim": dim, "positives": POSITIVES, "dtype": "float32"},
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "relative_error": errors,
        "seconds": seconds,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "interval_seconds": {name: median_interval(values)["interval"] for name, values in seconds.items()},
        "naive_over_chunked": {
            "median": statistics.median(ratios),
            "interval": ratio_interval(seconds["naive"], seconds["chunked"])["interval"],
            "samples": ratios,
        },
        "extra_bytes": {name: _extra_bytes_elsewhere(name, rows, queue, dim) for name in LOSSES},
        "host_seconds": host_overhead(),
    }


def host_overhead(batch: int = 100, samples: int = 15) -> dict[str, list[float]]:
    """Seconds per call on a problem so small that only Python counts: the op, and its implementation called directly.

    Each sample is a mean over `batch` calls; samples of the three alternate. One thread: on a busy machine the wait of
    several for each other is longer than the call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _host_overhead(batch, samples)
    finally:
        torch.set_num_threads(threads)


def _host_overhead(batch: int, samples: int) -> dict[str, list[float]]:
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    q, queue = unit(generator, cpu, 4, 16), unit(generator, cpu, 32, 16)
    wanting = q.clone().requires_grad_()
    calls: dict[str, Callable[[], object]] = {
        "implementation alone": lambda: queue_softmax_chunked(Request(q, queue, TEMPERATURE)),
        "queue_softmax": lambda: queue_softmax(q, queue, TEMPERATURE, impl="chunked"),
        "queue_softmax, gradient wanted": lambda: queue_softmax(wanting, queue, TEMPERATURE, impl="chunked"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for sample in range(samples + 1):  # the first of each is warm-up
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(batch):
                call()
            if sample:
                seconds[name].append((time.perf_counter() - start) / batch)
    return seconds


def print_table(result: CpuResult) -> None:
    """Print what `run` returned."""
    shape, ratio = result["shape"], result["naive_over_chunked"]
    print(
        f"loss + gradient, R={shape['rows']} K={shape['queue']} C={shape['dim']} M={shape['positives']} "
        f"{shape['dtype']}, {result['cpu']}, {result['threads']} thread(s), torch {result['torch']}"
    )
    print(f"{'':10}{'median s':>10}{'min':>9}{'max':>9}{'n':>4}{'extra MB':>11}")
    for name, values in result["seconds"].items():
        extra = result["extra_bytes"][name]
        memory = "-" if extra is None else f"{extra / 1e6:.1f}"
        print(
            f"{name:10}{result['median_seconds'][name]:10.3f}{min(values):9.3f}{max(values):9.3f}"
            f"{len(values):4}{memory:>11}"
        )
    every = ", ".join(f"{value:.2f}" for value in ratio["samples"])
    low, high = ratio["interval"]
    print(f"naive / chunked: median of pairs {ratio['median']:.2f}; ratio of medians, 95 %: {low:.2f} to {high:.2f}")
    print(f"  pairs: {every}")
    print(
        "relative error of chunked against fp64: "
        + ", ".join(f"{k} {v:.1e}" for k, v in result["relative_error"].items())
    )
    print(
        "host time per call, median of",
        len(result["host_seconds"]["queue_softmax"]),
        "samples, R=4 K=32 C=16, one thread:",
    )
    for name, values in result["host_seconds"].items():
        middle, least, most = (1e6 * f(values) for f in (statistics.median, min, max))
        print(f"  {name:32}{middle:7.1f} µs  ({least:.1f} to {most:.1f})")


def make_inputs(rows: int, queue: int, dim: int) -> Inputs:
    """Unit rows q (wants a gradient), keys (R, M, C), equal weights (1, M), queue: random, the same every time."""
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    keys, weights = unit(generator, cpu, rows, POSITIVES, dim), torch.full((1, POSITIVES), 1 / POSITIVES)
    return unit(generator, cpu, rows, dim).requires_grad_(), keys, weights, unit(generator, cpu, queue, dim)


def _loss_and_gradient(name: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    return with_gradient(lambda: LOSSES[name](*inputs), inputs[0], torch.full((len(inputs[0]),), 1 / len(inputs[0])))


def _time(name: str, inputs: Inputs) -> float:
    start = time.perf_counter()
    _loss_and_gradient(name, inputs)
    return time.perf_counter() - start


def _accuracy(inputs: Inputs) -> dict[str, float]:
    """Relative error of the chunked loss and gradient against the naive one in fp64, on at most 64 of the rows."""
    q, keys, weights, queue = (tensor.detach() for tensor in inputs)
    few = (q[:64].requires_grad_(), keys[:64], weights, queue)
    exact = (few[0].detach().double().requires_grad_(), keys[:64].double(), weights.double(), queue.double())
    ours, truth = _loss_and_gradient("chunked", few), _loss_and_gradient("naive", exact)
    errors = [relative_error(mine, exactly) for mine, exactly in zip(ours, truth, strict=True)]
    if not max(errors) <= GATE:
        raise RuntimeError(
            f"chunked is off by {errors} (loss, gradient), more than {GATE}; its time would mean nothing"
        )
    return {"loss": errors[0], "gradient": errors[1]}


def extra_bytes(name: str, rows: int, queue: int, dim: int) -> int:
    """Peak resident memory that one loss and gradient adds to this process. Linux only."""
    _loss_and_gradient(name, make_inputs(8, 64, dim))  # thread pools and lazily loaded code are not the loss's
    inputs = make_inputs(rows, queue, dim)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now
    before = _resident("VmRSS")
    _loss_and_gradient(name, inputs)
    return _resident("VmHWM") - before


def print_extra_bytes(threads: int, name: str, rows: int, queue: int, dim: int) -> None:
    """A child's work."""
    torch.set_num_threads(threads)
    print(extra_bytes(name, rows, queue, dim))


def _extra_bytes_elsewhere(name: str, rows: int, queue: int, dim: int) -> int | None:
    """`extra_bytes` in a fresh process with the same number of threads; None where the system cannot tell."""
    command = fresh_process.command(print_extra_bytes, [torch.get_num_threads(), name, rows, queue, dim])
    environment = fresh_process.environment() | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else None


def _resident(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024
