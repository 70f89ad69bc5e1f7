"""The queue-softmax loss on the CPU: the chunked implementation against the naive one, time and memory.

Both compute the release's M = 2 loss and its gradient. The naive one does what the published code does: for each
positive the R x (1 + K) logits are put in memory and go through a softmax. Timing: samples of the two are interleaved,
after an accuracy gate. Memory: each runs once in a fresh process, and its extra memory is the kernel's high-water mark
of resident memory (VmHWM, reset just before the call) minus the resident memory at that moment; so pages that the
process had mapped and not touched count once they are. There, glibc is told to give every block of 64 KB and more pages
of its own and to return them when freed: memory left over from making the inputs cannot hide what a loss needs.
"""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.environment import cpu_name
from bingo.loss import bag_aggregation_loss

TEMPERATURE = 0.2
POSITIVES = 2
GATE = 1e-5
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def naive_loss(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    """Loss per row with all logits materialised: (R, M, 1 + K) in fp32."""
    positive = torch.einsum("rc,rmc->rm", q, keys)[:, :, None]
    negative = (q @ queue.T)[:, None, :].expand(-1, keys.shape[1], -1)
    logits = torch.cat([positive, negative], dim=2) / TEMPERATURE
    return -(weights * F.log_softmax(logits, dim=2)[:, :, 0]).sum(dim=1)


def chunked_loss(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    return bag_aggregation_loss(q, keys, weights, queue, TEMPERATURE, impl="chunked")


LOSSES: dict[str, Callable[..., Tensor]] = {"naive": naive_loss, "chunked": chunked_loss}


def run(rows: int = 768, queue: int = 65536, dim: int = 128, samples: int = 7) -> dict[str, Any]:
    """Measure loss and gradient (fp32) of both; seconds, bytes and every sample in a JSON-ready record.

    Raises RuntimeError, before anything is timed, if the chunked loss or gradient is further than 1e-5 (relative) from
    fp64.
    """
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
        "shape": {"rows": rows, "queue": queue, "dim": dim, "positives": POSITIVES, "dtype": "float32"},
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "relative_error": errors,
        "seconds": seconds,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "naive_over_chunked": {"median": statistics.median(ratios), "samples": ratios},
        "extra_bytes": {name: _extra_bytes_elsewhere(name, rows, queue, dim) for name in LOSSES},
    }


def print_table(result: dict[str, Any]) -> None:
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
    print(f"naive / chunked: {ratio['median']:.2f} (paired samples: {every})")
    print(
        "relative error of chunked against fp64: "
        + ", ".join(f"{k} {v:.1e}" for k, v in result["relative_error"].items())
    )


def make_inputs(rows: int, queue: int, dim: int) -> Inputs:
    """Unit rows q (wants a gradient), keys, equal weights, queue: random, the same every time."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    keys, weights = unit(rows, POSITIVES, dim), torch.full((rows, POSITIVES), 1 / POSITIVES)
    return unit(rows, dim).requires_grad_(), keys, weights, unit(queue, dim)


def _loss_and_gradient(name: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    losses = LOSSES[name](*inputs)
    return losses.detach(), torch.autograd.grad(losses.mean(), inputs[0])[0]


def _time(name: str, inputs: Inputs) -> float:
    start = time.perf_counter()
    _loss_and_gradient(name, inputs)
    return time.perf_counter() - start


def _accuracy(inputs: Inputs) -> dict[str, float]:
    """Relative error of the chunked loss and gradient against the naive one in fp64, on at most 64 of the rows."""
    q, keys, weights, queue = (tensor.detach() for tensor in inputs)
    few = (q[:64].requires_grad_(), keys[:64], weights[:64], queue)
    exact = (few[0].detach().double().requires_grad_(), keys[:64].double(), weights[:64].double(), queue.double())
    ours, truth = _loss_and_gradient("chunked", few), _loss_and_gradient("naive", exact)
    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(ours, truth, strict=True)]
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


def _extra_bytes_elsewhere(name: str, rows: int, queue: int, dim: int) -> int | None:
    """`extra_bytes` in a fresh process with the same number of threads; None where the system cannot tell."""
    code = (
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); from bingo.bench.kernels import extra_bytes; "
        f"print(extra_bytes({name!r}, {rows}, {queue}, {dim}))"
    )
    # The package's parent goes first on the path, so that a checkout measures itself and not an installed copy.
    paths = [str(Path(sys.modules["bingo"].__path__[0]).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else None


def _resident(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024
