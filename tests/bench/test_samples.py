"""Medians, ratios and intervals of timed samples."""

import pytest
import torch

from bingo.bench.samples import (
    Estimate,
    ends,
    median_interval,
    of_processes,
    paired_ratio,
    ratio_interval,
    shown,
    verdict,
    visited_ratio,
    with_noise,
)
from bingo.bench.timing import (
    first_line,
    relative_error,
    visits,
)


def test_statistics() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    summary = median_interval(values)
    assert (summary["median"], summary["n"]) == (3.0, 5)
    low, high = ends(summary)
    assert 1.0 <= low <= 3.0 <= high <= 100.0
    assert median_interval(values) == summary
    assert ratio_interval([2.0] * 5, [1.0] * 5) == {"median": 2.0, "interval": [2.0, 2.0], "n": 5}
    assert visits(["a", "b"], 2) == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert first_line(ValueError("")) == "ValueError"
    assert relative_error(torch.tensor([1.0, float("nan")]), torch.ones(2)) != 0


def test_samples() -> None:
    noisy = with_noise([1.0, 2.0, 3.0, 4.0])
    assert (noisy["median"], noisy["aa_noise"]) == (2.5, pytest.approx(0.4))


@pytest.mark.parametrize(
    "found",
    [
        median_interval([3.0, 5.0]),
        ratio_interval([8.0, 8.0], [2.0] * 9),
        paired_ratio([8.0, 4.0, 1.0], [2.0, 1.0]),
        of_processes([[4.0] * 9, [4.0] * 9]),
    ],
)
def test_below_three_there_is_no_interval(found: Estimate) -> None:
    assert found["interval"] is None
    assert (found["median"], ends(found)) == (4.0, (4.0, 4.0))
    assert shown(found) == f"4.00 (n={found['n']})"
    assert verdict(1.0, found) == "unsure"


def test_pairs_cancel_what_slowed_both() -> None:
    load = [1.0, 1.5, 2.0, 3.0, 5.0, 8.0]
    pairs = paired_ratio([2 * x for x in load], load)
    assert (pairs["median"], ends(pairs)) == (2.0, (2.0, 2.0))
    low, high = ends(ratio_interval([2 * x for x in load], load))
    assert high / low > 3, "taken for independent they would say nothing"


def test_samples_of_a_visit_are_one_draw() -> None:
    ours, theirs = [1.0] * 4 + [3.0] * 4 + [2.0] * 4, [2.0, 6.0, 4.0]
    found = visited_ratio(theirs, ours, 3)
    assert (found["median"], ends(found), found["n"]) == (2.0, (2.0, 2.0), 3)
    assert visited_ratio(theirs, ours[:-1], 3) == ratio_interval(theirs, ours[:-1]), "stopped within a visit"


def test_the_spread_between_processes_is_in_the_interval() -> None:
    processes = [[middle - 0.01, middle, middle + 0.01] * 4 for middle in (1.0, 1.2, 1.4, 1.1, 1.3)]
    found = of_processes(processes)
    low, high = ends(found)
    assert (found["median"], found["n"]) == (1.2, 60)
    assert high - low > 0.15
    assert ends(of_processes(processes[:1])) == ends(median_interval(processes[0]))


def test_of_many_processes_the_interval_is_found_without_drawing() -> None:
    many = [[float(i)] for i in range(401)]
    found = of_processes(many)
    assert (found["median"], found["n"]) == (200.0, 401)
    assert ends(found) == (180.0, 220.0), "1.96 standard deviations of a binomial of 401 are 20 places"
    assert ends(of_processes(many[:200])) == pytest.approx((86, 114), abs=4), "drawing says the same of fewer"


def test_an_aim_is_judged_by_the_whole_interval() -> None:
    found: Estimate = {"median": 1.74, "interval": [1.6, 1.966], "n": 9}
    assert shown(found) == "1.74 [1.60, 1.97]"
    assert [verdict(least, found) for least in (1.5, 1.6, 1.7, 1.966, 2.0)] == [
        "reached", "reached", "unsure", "unsure", "not reached",
    ]  # fmt: skip
