"""What bags look like, each figure beside what random bags of the same size would give.

purity: share of members with their anchor's label. in-degree: how many bag places an image fills; hubs fill many,
orphans none. overlap: share of members in common with other bags of the same images.
Letters: N images, K bag size.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bingo.bags.file import bag_purity, in_degree, random_bags

QUANTILES = (0.5, 0.9, 0.99, 0.999)
ROWS = 1 << 16  # compared at once


def diagnose(bags: np.ndarray, labels: np.ndarray, seed: int, others: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """JSON-ready: purity (None with a single class), in_degree and overlap with each of `others`.

    bags: int32 N×K; labels: N integers; others: name -> N×K' bags of the same images. Every figure is
    {"found", "random"}: `random` is its exact expectation under bags of K distinct other images, or, for the shape of
    the in-degree (most, gini, quantiles), that of one such draw with `seed` + 1 (random bags themselves use `seed`).
    """
    purity = None
    if len(np.unique(labels)) > 1:
        purity = {"found": bag_purity(bags, labels), "random": random_purity(labels)}
    return {
        "purity": purity,
        "in_degree": degrees(bags, seed),
        "overlap": {
            name: {"found": overlap(bags, other), "random": random_overlap(bags, other)}
            for name, other in others.items()
        },
    }


def random_purity(labels: np.ndarray) -> float:
    """Expected purity of random bags: the chance that another image has the anchor's label."""
    sizes = np.unique(labels, return_counts=True)[1].astype(float)
    return float((sizes * (sizes - 1)).sum() / (len(labels) * (len(labels) - 1)))


def degrees(bags: np.ndarray, seed: int) -> dict[str, Any]:
    """Largest in-degree, share of orphans, Gini coefficient and quantiles, found and under random bags."""
    found, chance = in_degree(bags), in_degree(random_bags(len(bags), bags.shape[1], seed + 1))
    measures = {
        "most": (int(found.max()), int(chance.max())),
        "orphans": (float((found == 0).mean()), random_orphans(*bags.shape)),
        "gini": (gini(found), gini(chance)),
    }
    measures |= {f"quantile {q:g}": (float(np.quantile(found, q)), float(np.quantile(chance, q))) for q in QUANTILES}
    return {name: {"found": value, "random": expected} for name, (value, expected) in measures.items()}


def random_orphans(n: int, k: int) -> float:
    """Expected share of images in no random bag: n - 1 bags each miss one with chance 1 - k / (n - 1)."""
    return float((1 - k / (n - 1)) ** (n - 1))


def random_degrees(n: int, k: int, most: int) -> np.ndarray:
    """Expected share of images with in-degree 0 .. most under random bags: binomial (n - 1, k / (n - 1))."""
    p = k / (n - 1)
    if p == 1:
        return (np.arange(most + 1) == n - 1).astype(float)
    steps = np.arange(min(most, n - 1))
    ratios = (n - 1 - steps) / (steps + 1) * (p / (1 - p))
    log = np.log(np.r_[1.0, ratios]).cumsum() + (n - 1) * np.log1p(-p)
    return np.pad(np.exp(log), (0, most + 1 - len(log)))


def gini(values: np.ndarray) -> float:
    """Gini coefficient of non-negative values: 0 all equal, 1 everything in one place; 0 where all are 0."""
    ordered, n = np.sort(values).astype(float), len(values)
    total = ordered.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def distinct(bags: np.ndarray) -> np.ndarray:
    """Bool, as `bags`: whether a member stands there for the first time in its (sorted) row."""
    return np.pad(np.diff(bags, axis=1) != 0, ((0, 0), (1, 0)), constant_values=True)


def overlap(left: np.ndarray, right: np.ndarray) -> float:
    """Mean over anchors of the members in both bags, as a share of the smaller bag; repeats count once. In [0, 1]."""
    total = 0.0
    for first in range(0, len(left), ROWS):
        a, b = (np.sort(bags[first : first + ROWS], axis=1) for bags in (left, right))
        once = distinct(a)
        both = ((a[:, :, None] == b[:, None, :]).any(2) & once).sum(1)
        total += (both / np.minimum(once.sum(1), distinct(b).sum(1))).sum()
    return total / len(left)


def random_overlap(left: np.ndarray, right: np.ndarray) -> float:
    """Expected overlap if one of the two were random bags of the same sizes: the larger size over N - 1."""
    sizes = [distinct(np.sort(bags, axis=1)).sum(1) for bags in (left, right)]
    return float(np.maximum(*sizes).mean() / (len(left) - 1))
