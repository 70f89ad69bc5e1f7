"""Medians, ratios and intervals of timed samples."""

import pytest
import torch

from bingo.bench.samples import Estimate, median_interval, ratio_interval, shown, verdict, with_noise
from bingo.bench.timing import (
    first_line,
    relative_error,
    visits,
)


def test_statistics() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    summary = median_interval(values)
    assert (summary["median"], summary["n"]) == (3.0, 5)
    low, high = summary["interval"]
    assert 1.0 <= low <= 3.0 <= high <= 100.0
    assert median_interval(values) == summary
    assert median_interval([5.0])["interval"] == [5.0, 5.0]
    assert ratio_interval([2.0] * 5, [1.0] * 5) == {"median": 2.0, "interval": [2.0, 2.0]}
    assert visits(["a", "b"], 2) == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert first_line(ValueError("")) == "ValueError"
    assert relative_error(torch.tensor([1.0, float("nan")]), torch.ones(2)) != 0


def test_samples() -> None:
    noisy = with_noise([1.0, 2.0, 3.0, 4.0])
    assert (noisy["median"], noisy["aa_noise"]) == (2.5, pytest.approx(0.4))
    assert ratio_interval([8.0, 8.0], [2.0, 2.0]) == {"median": 4.0, "interval": [4.0, 4.0]}


def test_an_aim_is_judged_by_the_whole_interval() -> None:
    found: Estimate = {"median": 1.74, "interval": [1.6, 1.966]}
    assert shown(found) == "1.74 [1.60, 1.97]"
    assert [verdict(least, found) for least in (1.5, 1.6, 1.7, 1.966, 2.0)] == [
        "reached", "reached", "unsure", "unsure", "not reached",
    ]  # fmt: skip
