"""Medians and ratios of timed samples with bootstrap intervals: of samples, of pairs, and of whole processes.

Below three samples there is no interval: `interval` is None, and `shown` prints the bare number with its n. Where
variants took turns, `paired_ratio` resamples turns, so that what slowed both of a turn cancels. Where several processes
measured, `of_processes` resamples processes first and then the samples of each: samples of one process share its luck.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

RESAMPLES = 2000
LEAST = 3
"""So many samples, pairs or processes an interval needs."""
BOUNDS = (2.5, 97.5)
MANY = 200
"""Of more processes the interval is between two of their medians, by the binomial distribution: drawing is slow."""
Interval = list[float] | None


class Estimate(TypedDict):
    """A median, or a ratio of two, with its bootstrap 95 % interval [low, high], None from fewer than three samples."""

    median: float
    interval: Interval
    n: int
    """Samples, or those of the side that has fewer."""


class Median(Estimate):
    """The median of samples, in their unit."""


class Samples(Median):
    """A median with all its samples in the order they were taken, and the noise of the same code against itself."""

    aa_noise: float | None
    """How far apart the medians of the even and the odd samples are, as a share; None below four samples."""
    samples: list[float]


def median_interval(samples: Sequence[float]) -> Median:
    """The median of the samples with its bootstrap 95 % interval."""
    values = np.asarray(samples, dtype=float)
    interval = _between(medians_of(values, 0)) if len(values) >= LEAST else None
    return {"median": float(np.median(values)), "interval": interval, "n": len(values)}


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> Median:
    """The ratio of two medians, both resampled; independent samples."""
    top, bottom, n = np.asarray(above, dtype=float), np.asarray(below, dtype=float), min(len(above), len(below))
    interval = _between(medians_of(top, 1) / medians_of(bottom, 2)) if n >= LEAST else None
    return {"median": float(np.median(top) / np.median(bottom)), "interval": interval, "n": n}


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> Median:
    """The median ratio of samples that were taken in turn, pair by pair, and pairs resampled.

    Where one has more samples (the other stopped early), the first pairs count.
    """
    pairs = [a / b for a, b in zip(above, below, strict=False)]
    return median_interval(pairs)


def visited_ratio(above: Sequence[float], below: Sequence[float], visits: int) -> Median:
    """The ratio of two variants that `timing.interleave` visited in turn, so many times each, some samples a visit.

    Samples of a visit share its moment, so visits are the pairs, by their medians. Where the samples are no whole
    number per visit (it was stopped in between), they are taken as independent.
    """
    if len(above) % visits or len(below) % visits:
        return ratio_interval(above, below)
    middles = [np.median(np.reshape(samples, (visits, -1)), axis=1) for samples in (above, below)]
    return paired_ratio(middles[0].tolist(), middles[1].tolist())


def of_processes(processes: Sequence[Sequence[float]]) -> Median:
    """The median over processes of each one's median; the bootstrap draws processes, then samples of each.

    Of one process it is `median_interval`. Of several an interval needs three: two say little about how far apart
    processes are. n: all samples.
    """
    filled = [np.asarray(process, dtype=float) for process in processes if len(process)]
    if len(filled) == 1:
        return median_interval(filled[0].tolist())
    middle = float(np.median([np.median(process) for process in filled]))
    if len(filled) > MANY:
        interval: Interval = _ranks([float(np.median(process)) for process in filled])
    else:
        interval = _between(_hierarchical(filled)) if len(filled) >= LEAST else None
    return {"median": middle, "interval": interval, "n": sum(map(len, filled))}


def with_noise(samples: Sequence[float]) -> Samples:
    """`median_interval` with the samples and their noise."""
    summary: Samples = {**median_interval(samples), "aa_noise": None, "samples": list(samples)}
    if len(samples) >= 4:
        even, odd = (float(np.median(samples[start::2])) for start in (0, 1))
        summary["aa_noise"] = abs(even - odd) / summary["median"]
    return summary


def shown(found: Estimate, unit: float = 1.0, form: str = ".2f") -> str:
    """`1.74 [1.60, 1.97]`, or `1.74 (n=2)` where there is no interval. unit: what figures are multiplied by."""
    value = format(unit * found["median"], form)
    return f"{value} {band(found, unit, form)}"


def band(found: Estimate, unit: float = 1.0, form: str = ".2f") -> str:
    """`[1.60, 1.97]`, or `(n=2)`."""
    if found["interval"] is None:
        return f"(n={found['n']})"
    low, high = (format(unit * end, form) for end in found["interval"])
    return f"[{low}, {high}]"


def ends(found: Estimate) -> tuple[float, float]:
    """Where a picture's whiskers end: at the median itself where there is no interval."""
    low, high = found["interval"] or (found["median"], found["median"])
    return low, high


def verdict(least: float, found: Estimate) -> str:
    """Whether an aim is reached: said only where the whole interval is on one side of it."""
    if found["interval"] is None:
        return "unsure"
    low, high = found["interval"]
    return "reached" if low >= least else "not reached" if high < least else "unsure"


def _between(values: np.ndarray) -> list[float]:
    low, high = np.percentile(values, BOUNDS)
    return [float(low), float(high)]


def _ranks(medians: Sequence[float]) -> list[float]:
    """The 95 % interval of a median of many: so many places below and above the middle."""
    ordered, n = sorted(medians), len(medians)
    away = 1.96 * n**0.5 / 2
    return [ordered[int(n / 2 - away)], ordered[int(n / 2 + away)]]


def medians_of(values: Sequence[float] | np.ndarray, seed: int) -> np.ndarray:
    """`RESAMPLES` medians, each of as many values drawn anew with replacement."""
    rng = np.random.default_rng(seed)  # fixed: the same samples give the same interval
    return np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)


def _hierarchical(processes: Sequence[np.ndarray]) -> np.ndarray:
    """Medians of medians: processes drawn with replacement, and the samples of each drawn again."""
    medians = np.stack([medians_of(process, seed) for seed, process in enumerate(processes)])
    drawn = np.random.default_rng(len(processes)).integers(len(processes), size=medians.shape)
    return np.median(np.take_along_axis(medians, drawn, 0), axis=0)
