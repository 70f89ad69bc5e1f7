"""Timing of short calls: a GPU's by captured graphs or events, a CPU's by the wall clock and the processor's.

A `call(i)` runs one variant once on queue i of several that are used in turn, so that none of them is still in a GPU's
L2 cache. Times are seconds per call everywhere. Variants are visited in ABBA order (forth, then back, each round), so
that a slow drift of the clocks favours none of them.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from bingo.environment import cpu_name

Call = Callable[[int], tuple[Tensor, ...]]

LONG_CALL = 5e-3  # seconds; above it the gaps between launches do not matter and a graph would only cost memory
GRAPH_SECONDS = 4e-3  # eager calls for about this long fit in one graph; without launch gaps they are a quarter of it
BATCH_SECONDS = 1e-3  # host time of calls shorter than this is measured over several: their launches fit in the queue
MOST_PASSES = 8  # over the queues in one graph
REPLAY_TOLERANCE = 1e-2  # a graph's answer against an eager one; some peers add in an order that varies


@dataclass(frozen=True)
class Timed:
    """A prepared variant. samples(n): n samples, each the mean seconds per call over `calls` calls."""

    method: str
    calls: int
    samples: Callable[[int], list[float]]
    note: str = ""
    """Why the method is not the best one, where it is not."""
    cpu: list[float] = field(default_factory=list)
    """Of every sample taken so far the CPU seconds per call, of all threads; empty where a GPU does the work."""


class Timer(Protocol):
    """What the benchmark needs of a device."""

    device: torch.device
    l2_bytes: int

    def prepare(self, call: Call, queues: int, no_capture: str = "") -> Timed:
        """Warm up and choose how to time. no_capture: why the call cannot be captured in a graph, or ''."""

    def host_seconds(self, call: Call, queues: int) -> list[float]:
        """Seconds until the call returns, without waiting for the device: samples."""

    def extra_bytes(self, call: Call) -> int | None:
        """Most memory that one call has in use at a time beyond what was in use before; outputs count."""


class WallTimer:
    """The CPU: calls one after the other by the wall clock, and beside it the processor's."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.l2_bytes = 0

    def prepare(self, call: Call, queues: int, no_capture: str = "") -> Timed:
        call(0)
        cpu: list[float] = []

        def samples(count: int) -> list[float]:
            taken = [both_clocks(lambda: _calls(call, queues, queues)) for _ in range(count)]
            cpu.extend(processor / queues for processor, _ in taken)
            return [wall / queues for _, wall in taken]

        return Timed("wall clock", queues, samples, cpu=cpu)

    def host_seconds(self, call: Call, queues: int) -> list[float]:
        return [_mean_seconds(call, 1, queues) for _ in range(3)]

    def extra_bytes(self, call: Call) -> int | None:
        return None


