"""Means and paired differences over seeds, with 95 % intervals of Student's t; none for fewer than three seeds."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
CONFIDENCE = 0.95
LEAST = 3
"""Seeds below which no interval is given."""


@dataclass(frozen=True)
class Difference:
    """Paired differences of two arms over n seeds, in the metric's unit.

    half: half the width of the 95 % interval, None for fewer than `LEAST` pairs. verdict: better or worse where the
    interval leaves out zero, unclear where it does not, or that there are too few seeds.
    """

    n: int
    mean: float
    half: float | None
    verdict: str


def t_quantile(freedom: int) -> float:
    """Half the width of Student's central 95 % interval, from the closed form of its distribution function
    (Abramowitz and Stegun 26.7.3 and 26.7.4), so that no statistics library is needed."""

    def inside(theta: float) -> float:
        cosine, term, total = math.cos(theta), 1.0, 0.0
        powers = range(3, freedom + 1, 2) if freedom % 2 else range(2, freedom + 1, 2)
        if freedom % 2:
            term = cosine
        for power in powers:
            total += term
            term *= cosine**2 * (power - 1) / power
        return 2 / math.pi * (theta + math.sin(theta) * total) if freedom % 2 else math.sin(theta) * total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < CONFIDENCE else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def mean_half(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half the width of its 95 % interval (None for fewer than `LEAST` values)."""
    found = np.asarray(values, dtype=float)
    if len(found) < LEAST:
        return float(found.mean()), None
    return float(found.mean()), t_quantile(len(found) - 1) * float(found.std(ddof=1)) / math.sqrt(len(found))


def paired(before: Mapping[Key, float], after: Mapping[Key, float]) -> Difference | None:
    """after - before, paired by key (a seed); None without a common one."""
    pairs = [after[key] - before[key] for key in before if key in after]
    if not pairs:
        return None
    mean, half = mean_half(pairs)
    if half is None:
        return Difference(len(pairs), mean, None, "one seed" if len(pairs) == 1 else "too few seeds")
    verdict = "better" if mean - half > 0 else "worse" if mean + half < 0 else "unclear"
    return Difference(len(pairs), mean, half, verdict)
