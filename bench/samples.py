"""Medians of timed samples with bootstrap intervals; every summary keeps its samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Median, its bootstrap 95 % interval, and all samples in the order they were taken.

    aa_noise: how far apart the medians of the even and the odd samples are, relative to the whole: the same code
    against itself. None with fewer than four samples.
    """
    median = float(np.median(seconds))
    halves = [float(np.median(seconds[start::2])) for start in (0, 1)] if len(seconds) >= 4 else None
    return {
        "median": median,
        "interval": _interval(_medians(seconds, 0)),
        "aa_noise": None if halves is None else abs(halves[0] - halves[1]) / median,
        "samples": list(seconds),
    }


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """How many times as long the median of `slow` is as that of `fast`, with a bootstrap 95 % interval."""
    return {
        "ratio": float(np.median(slow) / np.median(fast)),
        "interval": _interval(_medians(slow, 0) / _medians(fast, 1)),
    }


def _medians(values: Sequence[float], seed: int) -> NDArray[np.float64]:
    chosen = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return np.median(np.asarray(values, dtype=np.float64)[chosen], axis=1)


def _interval(values: NDArray[np.float64]) -> list[float]:
    tail = (1 - CONFIDENCE) / 2
    return [float(x) for x in np.quantile(values, [tail, 1 - tail])]