class CudaTimer:
    """One CUDA device: graph replays between events where capture works, otherwise eager calls between events."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.l2_bytes = torch.cuda.get_device_properties(self.device).L2_cache_size

    def prepare(self, call: Call, queues: int, no_capture: str = "") -> Timed:
        call(0)
        torch.cuda.synchronize(self.device)
        estimate = min(self._events(lambda: call(0), 1) for _ in range(2))
        if not no_capture and estimate > LONG_CALL:
            no_capture = f"over {1e3 * LONG_CALL:.0f} ms a call"
        if not no_capture:
            try:
                return self._graph(call, queues, estimate)
            except RuntimeError as error:
                no_capture = f"graph capture failed: {first_line(error.__context__ or error)}"
                self._recover()
        return self._eager(call, queues, estimate, no_capture)

    def _recover(self) -> None:
        """After a failed capture the generator still waits for it to end, and every random number would be refused."""
        torch.cuda.synchronize(self.device)
        generator = torch.cuda.default_generators[self.device.index]
        generator.graphsafe_set_state(torch.Generator(self.device))

    def _graph(self, call: Call, queues: int, estimate: float) -> Timed:
        """One graph with whole passes over the queues."""
        calls = queues * min(MOST_PASSES, max(1, math.ceil(GRAPH_SECONDS / (estimate * queues))))
        graph, last = _capture(call, calls, queues)
        _check_replay(graph, last, call((calls - 1) % queues))
        del last

        def samples(count: int) -> list[float]:
            graph.replay()  # untimed: the device is idle before it, and its launch gap must not be counted
            return [seconds / calls for seconds in self._back_to_back(graph.replay, count)]

        return Timed("CUDA graph", calls, samples)

    def _eager(self, call: Call, queues: int, estimate: float, why: str) -> Timed:
        calls = queues if estimate <= LONG_CALL else 1
        turn = 0

        def sample() -> None:
            nonlocal turn
            for _ in range(calls):
                call(turn % queues)
                turn += 1

        def samples(count: int) -> list[float]:
            return [seconds / calls for seconds in self._back_to_back(sample, count)]

        return Timed("events", calls, samples, why)

    def _back_to_back(self, run: Callable[[], Any], count: int) -> list[float]:
        """Seconds of `count` runs that are enqueued without waiting in between."""
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        for start, end in events:
            start.record()
            run()
            end.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) / 1e3 for start, end in events]

    def _events(self, run: Callable[[], Any], count: int) -> float:
        return statistics.median(self._back_to_back(run, count))

    def host_seconds(self, call: Call, queues: int) -> list[float]:
        torch.cuda.synchronize(self.device)
        batch = 10 if self._events(lambda: call(0), 1) < BATCH_SECONDS else 1
        samples = []
        for _ in range(7):
            torch.cuda.synchronize(self.device)
            samples.append(_mean_seconds(call, batch, queues))
        torch.cuda.synchronize(self.device)
        return samples

    def extra_bytes(self, call: Call) -> int | None:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call(0)
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def make_timer(device: torch.device) -> Timer:
    return CudaTimer(device) if device.type == "cuda" else WallTimer()


def both_clocks(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that some work takes: of the processor, all threads of this process counted, and of the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def _mean_seconds(call: Call, calls: int, queues: int) -> float:
    return both_clocks(lambda: _calls(call, calls, queues))[1] / calls


def _calls(call: Call, calls: int, queues: int) -> None:
    for turn in range(calls):
        call(turn % queues)


def _capture(call: Call, calls: int, queues: int) -> tuple[Any, tuple[Tensor, ...]]:
    """A graph of `calls` calls, and where the last of them leaves its answer."""
    before, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    stream.wait_stream(before)
    with torch.cuda.stream(stream):  # what is made on a stream's first use must not fall into the capture
        for turn in range(2):
            call(turn % queues)
    before.wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            for turn in range(calls):
                last = call(turn % queues)
    finally:
        torch.cuda.set_stream(before)  # a capture that fails leaves its own stream current
    return graph, last


def _check_replay(graph: Any, captured: tuple[Tensor, ...], eager: tuple[Tensor, ...]) -> None:
    """RuntimeError unless a replay writes what an eager call returned: work that was not captured would look fast."""
    for tensor in captured:
        tensor.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    for mine, theirs in zip(captured, eager, strict=True):
        if not relative_error(mine, theirs) <= REPLAY_TOLERANCE:
            raise RuntimeError("a replay gives another answer than an eager call")


def interleave(
    timed: dict[str, Timed],
    rounds: int,
    most: int,
    visit_seconds: float,
    on_change: Callable[[dict[str, list[float]]], None] = lambda samples: None,
) -> dict[str, list[float]]:
    """Samples of every variant: 2 * rounds visits in ABBA order, each of 1 to `most` samples.

    A visit takes about `visit_seconds`: slow variants get fewer samples. One sample of each, before the first visit,
    tells how slow they are and is discarded. on_change gets the samples so far after every half of a round.
    """
    counts = {}
    for name, variant in timed.items():
        seconds = variant.samples(1)[0] * variant.calls
        variant.cpu.clear()
        counts[name] = max(1, min(most, int(visit_seconds / max(seconds, 1e-9))))
    samples: dict[str, list[float]] = {name: [] for name in timed}
    for number, name in enumerate(visits(list(timed), rounds), start=1):
        samples[name] += timed[name].samples(counts[name])
        if number % len(timed) == 0:
            on_change(samples)
    return samples


def visits(names: Sequence[str], rounds: int) -> list[str]:
    """The order of visits: all names, then all names backwards, every round."""
    return [name for _ in range(rounds) for name in [*names, *reversed(names)]]


def relative_error(mine: Tensor, exact: Tensor) -> float:
    """||mine - exact|| / ||exact|| in fp64; NaN where something is not a number."""
    exact = exact.detach().double()
    return ((mine.detach().double() - exact).norm() / exact.norm()).item()


def first_line(error: BaseException, most: int = 200) -> str:
    """An exception as one short sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= most else f"{text[: most - 1]}…"
