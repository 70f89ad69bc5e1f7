"""Exact neighbours from the definition, rows with planted duplicates, what every bag is."""

import numpy as np


def brute_force(features: np.ndarray, k: int) -> np.ndarray:
    """All N×N similarities at once: fp32 unit rows, correctly rounded fp32 dot products, ties by the lower index."""
    wide = features.astype(np.float64)
    unit = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    similarity = (unit @ unit.T).astype(np.float32)
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k].astype(np.int32)


def planted(dtype: type, n: int = 2000, dim: int = 32) -> np.ndarray:
    """Gaussian rows with 100 pairs, 50 triples, groups of 7, 14, 15 and 40 equal rows, and 60 near duplicates."""
    rng = np.random.default_rng(0)
    copies = [2] * 100 + [3] * 50 + [7, 14, 15, 40]
    rows = rng.standard_normal((n - sum(copies) - 60 + len(copies), dim))
    equal = np.repeat(rows[: len(copies)], copies, axis=0)
    near = np.repeat(rows[-1:], 60, axis=0) * rng.uniform(1, 3, (60, 1)) + 1e-7 * rng.standard_normal((60, dim))
    return rng.permutation(np.concatenate([equal, rows[len(copies) :], near])).astype(dtype)


def assert_distinct_without_self(found: np.ndarray) -> None:
    assert not (found == np.arange(len(found))[:, None]).any()
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
