"""The clock of `bingo bench step`: where the time of one step goes."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from bingo.bench.step.release import ReleaseStyle
from bingo.bench.step.table import PARTS
from bingo.train.distill import Distillation


class Clock:
    """Seconds between marks, by the name of what ended at the mark."""

    def __init__(self, device: torch.device) -> None:
        self.gpu = device.type == "cuda"
        self.marks: list[tuple[str, Any]] = []  # events of the GPU, or seconds

    def __call__(self, part: str) -> None:
        now: Any = torch.cuda.Event(enable_timing=True) if self.gpu else time.perf_counter()
        if self.gpu:
            now.record()
        self.marks.append((part, now))

    def seconds(self) -> dict[str, float]:
        """The sum per part; waits for the device."""
        if self.gpu:
            torch.cuda.synchronize()
        total = dict.fromkeys(PARTS, 0.0)
        for (_, start), (part, end) in zip(self.marks, self.marks[1:], strict=False):
            total[part] += start.elapsed_time(end) / 1000 if self.gpu else end - start
        return total


@contextlib.contextmanager
def forward_hooks(method: Distillation | ReleaseStyle, clock: Clock) -> Iterator[None]:
    """Mark the ends of the forward passes of teacher, if one runs, and student."""
    handles = []
    for part, module in (("teacher", method.teacher), ("student", method.model)):
        if module is None:
            continue
        handles.append(module.register_forward_pre_hook(lambda *_: clock("augment")))
        handles.append(module.register_forward_hook(lambda *_, part=part: clock(part)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
