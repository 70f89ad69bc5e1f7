"""A device's ceilings beside matrix products (`bingo.roof`): copies, the shortest kernel, what a launch costs."""

import time
from collections.abc import Callable

import torch

SAMPLES = 5
COPY_BYTES = {"cuda": 1 << 30, "cpu": 1 << 26}
SHORT_CALLS = 200


def seconds_of(device: torch.device, run: Callable[[], object], calls: int = 3, samples: int = SAMPLES) -> list[float]:
    """Seconds of one call, each sample over `calls` calls; two samples before them are dropped.

    By events on a GPU, by the wall clock elsewhere.
    """
    timed = _on_gpu if device.type == "cuda" else _on_host
    return [timed(run, calls) / calls for _ in range(samples + 2)][2:]


def _on_gpu(run: Callable[[], object], calls: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _on_host(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def copy_seconds(device: torch.device, size: int = 0, samples: int = SAMPLES) -> list[float]:
    """Seconds to copy random bytes within the device's memory; size: how many, 0 for what suits the device."""
    source = torch.randint(256, (size or COPY_BYTES[device.type],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return seconds_of(device, lambda: target.copy_(source), samples=samples)


def short_seconds(device: torch.device, samples: int = SAMPLES) -> list[float]:
    """Seconds of the shortest kernel: on a GPU in a captured graph, where no launch is waited for."""
    x = torch.zeros(1, device=device)
    if device.type != "cuda":
        return seconds_of(device, lambda: x.add_(1), SHORT_CALLS, samples)
    x.add_(1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(SHORT_CALLS):
            x.add_(1)
    return [seconds / SHORT_CALLS for seconds in seconds_of(device, graph.replay, 1, samples)]


def host_seconds(run: Callable[[], object], launches: int, samples: int = SAMPLES) -> list[float]:
    """CPU seconds of this process for each launch of a call; on a GPU the call is not waited for."""
    found = []
    for _ in range(samples + 2):
        start = time.process_time()
        run()
        found.append((time.process_time() - start) / launches)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return found[2:]
