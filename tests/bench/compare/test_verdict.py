"""Verdicts over made-up processes whose truth is known, and over recorded ones: few false alarms, 3 % found."""

import math

import numpy as np
import pytest

from bingo.bench.compare.ranks import independent_shift, paired_shift
from bingo.bench.compare.verdict import Verdict, judge, judge_rows
from bingo.bench.record import Row, read_result
from tests.support.compare_campaign import judged
from tests.support.ranks import ROOT

Side = list[list[float]]


def processes(rng: np.random.Generator, load: np.ndarray, factor: float = 1.0) -> Side:
    """Four samples of each process: a load that both sides of a turn share, luck of its own, and now and then a hit."""
    own = 0.02 * rng.standard_normal(len(load)) + 0.2 * (rng.random(len(load)) < 0.03)
    middle = factor * np.exp(load + own)
    return (middle[:, None] * (1 + 0.003 * rng.standard_normal((len(load), 4)))).tolist()


def pair(seed: int, n: int, factor: float) -> tuple[Side, Side]:
    """Two sides that took turns while the machine's load drifted by some 10 %."""
    rng = np.random.default_rng(seed)
    load = 0.01 * np.cumsum(rng.standard_normal(n))
    return processes(rng, load), processes(rng, load, factor)


def verdicts(factor: float, n: int = 32, count: int = 100) -> list[Verdict]:
    return [judge(*pair(seed, n, factor), "lower", turns=True) for seed in range(count)]


def test_equal_sides_rarely_give_an_alarm_and_three_per_cent_are_found() -> None:
    assert sum(verdict.word in ("slower", "faster") for verdict in verdicts(1.0)) <= 5
    slower = verdicts(1.03)
    assert sum(verdict.word == "slower" for verdict in slower) >= 90
    assert sum(verdict.reaches(0.03) for verdict in slower) >= 90
    assert not any(verdict.reaches(0.2) for verdict in slower)
    assert sum(verdict.word == "faster" for verdict in verdicts(1 / 1.03)) >= 90


def test_the_interval_holds_the_truth_in_95_of_100() -> None:
    held = [low <= 1.03 <= high for low, high in (v.interval for v in verdicts(1.03) if v.interval)]
    assert len(held) == 100
    assert sum(held) >= 90


def test_the_recorded_series_is_judged_as_the_documents_say() -> None:
    series = read_result(ROOT / "bench" / "results" / "compare-cpu-epyc-2core.json", "compare")["rows"]
    found = judged(series, 64, 100)
    assert (found.comparisons, found.alarms, found.found, found.gated) == (100, 4, 97, 95)


def test_same_is_said_only_of_what_is_known_to_be_close() -> None:
    rng = np.random.default_rng(0)
    quiet = [[x] for x in 1 + 1e-4 * rng.standard_normal(12)]
    assert judge(quiet, quiet[::-1], "lower", turns=True).word == "same"
    assert judge(*pair(0, 8, 1.0), "lower", turns=True).word == "unsure"
    assert judge(quiet, [[1.004 * x[0]] for x in quiet], "lower", turns=True).word == "same", "below the threshold"
    beyond = judge(quiet, [[1.004 * x[0]] for x in quiet], "lower", 0.001, turns=True)
    assert (beyond.word, round(beyond.ratio, 3)) == ("slower", 1.004)


def test_more_of_what_is_better_is_faster() -> None:
    rate = [[100.0 + i] for i in range(9)]
    more = [[2 * x[0]] for x in rate]
    assert judge(rate, more, "higher", turns=True).word == "faster"
    assert judge(more, rate, "higher", turns=False).word == "slower"
    assert judge(more, rate, "higher", turns=False).reaches(0.9), "half the rate takes twice the time"


@pytest.mark.parametrize(
    ("a", "b", "turns", "why"),
    [
        ([[1.0] * 50], [[9.0] * 50], False, "1 process(es) of a side; 4 are needed"),
        ([[1.0]] * 7, [[9.0]] * 7, True, "7 process(es) of a side; 8 are needed"),
        ([[0.0]] * 9, [[9.0]] * 9, True, "a sample is not above zero"),
    ],
)
def test_what_cannot_be_judged_is_unsure_with_a_reason(a: Side, b: Side, turns: bool, why: str) -> None:
    found = judge(a, b, "lower", turns=turns)
    assert (found.word, found.interval, found.why) == ("unsure", None, why)
    assert not found.reaches(0.03)


def test_exact_counts_need_no_interval() -> None:
    def row(count: float) -> Row:
        return {
            "case": "k", "variant": "sm_90", "metric": "registers", "better": "lower", "clock": "none",
            "processes": [[count]], "exact": True,
        }  # fmt: skip

    assert judge_rows(row(0), row(0), turns=False).word == "same"
    more = judge_rows(row(0), row(8), turns=False)
    assert (more.word, more.ratio) == ("slower", math.inf)
    assert more.reaches(0.5)
    assert judge_rows(row(168), row(128), turns=False).word == "faster"


def test_intervals_leave_out_as_many_ranks_as_the_tables_say() -> None:
    """Wilcoxon's and Mann and Whitney's critical values at 5 %, two-sided: 8 for ten pairs, 23 for ten and ten."""
    values = [float(2**i) for i in range(10)]
    walsh = sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])
    found = paired_shift(values)
    assert found is not None
    assert (found.low, found.high) == (walsh[8], walsh[-9])
    differences = sorted(b - a for a in values for b in values)
    groups = independent_shift(values, values)
    assert groups is not None
    assert (groups.low, groups.high) == (differences[23], differences[-24])
    assert paired_shift(values[:5]) is None
    assert independent_shift(values[:3], values[:3]) is None
