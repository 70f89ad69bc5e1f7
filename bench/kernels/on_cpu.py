"""The queue-softmax loss on the CPU: ours (chunked) against the naive one and its rivals, time and memory.

All compute the release's M = 2 loss and its gradient; `cpu_losses` has them. Timing: samples of all are interleaved,
after an accuracy gate, by the processor's clock (of all threads) and the wall's. What goes through torch.compile is
compiled before. Memory: each runs in a fresh process, and its extra memory is the kernel's high-water mark of resident
memory (VmHWM, reset just before the call) minus the resident memory at that moment; so pages that the process had
mapped and not touched count once they are. There, glibc is told to give every block of 64 KB and more pages of its own
and to return them when freed: memory left over from making the inputs cannot hide what a loss needs.
"""

import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bingo.bench import fresh_process
from bingo.bench.kernels.cpu_losses import CHUNKED, RIVALS, TEMPERATURE, Loss, build, naive
from bingo.bench.kernels.record import CpuAccuracy, CpuResult
from bingo.bench.kernels.workload import unit, with_gradient
from bingo.bench.samples import median_interval, paired_ratio, shown
from bingo.bench.timing import first_line, relative_error
from bingo.environment import cpu_name
from bingo.kernels import queue_softmax
from bingo.kernels.reference import queue_softmax_chunked
from bingo.kernels.request import Request

POSITIVES = 2
GATE = 1e-5
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
Clocks = tuple[float, float]
"""Seconds of the processor and of the wall."""


def run(
    rows: int = 768, queue: int = 65536, dim: int = 128, samples: int = 7, names: Sequence[str] = tuple(RIVALS)
) -> CpuResult:
    """Measure loss and gradient (fp32); seconds, bytes and every sample in a JSON-ready record. names: of `RIVALS`.

    A rival that is absent, fails, or is further than 1e-5 (relative) from fp64 is an entry that says so. ValueError for
    sizes below 1; RuntimeError, before anything is timed, if our own loss or gradient is further from fp64.
    """
    if min(rows, queue, dim, samples) < 1:
        raise ValueError("rows, queue, dim and samples must be at least 1")
    inputs = make_inputs(rows, queue, dim)
    losses, failed = build(names)
    accuracy = _gate(losses, failed, inputs)
    clocks = _interleaved(losses, inputs, samples)
    cpu = {name: [both[0] for both in pairs] for name, pairs in clocks.items()}
    seconds = {name: [both[1] for both in pairs] for name, pairs in clocks.items()}
    return {
        "kind": "cpu",
        "shape": {"rows": rows, "queue": queue, "dim": dim, "positives": POSITIVES, "dtype": "float32"},
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "accuracy": accuracy,
        "failed": failed,
        "cpu_seconds": cpu,
        "seconds": seconds,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "interval_seconds": {name: median_interval(values)["interval"] for name, values in seconds.items()},
        "over_chunked": {
            name: paired_ratio(values, cpu[CHUNKED])
            for name, values in cpu.items()
            if CHUNKED in cpu and name != CHUNKED
        },
        "extra_bytes": {name: _extra_bytes_elsewhere(name, rows, queue, dim) for name in losses},
        "host_seconds": host_overhead(),
    }


def _gate(losses: dict[str, Loss], failed: dict[str, str], inputs: Inputs) -> dict[str, CpuAccuracy]:
    """The relative errors of all against fp64; who fails or is wrong goes from `losses` to `failed`."""
    found: dict[str, CpuAccuracy] = {}
    for name in list(losses):
        try:
            errors = _errors(losses[name], inputs)
        except Exception as error:  # a rival that fails is a row that says so
            failed[name] = f"{type(error).__name__}: {first_line(error)}"
        else:
            found[name] = {"ok": max(errors) <= GATE, "loss": errors[0], "gradient": errors[1], "bound": GATE}
            if not found[name]["ok"]:
                failed[name] = f"wrong: off by {errors[0]:.0e} (loss) and {errors[1]:.0e} (gradient)"
        if name in failed and name == CHUNKED:
            raise RuntimeError(f"our loss: {failed[name]}, more than {GATE:.0e} is; its time would mean nothing")
        if name in failed:
            del losses[name]
    return found


