"""Medians of timed samples with bootstrap intervals."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

RESAMPLES = 2000


class Estimate(TypedDict):
    """A median, or a ratio of two, with its bootstrap 95 % interval [low, high]."""

    median: float
    interval: list[float]


class Median(Estimate):
    """The median of n samples, in their unit."""

    n: int


class Samples(Median):
    """A median with all its samples in the order they were taken, and the noise of the same code against itself."""

    aa_noise: float | None
    """How far apart the medians of the even and the odd samples are, as a share; None below four samples."""
    samples: list[float]


def median_interval(samples: Sequence[float]) -> Median:
    """The median of the samples with its bootstrap 95 % interval."""
    values = np.asarray(samples, dtype=float)
    low, high = np.percentile(_medians(values, 0), [2.5, 97.5])
    return {"median": float(np.median(values)), "interval": [float(low), float(high)], "n": len(values)}


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """The ratio of two medians, both resampled; independent samples."""
    top, bottom = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    low, high = np.percentile(_medians(top, 1) / _medians(bottom, 2), [2.5, 97.5])
    return {"median": float(np.median(top) / np.median(bottom)), "interval": [float(low), float(high)]}


def with_noise(samples: Sequence[float]) -> Samples:
    """`median_interval` with the samples and their noise."""
    summary: Samples = {**median_interval(samples), "aa_noise": None, "samples": list(samples)}
    if len(samples) >= 4:
        even, odd = (float(np.median(samples[start::2])) for start in (0, 1))
        summary["aa_noise"] = abs(even - odd) / summary["median"]
    return summary


def shown(found: Estimate) -> str:
    """`1.74 [1.60, 1.97]`."""
    low, high = found["interval"]
    return f"{found['median']:.2f} [{low:.2f}, {high:.2f}]"


def verdict(least: float, found: Estimate) -> str:
    """Whether an aim is reached: said only where the whole interval is on one side of it."""
    low, high = found["interval"]
    return "reached" if low >= least else "not reached" if high < least else "unsure"


def _medians(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)  # fixed: the same samples give the same interval
    return np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
