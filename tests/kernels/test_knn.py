"""Nearest rows: the PyTorch reference against brute force with ties, the Triton kernel against the reference."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bingo.kernels import knn
from bingo.kernels.knn import best_keys, from_keys, nearest, to_keys
from tests.support.naive import DEVICE

# Q x N x D, k: less than a tile, ragged in everything, a row alone, whole tiles, more places than rows.
SHAPES = [(7, 3, 16, 4), (33, 70, 48, 16), (1, 1, 1, 1), (16, 128, 32, 5), (20, 300, 41, 17), (5, 100, 33, 32)]


def rows(count: int, channels: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Small whole numbers: products are exact in every dtype, and most scores tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, (count, channels), generator=generator).to(DEVICE, dtype)


def brute_force(queries: Tensor, database: Tensor, k: int, exclude: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    scores = (queries.double() @ database.double().T).cpu().numpy()
    if exclude is not None:
        for row, own in enumerate(exclude.tolist()):
            if 0 <= own < len(database):
                scores[row, own] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    order[np.isneginf(found)] = -1
    short = ((0, 0), (0, max(0, k - order.shape[1])))
    return np.pad(found, short, constant_values=-np.inf), np.pad(order, short, constant_values=-1)


@pytest.mark.sampled(16)
@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("q", "n", "d", "k"), SHAPES)
def test_equals_brute_force_where_most_scores_tie(q, n, d, k, dtype, impl):
    queries, database = rows(q, d, 0, dtype), rows(n, d, 1, dtype)
    for exclude in (None, torch.arange(3, 3 + q, device=DEVICE)):
        scores, indices = nearest(queries, database, k, exclude=exclude, impl=impl)
        exact_scores, exact_indices = brute_force(queries, database, k, exclude)
        assert (scores.dtype, indices.dtype) == (torch.float32, torch.int64)
        assert np.array_equal(scores.cpu().numpy(), exact_scores)
        assert np.array_equal(indices.cpu().numpy(), exact_indices)


def test_reference_does_not_depend_on_its_blocks(monkeypatch):
    queries, database, exclude = rows(40, 6, 2), rows(500, 6, 3), torch.arange(40, device=DEVICE)
    whole = nearest(queries, database, 16, exclude=exclude, impl="reference")
    for block in (5, 16, 17, 499):
        monkeypatch.setattr(knn, "REFERENCE_COLUMNS", block)
        monkeypatch.setattr(knn, "REFERENCE_ROWS", 7)
        assert all(map(torch.equal, nearest(queries, database, 16, exclude=exclude, impl="reference"), whole))


@pytest.mark.quick
def test_excluded_rows_are_places_not_values():
    """Twenty equal rows: every row finds the lowest others."""
    database = torch.ones(20, 16, device=DEVICE)
    for impl in ("reference", "triton"):
        _, indices = nearest(database, database, 3, exclude=torch.arange(20, device=DEVICE), impl=impl)
        assert indices[:4].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
        assert (indices[4:] == torch.arange(3, device=DEVICE)).all()


def test_lists_of_parts_of_the_database_merge_into_the_whole():
    queries, database = rows(30, 5, 6), rows(200, 5, 7)
    whole = nearest(queries, database, 8)
    keys = []
    for first, last in ((0, 3), (3, 120), (120, 200)):
        scores, indices = nearest(queries, database[first:last], 8)
        keys.append(to_keys(scores, indices + first))
    assert all(map(torch.equal, from_keys(best_keys(torch.cat(keys, 1), 8)), whole))


def test_keys_order_and_return_every_score():
    tiny = torch.finfo(torch.float32).tiny
    scores = torch.tensor([-torch.inf, -3.5, -tiny, -0.0, 0.0, tiny, 2.0, 2.0, torch.inf])
    indices = torch.tensor([7, 5, 0, 4, 4, 2**30, 9, 8, 0])
    keys = to_keys(scores, indices)
    assert (keys.diff() >= 0).all()
    assert keys[3] == keys[4]
    back, places = from_keys(keys)
    assert torch.equal(back, scores)
    assert places.tolist() == [-1, *indices.tolist()[1:]]


def test_nothing_to_search():
    empty = torch.zeros(0, 4)
    scores, indices = nearest(torch.ones(2, 4), empty, 3)
    assert scores.tolist() == [[-torch.inf] * 3] * 2
    assert indices.tolist() == [[-1] * 3] * 2
    assert nearest(empty, torch.ones(2, 4), 3)[0].shape == (0, 3)


ONES = torch.ones(4, 8)
WRONG = {
    "shapes": (lambda: nearest(ONES, torch.ones(4, 9), 1), r"Q x D and database N x D.*\(4, 8\) and \(4, 9\)"),
    "dtypes": (lambda: nearest(ONES, ONES.half(), 1), "float32 and torch.float16"),
    "fp64": (lambda: nearest(ONES.double(), ONES.double(), 1), "float16, bfloat16 or float32"),
    "k": (lambda: nearest(ONES, ONES, 0), "k must be at least 1, not 0"),
    "exclude": (lambda: nearest(ONES, ONES, 1, exclude=torch.zeros(3, dtype=torch.int64)), "exclude must be Q = 4"),
    "impl": (lambda: nearest(ONES, ONES, 1, impl="faiss"), "unknown impl 'faiss'; .* auto, reference, triton"),
    "k of the kernel": (lambda: nearest(ONES.to(DEVICE), ONES.to(DEVICE), 33, impl="triton"), "at most 32 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_auto_is_the_reference_on_a_cpu(caplog):
    knn.choose_nearest.cache_clear()
    with caplog.at_level("INFO", logger="bingo.kernels.knn"):
        nearest(ONES, ONES, 1)
    assert "runs 'reference' on cpu" in caplog.text