def _errors(loss: Loss, inputs: Inputs) -> list[float]:
    """Relative error of loss and gradient of all rows, against the naive one in fp64 on at most 64 of the rows."""
    q, keys, weights, queue = (tensor.detach() for tensor in inputs)
    few = q[:64].double().requires_grad_(), keys[:64].double(), weights.double(), queue.double()
    truth, mine = _loss_and_gradient(naive, few), _loss_and_gradient(loss, inputs)
    scale = len(inputs[0]) / len(few[0])  # each gradient is that of a mean over its rows
    return [relative_error(mine[0][:64], truth[0]), relative_error(mine[1][:64] * scale, truth[1])]


def _interleaved(losses: dict[str, Loss], inputs: Inputs, samples: int) -> dict[str, list[Clocks]]:
    """Samples of all losses in turn, backwards every other time; the first of each, which is warm-up, is dropped."""
    taken: dict[str, list[Clocks]] = {name: [] for name in losses}
    for sample in range(samples + 1):
        for name in list(losses) if sample % 2 else reversed(list(losses)):
            cpu, wall = time.process_time(), time.perf_counter()
            _loss_and_gradient(losses[name], inputs)
            taken[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {name: pairs[1:] for name, pairs in taken.items()}


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
    print("\n".join(lines(result)))


def lines(result: CpuResult) -> list[str]:
    """The table: a line per loss, fastest first, then those without figures and the host's time."""
    shape = result["shape"]
    found = [
        f"loss + gradient, R={shape['rows']} K={shape['queue']} C={shape['dim']} M={shape['positives']} "
        f"{shape['dtype']}, {result['cpu']}, {result['threads']} thread(s), torch {result['torch']}; medians",
        f"{'':36}{'CPU s':>8}{'wall s':>8}{'min':>8}{'max':>8}{'n':>4}{'extra MB':>10}{'error':>8}"
        f"  CPU time over ours, of pairs",
    ]
    cpu = {name: statistics.median(values) for name, values in result["cpu_seconds"].items()}
    found += [_line(name, cpu[name], result) for name in sorted(cpu, key=cpu.__getitem__)]
    found += [f"{name:36}  {why}" for name, why in result["failed"].items()]
    host = result["host_seconds"]
    found += [f"host time per call, {len(host['queue_softmax'])} samples, R=4 K=32 C=16, one thread:"]
    for name, values in host.items():
        middle, least, most = (1e6 * f(values) for f in (statistics.median, min, max))
        found.append(f"  {name:32}{middle:7.1f} µs  ({least:.1f} to {most:.1f})")
    return found


def _line(name: str, cpu: float, result: CpuResult) -> str:
    wall, extra = result["seconds"][name], result["extra_bytes"][name]
    memory, over = "-" if extra is None else f"{extra / 1e6:.1f}", result["over_chunked"].get(name)
    error = max(result["accuracy"][name]["loss"], result["accuracy"][name]["gradient"])
    return (
        f"{name:36}{cpu:8.3f}{statistics.median(wall):8.3f}{min(wall):8.3f}{max(wall):8.3f}{len(wall):4}{memory:>10}"
        f"{error:8.0e}  {shown(over) if over else 'ours' if name == CHUNKED else '-'}"
    )


def make_inputs(rows: int, queue: int, dim: int) -> Inputs:
    """Unit rows q (wants a gradient), keys (R, M, C), equal weights (1, M), queue: random, the same every time."""
    generator, cpu = torch.Generator().manual_seed(0), torch.device("cpu")
    keys, weights = unit(generator, cpu, rows, POSITIVES, dim), torch.full((1, POSITIVES), 1 / POSITIVES)
    return unit(generator, cpu, rows, dim).requires_grad_(), keys, weights, unit(generator, cpu, queue, dim)


def _loss_and_gradient(loss: Loss, inputs: Inputs) -> tuple[Tensor, Tensor]:
    upstream = torch.full((len(inputs[0]),), 1 / len(inputs[0]))
    return with_gradient(lambda: loss(*inputs), inputs[0], upstream)


def extra_bytes(name: str, rows: int, queue: int, dim: int) -> int:
    """Peak resident memory that one loss and gradient adds to this process. Linux only."""
    loss, inputs = build([name])[0][name], make_inputs(rows, queue, dim)
    _loss_and_gradient(loss, inputs)  # thread pools, compilation and lazily loaded code are not the loss's
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now
    before = _resident("VmRSS")
    _loss_and_gradient(loss, inputs)
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
