"""Differences between arms over paired seeds, against scipy's t test."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bingo.bench.report.results import Record, Student, compare, t_quantile


def test_t_quantile_equals_scipy() -> None:
    for freedom in range(1, 60):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def students(values: dict[int, float]) -> tuple[Student, ...]:
    record = Record("s", "pretrain", Path(), {}, 0.0, {}, 1, {})
    return tuple(Student(seed, {"knn": value}, record, 1, 1) for seed, value in values.items())


@pytest.mark.parametrize("seed", range(5))
def test_verdict_agrees_with_a_paired_t_test(seed: int) -> None:
    generator = np.random.default_rng(seed)
    before, after = generator.normal(0.7, 0.02, 4), generator.normal(0.73, 0.02, 4)
    found = compare(students(dict(enumerate(before))), students(dict(enumerate(after))), "knn")
    test = stats.ttest_rel(after, before)
    assert found is not None
    assert found.mean / found.error == pytest.approx(test.statistic)  # type: ignore[operator]
    interval = test.confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((interval.low, interval.high))  # type: ignore[operator]
    assert found.verdict == ("within noise" if test.pvalue > 0.05 else "better" if test.statistic > 0 else "worse")


@pytest.mark.parametrize(
    ("before", "after", "n", "verdict"),
    [
        ({0: 0.50, 1: 0.60, 2: 0.70}, {0: 0.55, 1: 0.65, 2: 0.76}, 3, "better"),  # pairing removes what seeds share
        ({0: 0.55, 1: 0.65, 2: 0.76}, {0: 0.50, 1: 0.60, 2: 0.70}, 3, "worse"),
        ({0: 0.50, 1: 0.50}, {0: 0.60, 1: 0.65}, 2, "within noise"),  # five standard errors, but t needs 12.7 for n = 2
        ({0: 0.50, 1: 0.60}, {0: 0.50, 1: 0.60}, 2, "within noise"),
        ({0: 0.50}, {0: 0.90}, 1, "one seed"),
        ({0: 0.10, 1: 0.50, 2: 0.50}, {1: 0.60, 2: 0.60, 3: 0.99}, 2, "better"),  # seeds 0 and 3 have no partner
    ],
)
def test_verdicts(before: dict[int, float], after: dict[int, float], n: int, verdict: str) -> None:
    found = compare(students(before), students(after), "knn")
    assert found is not None
    assert (found.n, found.verdict) == (n, verdict)


def test_no_common_seed_is_no_difference() -> None:
    assert compare(students({0: 0.5}), students({1: 0.5}), "knn") is None
