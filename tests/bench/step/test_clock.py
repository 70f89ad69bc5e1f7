"""The clock of a step adds up the time before each mark, part by part."""

import time

import pytest
import torch

from bingo.bench.step.clock import Clock
from bingo.bench.step.table import PARTS


def test_time_counts_for_the_part_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([5.0, 6.0, 8.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    clock = Clock(torch.device("cpu"))
    for part in ("start", "teacher", "student", "teacher"):
        clock(part)
    assert clock.seconds() == {**dict.fromkeys(PARTS, 0.0), "teacher": 1.0 + 3.0, "student": 2.0}
