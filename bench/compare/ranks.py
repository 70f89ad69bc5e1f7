"""Estimates of a shift with exact 95 % intervals that rest on ranks alone: no bell curve is assumed, and a process that
was held up by others counts as one that was slower, by however much.

Signed ranks (Wilcoxon) for pairs, rank sums (Mann and Whitney) for two independent groups; the estimates are those of
Hodges and Lehmann. https://doi.org/10.1214/aoms/1177704172
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MISS = 0.05
"""Share of intervals that may leave out the truth."""


class Shift(NamedTuple):
    """How much the second is above the first; low and high: the interval."""

    estimate: float
    low: float
    high: float


def paired_shift(differences: Sequence[float], miss: float = MISS) -> Shift | None:
    """From the differences of pairs; None where there are too few for such an interval: for 95 % below six."""
    values = np.asarray(differences, dtype=float)
    i, j = np.triu_indices(len(values))
    return _shift((values[i] + values[j]) / 2, _left_out_of_pairs(len(values), miss))


def independent_shift(first: Sequence[float], second: Sequence[float], miss: float = MISS) -> Shift | None:
    """Of two groups that were not measured in turns; None where they are too small, below four each."""
    differences = np.subtract.outer(np.asarray(second, dtype=float), np.asarray(first, dtype=float)).ravel()
    return _shift(differences, _left_out_of_groups(len(first), len(second), miss))


def _shift(candidates: np.ndarray, left_out: int) -> Shift | None:
    """The median of all candidates, and the interval without so many at either end."""
    if left_out == 0:
        return None
    ordered = np.sort(candidates)
    return Shift(float(np.median(ordered)), float(ordered[left_out - 1]), float(ordered[-left_out]))


@functools.cache
def _left_out_of_pairs(n: int, miss: float) -> int:
    """The largest k with P(sum of positive ranks < k) <= miss / 2, by counting subsets of 1..n by their sum."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1.0
    for rank in range(1, n + 1):
        ways[rank:] += ways[:-rank].copy()
        ways /= 2.0
    return int(np.searchsorted(np.cumsum(ways), miss / 2, side="right"))


@functools.cache
def _left_out_of_groups(m: int, n: int, miss: float) -> int:
    """The largest k with P(U < k) <= miss / 2, by counting the orders of m and n values by U, m at a time."""
    ways = np.zeros((m + 1, m * n + 1))
    ways[0, 0] = 1.0  # of so many values drawn from the first group: by the sum of the places before them
    for place in range(m + n):
        for drawn in range(min(m, place + 1), 0, -1):
            shift = place - drawn + 1  # values of the second group that lie before this one
            if shift <= n:
                ways[drawn, shift:] += ways[drawn - 1, : m * n + 1 - shift]
    share = ways[m] / ways[m].sum()
    return int(np.searchsorted(np.cumsum(share), miss / 2, side="right"))
