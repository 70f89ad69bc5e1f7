"""Neighbours at acceptance size, every engine against brute force, planted and collapsed copies, inverted lists."""

import numpy as np
import pytest
import torch

from bingo.bags import neighbours, points
from bingo.bags.neighbours import Search, knn_bags, rank
from bingo.errors import UserError
from bingo.kernels import knn
from bingo.kernels.triton_queue_softmax import is_interpreted
from tests.support.neighbours import brute_force, planted

pytest.importorskip("faiss")
FAISS, KERNEL = Search("faiss"), Search("triton")


def clustered(n: int, dim: int, copies: list[int], seed: int = 0) -> np.ndarray:
    """fp16 rows around n / 50 centres, with groups of exact copies of the given sizes, shuffled."""
    rng = np.random.default_rng(seed)
    distinct = n - sum(copies) + len(copies)
    rows = rng.standard_normal((n // 50, dim))[rng.integers(0, n // 50, distinct)]
    rows = (rows + 0.7 * rng.standard_normal((distinct, dim))).astype(np.float16)
    return rng.permutation(np.repeat(rows, [*copies, *[1] * (distinct - len(copies))], axis=0))


def copies_of(features: np.ndarray) -> np.ndarray:
    """The lowest index of an equal row, by comparing all pairs."""
    return (features[:, None, :] == features[None, :, :]).all(2).argmax(1)


def screened_brute_force(features: np.ndarray, k: int) -> np.ndarray:
    """`brute_force` for many rows: all pairs in fp32 first, then in fp64 every pair that comes within 1e-3 of the k-th.

    An fp32 product of unit rows of 512 is off by less than 1e-4, so no pair that matters is left out.
    """
    wide = features.astype(np.float64)
    unit = torch.from_numpy((wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32))
    found = []
    for first in range(0, len(unit), 2000):
        block = unit[first : first + 2000]
        rough = block @ unit.T
        rough[torch.arange(len(block)), torch.arange(first, first + len(block))] = -torch.inf
        near = torch.nonzero(rough >= rough.topk(k).values[:, -1:] - 1e-3)
        row, member = near.T.numpy()
        exact = torch.linalg.vecdot(block[row].double(), unit[member].double()).float().numpy()
        order = np.lexsort((member, -exact, row))
        starts = np.searchsorted(row, np.arange(len(block)))
        found.append(member[order][starts[:, None] + np.arange(k)])
    return np.concatenate(found)


@pytest.mark.slow
def test_acceptance_every_row_of_20000_equals_brute_force():
    """20 000 x 512 with pairs, triples and groups of 17, 20 and 40 copies; the kernel's engine on the first 6000."""
    features = clustered(20_000, 512, [2] * 300 + [3] * 50 + [17, 20, 40])
    expected = screened_brute_force(features, 5)
    assert np.array_equal(knn_bags(features, 5, search=FAISS), expected)
    few = features[:6000]
    assert np.array_equal(knn_bags(few, 5, search=KERNEL), screened_brute_force(few, 5))


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_kernels_engine_equals_brute_force_with_planted_duplicates(k):
    features = planted(np.float16)
    assert np.array_equal(knn_bags(features, k, search=KERNEL), brute_force(features, k))


@pytest.mark.skipif(not is_interpreted(), reason="the kernel runs on a GPU here")
def test_the_kernel_itself_equals_brute_force_with_planted_duplicates(monkeypatch):
    monkeypatch.setattr(knn, "choose_nearest", lambda impl, device: "triton")
    features = clustered(230, 40, [2] * 10 + [20])
    assert np.array_equal(knn_bags(features, 5, search=KERNEL), brute_force(features, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_proposals_alone_rarely_lose_a_neighbour(dtype):
    """The best 16 in half precision, ranked again, without the proof that completes doubtful rows."""
    rows = points.Points(clustered(4000, 256, []))
    every = np.arange(4000)
    unit = rows.unit(every).to(dtype)
    _, places = knn.nearest(unit, unit, 16, exclude=torch.from_numpy(every), impl="reference")
    found, _ = rank(rows, every, places.numpy(), 5)
    exact = knn_bags(rows.features, 5)
    assert (found[:, :, None] == exact[:, None, :]).any(2).mean() >= 0.999


@pytest.mark.parametrize("search", [FAISS, KERNEL], ids=["faiss", "triton"])
def test_tiles_blocks_and_shares_of_the_rows_change_nothing(search, monkeypatch):
    features = planted(np.float32, 800)
    whole = knn_bags(features, 5, search=search)
    monkeypatch.setattr(neighbours, "TILE_BYTES", 90 * 4 * 32)
    monkeypatch.setattr(points, "BLOCK_ELEMENTS", 77 * 32)
    parts = [
        knn_bags(features, 5, rows=np.arange(lo, hi), search=search) for lo, hi in ((0, 300), (300, 301), (301, 800))
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    assert knn_bags(features, 5, rows=np.arange(0), search=search).shape == (0, 5)


def collapsed_brute_force(features: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """Neighbours one by one from the sorted list, leaving out copies of the anchor and of members already taken."""
    n = len(features)
    order = brute_force(features, n - 1)
    bags = np.empty((n, k), np.int32)
    for i in range(n):
        seen, taken = {groups[i]}, []
        for j in order[i]:
            if groups[j] not in seen:
                seen.add(groups[j])
                taken.append(groups[j])
        bags[i] = taken[:k]
    return bags


@pytest.mark.parametrize("search", [FAISS, KERNEL], ids=["faiss", "triton"])
def test_collapsed_copies_fill_one_place_and_never_their_own_bag(search):
    features = planted(np.float16, 700)
    groups = copies_of(features)
    assert len(np.unique(groups)) < 600
    found = knn_bags(features, 5, groups=groups, search=search)
    assert np.array_equal(found, collapsed_brute_force(features, groups, 5))
    assert not np.array_equal(found, knn_bags(features, 5, search=search))


def test_inverted_lists_are_exact_when_every_list_is_read_and_near_it_otherwise():
    features = clustered(3000, 64, [2] * 20)
    exact = knn_bags(features, 5)
    centroids = neighbours.list_centroids(features, 30, seed=0)
    assert np.array_equal(knn_bags(features, 5, search=Search(index="ivf", centroids=centroids, probes=30)), exact)
    some = knn_bags(features, 5, search=Search(index="ivf", centroids=centroids, probes=5))
    share = (some[:, :, None] == exact[:, None, :]).any(2).mean()
    assert 0.8 < share < 1


def test_inverted_lists_too_short_for_a_bag_are_searched_exactly():
    features = clustered(200, 16, [])
    centroids = neighbours.list_centroids(features, 100, seed=0)
    found = knn_bags(features, 12, search=Search(index="ivf", centroids=centroids, probes=1))
    assert np.array_equal(found, brute_force(features, 12))


def test_a_doubtful_row_is_completed_whatever_the_engine_proposes(monkeypatch):
    """With scores in steps of 1/64 the engine's order says little; its slack then says so, and the scan repairs it."""
    features = clustered(900, 32, [])
    intact = knn.nearest

    def coarse(*args, **kwargs):
        scores, indices = intact(*args, **kwargs)
        return (scores * 64).floor() / 64, indices

    monkeypatch.setattr(neighbours, "nearest", coarse)
    monkeypatch.setattr(neighbours, "rounding", lambda dim: 1 / 32)
    assert np.array_equal(knn_bags(features, 5, search=KERNEL), brute_force(features, 5))


FEATURES = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
WRONG = {
    "shape of groups": (np.zeros(19, int), "groups must be 20 integers"),
    "not the lowest": (np.full(20, 3), "the lowest index among its copies"),
    "chain": (np.array([0, 0, 1, *range(3, 20)]), "the lowest index among its copies"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_groups(case):
    groups, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        knn_bags(FEATURES, 2, groups=groups)


def test_bags_larger_than_what_copies_leave():
    with pytest.raises(UserError, match="k = 2 is not between 1 and 1"):
        knn_bags(FEATURES, 2, groups=np.array([0, 1] + [0] * 18))
    with pytest.raises(UserError, match="--engine triton finds bags of at most 23 images, k = 24"):
        neighbours.check_engine("triton", 24, neighbours.CPU)
