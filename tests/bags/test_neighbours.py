"""Neighbours: every engine against brute force, at acceptance size too, copies, inverted lists; k-means."""

import sys

import numpy as np
import pytest
import torch

from bingo.bags import file as bags
from bingo.bags import neighbours, points
from bingo.bags.neighbours import Search, knn_bags, rank
from bingo.errors import UserError
from bingo.kernels import knn
from tests.support.neighbours import assert_distinct_without_self, brute_force, planted
from tests.support.on_gpu import REAL

faiss = pytest.importorskip("faiss")
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


@pytest.mark.skipif(REAL, reason="CPU tensors, for which a GPU is pretended")
@pytest.mark.usefixtures("gpu")
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


def test_bags_larger_than_what_copies_leave():
    with pytest.raises(UserError, match="k = 2 is not between 1 and 1"):
        knn_bags(good(), 2, groups=np.array([0, 1] + [0] * 18))
    with pytest.raises(UserError, match="--engine triton finds bags of at most 23 images, k = 24"):
        neighbours.check_engine("triton", 24, neighbours.CPU)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_bags_equal_brute_force_on_every_row_with_planted_duplicates(dtype, k):
    features = planted(dtype)
    found = neighbours.knn_bags(features, k)
    assert features.shape == (2000, 32)
    assert found.shape == (2000, k)
    assert found.dtype == np.int32
    assert np.array_equal(found, brute_force(features, k))
    assert not (found == np.arange(2000)[:, None]).any()


def test_knn_bags_on_few_distinct_rows_where_most_similarities_tie():
    rng = np.random.default_rng(1)
    features = rng.integers(-1, 2, (700, 4)).astype(np.float32)
    features = features[np.abs(features).sum(1) > 0]
    assert np.array_equal(neighbours.knn_bags(features, 6), brute_force(features, 6))


def test_knn_bags_of_equal_rows_are_the_lowest_other_indices():
    found = neighbours.knn_bags(np.full((60, 3), 0.3, np.float32), 4)
    assert np.array_equal(found[30], [0, 1, 2, 3])
    assert np.array_equal(found[:5], [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4], [0, 1, 2, 4], [0, 1, 2, 3]])


@pytest.mark.parametrize("n", [2, 3, 12])
def test_knn_bags_of_all_other_images(n):
    features = np.random.default_rng(n).standard_normal((n, 5)).astype(np.float32)
    assert np.array_equal(neighbours.knn_bags(features, n - 1), brute_force(features, n - 1))


def test_knn_bags_use_direction_not_length():
    features = np.random.default_rng(2).standard_normal((200, 8)).astype(np.float32)
    scaled = features * 2.0 ** np.random.default_rng(3).integers(-60, 60, (200, 1))
    assert np.array_equal(neighbours.knn_bags(scaled.astype(np.float32), 5), brute_force(features, 5))


def test_knn_bags_do_not_depend_on_block_size(monkeypatch):
    features = planted(np.float32)[:600]
    whole = neighbours.knn_bags(features, 5)
    monkeypatch.setattr(points, "BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr(points, "PAIR_ELEMENTS", 5000)
    monkeypatch.setattr(neighbours, "TILE_BYTES", 5000)
    assert np.array_equal(neighbours.knn_bags(features, 5), whole)


def test_bags_do_not_depend_on_the_number_of_faiss_threads():
    features = planted(np.float16)
    before, results = faiss.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3):
            faiss.omp_set_num_threads(threads)
            results.append((neighbours.knn_bags(features, 5), neighbours.kmeans_bags(features, 20, 5, seed=1)))
    finally:
        faiss.omp_set_num_threads(before)
    for nearest, kmeans in results[1:]:
        assert np.array_equal(nearest, results[0][0])
        assert np.array_equal(kmeans, results[0][1])


def blobs(sizes: list[int], dim: int = 16, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = np.linalg.qr(rng.standard_normal((dim, dim)))[0][: len(sizes)]
    return (centres[labels] + noise * rng.standard_normal((len(labels), dim))).astype(np.float32), labels


def test_kmeans_bags_are_drawn_from_the_cluster():
    features, labels = blobs([300, 200, 100])
    found = neighbours.kmeans_bags(features, 3, 5, seed=0)
    assert found.dtype == np.int32
    assert bags.bag_purity(found, labels) == 1.0
    assert_distinct_without_self(found)
    assert np.array_equal(found, neighbours.kmeans_bags(features, 3, 5, seed=0))
    assert not np.array_equal(found, neighbours.kmeans_bags(features, 3, 5, seed=1))


def test_kmeans_trains_on_every_image():
    """At convergence every image is nearest to the mean of its own cluster; means of a sample would miss some."""
    features, _ = blobs([2000, 2000], noise=0.5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cluster = neighbours.cluster(points.Points(unit), 2, seed=0)
    means = np.stack([unit[cluster == c].mean(0) for c in (0, 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert np.array_equal((unit @ means.T).argmax(1), cluster)


def test_kmeans_image_alone_in_its_cluster_gets_its_nearest_neighbour():
    features = np.random.default_rng(5).standard_normal((30, 6)).astype(np.float32)
    assert np.array_equal(
        neighbours.kmeans_bags(features, 30, 3, seed=0), np.repeat(brute_force(features, 1), 3, axis=1)
    )


def good() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((20, 4)).astype(np.float32)


def broken(row: int, value: float) -> np.ndarray:
    features = good()
    features[row:] = value
    return features


def test_missing_faiss_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (lambda: neighbours.knn_bags(good(), 2), lambda: neighbours.kmeans_bags(good(), 2, 2, 0)):
        with pytest.raises(UserError, match="pip install faiss-gpu"):
            call()
    assert bags.random_bags(6, 2, 0).shape == (6, 2)


REFUSED = {
    "k = 0": (lambda: neighbours.knn_bags(good(), 0), "k = 0 is not between 1 and 19"),
    "k = N": (lambda: neighbours.knn_bags(good(), 20), "k = 20 is not between 1 and 19"),
    "k-means k = N": (lambda: neighbours.kmeans_bags(good(), 2, 20, 0), "k = 20 is not between 1 and 19"),
    "zero row": (lambda: neighbours.knn_bags(broken(7, 0.0), 3), "row 7 is all zeros"),
    "NaN": (lambda: neighbours.knn_bags(broken(8, np.nan), 3), "row 8 is not finite"),
    "infinity": (lambda: neighbours.kmeans_bags(broken(9, np.inf), 2, 3, 0), "row 9 is not finite"),
    "1-D": (lambda: neighbours.knn_bags(good()[0], 1), "floating N×D array"),
    "integers": (lambda: neighbours.knn_bags(good().astype(int), 1), "floating N×D array"),
    "no cluster": (lambda: neighbours.kmeans_bags(good(), 0, 3, 0), "clusters = 0 is not between 1 and .* 20"),
    "many clusters": (lambda: neighbours.kmeans_bags(good(), 21, 3, 0), "clusters = 21 is not between 1 and .* 20"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case):
    call, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
