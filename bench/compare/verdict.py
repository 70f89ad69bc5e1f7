"""Is B faster than A? The verdict over one row of two results.

A process is one draw: its figure is the median of its samples, and what is compared is the logarithm of those figures.
Processes that took turns are compared in pairs, others as two groups, by exact rank intervals (`ranks`). The noise is
that of A against A and of B against B: what all but 2 % of such comparisons stay within, from processes of one side
that followed each other. `slower` is said where the interval leaves out 1 and the ratio is beyond both noise and
threshold; `same` where the whole interval lies within the threshold; otherwise `unsure`.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from bingo.bench.compare.ranks import Shift, independent_shift, paired_shift
from bingo.bench.record import Better, Row, samples_of

Word = Literal["faster", "slower", "same", "unsure"]
Processes = Sequence[Sequence[float]]
THRESHOLD = 0.01
NOISE_MISS = 0.02
LEAST_PAIRS, LEAST_GROUP = 8, 4
"""Processes of either side that interval and noise need: in turns, and not in turns."""


class Verdict(NamedTuple):
    """ratio: B over A, of the row's metric; interval: None where there are too few processes; noise: of a side against
    itself, as a share; why: the reason of an `unsure`, or ""."""

    word: Word
    ratio: float
    interval: tuple[float, float] | None
    noise: float | None
    n: int
    """Processes of the side that has fewer."""
    why: str = ""

    def reaches(self, gate: float) -> bool:
        """Whether B is slower, and by the interval perhaps by as much as the gate."""
        if self.word != "slower":
            return False
        low, high = self.interval or (self.ratio, self.ratio)
        return max(high, 1 / low) >= 1 + gate

    def could_hide(self, gate: float, better: Better) -> bool:
        """Whether it is unsure, and the interval does not rule out that B is slower by the gate."""
        if self.word != "unsure" or self.interval is None:
            return self.word == "unsure"
        low, high = self.interval
        return (high if better == "lower" else 1 / low) >= 1 + gate


def judge_rows(a: Row, b: Row, threshold: float = THRESHOLD, *, turns: bool) -> Verdict:
    """The verdict over two rows of the same case; counts that are exact need no interval."""
    if a.get("exact") and b.get("exact"):
        mine, theirs = (float(np.median(samples_of(row))) for row in (a, b))
        return _count(mine, theirs, a["better"], threshold, min(len(row["processes"]) for row in (a, b)))
    return judge(a["processes"], b["processes"], a["better"], threshold, turns=turns)


def judge(a: Processes, b: Processes, better: Better, threshold: float = THRESHOLD, *, turns: bool) -> Verdict:
    """turns: the i-th processes of both ran one after the other."""
    mine, theirs = (np.array([np.median(samples) for samples in side if len(samples)]) for side in (a, b))
    n, least = min(len(mine), len(theirs)), LEAST_PAIRS if turns else LEAST_GROUP
    if min(*mine, *theirs) <= 0:
        return Verdict("unsure", math.nan, None, None, n, "a sample is not above zero")
    ratio = float(np.median(theirs) / np.median(mine))
    first, second = np.log(mine), np.log(theirs)
    shift = paired_shift(second[:n] - first[:n]) if turns else independent_shift(first, second)
    if shift is None or n < least:
        return Verdict("unsure", ratio, None, None, n, f"{n} process(es) of a side; {least} are needed")
    noise = noise_of_pairs(first[:n], second[:n]) if turns else noise_of_groups(first, second)
    word = _word(shift, max(noise or 0.0, math.log1p(threshold)), math.log1p(threshold), better)
    why = ""
    if word == "unsure":
        why = "not 1, but within noise or threshold" if shift.low * shift.high > 0 else "more processes would tell"
    estimate, low, high = (math.exp(x) for x in shift)
    return Verdict(word, estimate, (low, high), noise and math.expm1(noise), n, why)


def noise_of_pairs(a: np.ndarray, b: np.ndarray) -> float | None:
    """Half the width of the interval that equal code would get: from processes of a side that followed each other."""
    even = len(a) // 2 * 2
    shift = paired_shift(np.concatenate([side[1:even:2] - side[:even:2] for side in (a, b)]).tolist(), NOISE_MISS)
    return None if shift is None else (shift.high - shift.low) / 2


def noise_of_groups(a: np.ndarray, b: np.ndarray) -> float | None:
    """Of two files, the larger of both sides: every other process of one against the rest, which are half as many."""
    shifts = [independent_shift(side[::2].tolist(), side[1::2].tolist(), NOISE_MISS) for side in (a, b)]
    widths = [(shift.high - shift.low) / 2 / math.sqrt(2) for shift in shifts if shift]
    return max(widths, default=None)


def _word(shift: Shift, beyond: float, threshold: float, better: Better) -> Word:
    up, down = (("slower", "faster") if better == "lower" else ("faster", "slower"))  # fmt: skip
    if shift.low > 0 and shift.estimate > beyond:
        return up  # type: ignore[return-value]
    if shift.high < 0 and shift.estimate < -beyond:
        return down  # type: ignore[return-value]
    return "same" if -threshold <= shift.low and shift.high <= threshold else "unsure"


def _count(mine: float, theirs: float, better: Better, threshold: float, n: int) -> Verdict:
    """Two numbers without spread: a difference beyond the threshold is one."""
    if mine == theirs:
        return Verdict("same", 1.0, (1.0, 1.0), None, n)
    ratio = float(theirs / mine) if mine else math.inf
    if abs(theirs - mine) <= threshold * abs(mine):
        return Verdict("same", ratio, (ratio, ratio), None, n)
    return Verdict("slower" if (theirs > mine) == (better == "lower") else "faster", ratio, (ratio, ratio), None, n)
