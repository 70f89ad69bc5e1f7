"""Medians of timed samples with bootstrap intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000


def median_interval(samples: Sequence[float]) -> dict[str, Any]:
    """{"median", "interval": bootstrap 95 % of the median, "n"}."""
    values = np.asarray(samples, dtype=float)
    low, high = np.percentile(_medians(values, 0), [2.5, 97.5])
    return {"median": float(np.median(values)), "interval": [float(low), float(high)], "n": len(values)}


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """{"median", "interval"} of the ratio of two medians, both resampled; independent samples."""
    top, bottom = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    low, high = np.percentile(_medians(top, 1) / _medians(bottom, 2), [2.5, 97.5])
    return {"median": float(np.median(top) / np.median(bottom)), "interval": [float(low), float(high)]}


def with_noise(samples: Sequence[float]) -> dict[str, Any]:
    """`median_interval`, all samples in the order they were taken, and the noise of the same code against itself.

    aa_noise: how far apart the medians of the even and the odd samples are, relative to the whole; None for fewer than
    four samples.
    """
    summary = median_interval(samples) | {"aa_noise": None, "samples": list(samples)}
    if len(samples) >= 4:
        even, odd = (float(np.median(samples[start::2])) for start in (0, 1))
        summary["aa_noise"] = abs(even - odd) / summary["median"]
    return summary


def _medians(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)  # fixed: the same samples give the same interval
    return np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
