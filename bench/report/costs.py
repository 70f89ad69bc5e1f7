"""What teacher and student cost at inference: parameters, size, FLOPs, and time measured while the page is made."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bingo.bench.samples import median_interval
from bingo.environment import cpu_name
from bingo.errors import UserError
from bingo.models import Encoder, load_encoder
from bingo.models.costs import forward_flops

BATCH = 32
SAMPLES = 20
SECONDS = 3.0
"""Of measuring per network and batch size: large ones get fewer samples, three at least."""
LEAST_S = 2e-3
"""A sample is the mean of as many calls as this takes: one call of a tiny network is too short for the clock."""


@dataclass(frozen=True)
class Costs:
    """One network, without its projection head but for the FLOPs.

    flops: of one image with the head, a multiply-add is two; 0 where they are not known. latency: seconds for one image
    (median); rate: images per second in batches of `BATCH`. n: samples of each.
    """

    parameters: int
    flops: int
    latency: float
    rate: float
    n: tuple[int, int]

    @property
    def megabytes(self) -> float:
        """Its parameters in fp32."""
        return 4 * self.parameters / 1e6


def measure(networks: Mapping[str, Path], size: int) -> dict[str, Costs]:
    """Costs by name of the networks in these run folders that can be read, on images of size x size pixels, on the CPU.

    The networks take turns, so that other work on the machine hits all of them.
    """
    found: dict[str, Encoder] = {}
    for name, path in networks.items():
        try:
            found[name] = load_encoder(path)[0].eval()
        except (UserError, OSError):
            continue
    with torch.inference_mode(), one_thread():
        single, batch = (times({n: _call(e, count, size) for n, e in found.items()}) for count in (1, BATCH))
    return {
        name: Costs(
            sum(parameter.numel() for parameter in encoder.backbone.parameters()),
            forward_flops(encoder, size),
            median_interval(single[name])["median"],
            BATCH / median_interval(batch[name])["median"],
            (len(single[name]), len(batch[name])),
        )
        for name, encoder in found.items()
    }


def _call(encoder: Encoder, count: int, size: int) -> Callable[[], object]:
    images = torch.rand(count, 3, size, size)
    return lambda: encoder.features(images)


def times(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds per call, in turns, after a warm-up of each."""
    once = {name: min(_seconds(call, 1) for _ in range(3)) for name, call in calls.items()}
    repeats = {name: max(1, round(LEAST_S / seconds)) for name, seconds in once.items()}
    counts = {name: max(3, min(SAMPLES, int(SECONDS / (repeats[name] * seconds)))) for name, seconds in once.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(max(counts.values(), default=0)):
        for name, call in calls.items():
            if turn < counts[name]:
                found[name].append(_seconds(call, repeats[name]))
    return found


def _seconds(call: Callable[[], object], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return max(time.perf_counter() - began, 1e-9) / repeats


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """More threads than free cores make short calls slow and their times a lottery."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def where() -> str:
    """The hardware and the versions of the measurement."""
    return f"{cpu_name()}, one thread, fp32, torch {torch.__version__}"
