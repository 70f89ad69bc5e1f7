"""What a training says of its speed: images per second, waiting for the loader, GPU memory, use of the arithmetic.

Model FLOPs are those of the networks' matrix products and convolutions alone (`bingo.models.costs`), per image: each
student view counts three times its forward pass (forward, gradient of inputs, gradient of weights), each key of a live
teacher once. MFU is their rate per device over that of plain matrix products, measured on rank 0's device at the end,
in the format of the training's autocast. Evaluations while training do not count as time.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from bingo.distributed import World
from bingo.models import Encoder
from bingo.models.costs import forward_flops
from bingo.roof import matmul_roof
from bingo.train.lines import speed_words
from bingo.train.spans import span

log = logging.getLogger(__name__)
MFU_AFTER_S = 60.0
"""Seconds of training below which there is no MFU: start-up would be most of it."""
Work = Iterable[tuple[Encoder, float]]
"""Networks, and how many forward passes' worth of FLOPs an image costs in each: a backward pass is two."""
T = TypeVar("T")


class Speed:
    """Clocks of one rank's training. images: of a step, of all ranks together."""

    def __init__(self, images: int, world: World, clock: Callable[[], float] = time.perf_counter) -> None:
        self.images, self.world, self.clock = images, world, clock
        self._began = self._last = clock()
        self._steps = self._marked = 0
        self._waited = self._waited_before = self._aside = 0.0

    def take(self, batches: Iterator[T], count: int) -> list[T]:
        """The next `count` batches, whose wait is counted; they make a step."""
        began = self.clock()
        with span("data wait"):
            found = [next(batches) for _ in range(count)]
        self._waited += self.clock() - began
        self._steps += 1
        return found

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What runs inside is no training: its time does not count."""
        began = self.clock()
        yield
        spent = self.clock() - began
        self._aside += spent
        self._last += spent

    def figures(self) -> dict[str, float]:
        """Since they were last asked for: `images_per_second` of all ranks, `loader_wait` as this rank's share of the
        time; and `gpu_peak_gib`, the most that torch has had allocated so far, on a GPU."""
        now = self.clock()
        found = self._rates(self._steps - self._marked, self._waited - self._waited_before, now - self._last)
        self._last, self._marked, self._waited_before = now, self._steps, self._waited
        if self.world.device.type == "cuda":
            found["gpu_peak_gib"] = round(torch.cuda.max_memory_allocated(self.world.device) / 2**30, 2)
        return found

    def tell(self, step: int) -> None:
        """Rank 0: write the two rates since this start into the ledger."""
        if self.world.main:
            self.world.watch.event("speed", step=step, **self._rates(self._steps, self._waited, self._trained()))

    def _trained(self) -> float:
        return self.clock() - self._began - self._aside

    def _rates(self, steps: int, waited: float, seconds: float) -> dict[str, float]:
        seconds = max(seconds, 1e-9)
        return {
            "images_per_second": float(f"{steps * self.images / seconds:.4g}"),
            "loader_wait": round(min(waited / seconds, 1.0), 4),
        }

    def whole(self, work: Work, size: int, precision: str) -> dict[str, float]:
        """Of the whole training since this start, rank 0's; told in the log. After `MFU_AFTER_S` also `mfu` (a share),
        `model_flops_per_image` and `matmul_flops` per second. size: pixels per side of a view."""
        seconds = self._trained()
        if not self._steps or not self.world.main:
            return {}
        found = self._rates(self._steps, self._waited, seconds)
        if seconds >= MFU_AFTER_S:
            found |= self._use(work, size, precision, self._steps * self.images / seconds)
        use = [f"{100 * found['mfu']:.3g} % of what matrix products reach here (MFU)"] if "mfu" in found else []
        log.info("%s", ", ".join([*speed_words(found), *use]))
        return found

    def _use(self, work: Work, size: int, precision: str, rate: float) -> dict[str, float]:
        """rate: images per second of all processes."""
        parts = [(passes, forward_flops(network, size)) for network, passes in work]
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            roof = matmul_roof(self.world.device, dtype).flops
        except torch.OutOfMemoryError:  # a run that fills its GPU
            return {}
        if not all(flops for _, flops in parts):
            return {"matmul_flops": float(f"{roof:.4g}")}
        flops = sum(passes * flops for passes, flops in parts)
        return {
            "mfu": float(f"{flops * rate / self.world.size / roof:.4g}"),
            "model_flops_per_image": float(flops),
            "matmul_flops": float(f"{roof:.4g}"),
        }


def of_every_rank(values: list[float], world: World, device: torch.device) -> torch.Tensor:
    """V x R float64 for `World.average`, after which row i holds value i of each process: the sum that it makes carries
    a column of each."""
    found = torch.zeros(len(values), world.size, dtype=torch.float64)
    found[:, world.rank] = torch.tensor(values, dtype=torch.float64) * world.size
    return found.to(device)
