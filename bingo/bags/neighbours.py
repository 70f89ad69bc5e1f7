"""Bags from features: exact nearest neighbours by faiss or the Triton kernel, inverted lists, k-means.

Rows are L2-normalised and rounded to fp32; the similarity of a pair is the dot product of its two rows, summed in fp64
and rounded to fp32; equal similarities are ordered by the lower index. That fixes the result whatever engine, blocking,
threads, ranks or device: an engine only proposes candidates, which are ranked again, and a row whose candidates cannot
be proven complete (many exact or near duplicates) is scanned against all images.

Memory of one rank: the features stay where they are (mapped from disk, as a rule). In fp32 or fp16 there are one tile
of the database (512 MiB on a CPU, a quarter of the free memory on a GPU, 8 GiB with inverted lists), blocks of queries,
and 16 proposals of 8 bytes for each of the rank's rows. Only k-means needs all N×D in fp32, on the rank that runs it.
Letters: N images, D feature dimensions, Q rows asked for, K bag size.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bingo.bags.file import check_k, draw_from_groups
from bingo.bags.points import CPU, Points, blocks
from bingo.errors import UserError
from bingo.kernels.knn import LOWEST, MOST, best_keys, choose_nearest, from_keys, nearest, to_keys

SLACK = 8  # candidates asked for beyond the K neighbours and the anchor
PLACES = 16  # the fewest candidates asked for
GPU_MAX_CANDIDATES = 2048  # faiss's own limit on a GPU
GPU_ELEMENTS = 1 << 27  # elements of a block of queries or similarities on a GPU
TILE_BYTES = 1 << 29  # the database on a CPU, a tile at a time
LIST_TILES = 16  # such tiles in one with inverted lists: each tile compares all queries with all centroids
TRAINING_POINTS = 64  # per inverted list


@dataclass(frozen=True)
class Search:
    """How neighbours are found.

    engine "faiss" (CPU or GPU) or "triton" (the fused kernel on a GPU, its PyTorch reference on a CPU, fp16); index
    "exact" or "ivf" (faiss's inverted lists: approximate); centroids: lists×D fp32 and probes: lists read per row,
    both for "ivf".
    """

    engine: Literal["faiss", "triton"] = "faiss"
    device: torch.device = CPU
    index: Literal["exact", "ivf"] = "exact"
    centroids: np.ndarray | None = None
    probes: int = 0


EXACT = Search()


def knn_bags(
    features: np.ndarray,
    k: int,
    *,
    groups: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    search: Search = EXACT,
) -> np.ndarray:
    """The k nearest neighbours of every image by cosine similarity: exact, the anchor excluded by index.

    features: N×D, fp16 or fp32 (fp64 is accepted). groups: N integers, of every image the lowest index among its exact
    copies; then copies of the anchor are never members and copies of one image fill one place, that of the lowest
    index. rows: the Q anchors wanted (default all N). Returns int32 Q×k, nearest first.

    `UserError`: features that are not a floating N×D array, k outside 1..(distinct images)-1, a row that is not finite
    or all zero, faiss missing, a k that the engine does not reach.
    """
    points = Points(features, groups)
    check_k(k, len(points.database))
    return find_nearest(points, np.arange(len(points)) if rows is None else rows, k, search)


def kmeans_bags(features: np.ndarray, clusters: int, k: int, seed: int) -> np.ndarray:
    """k images drawn without replacement from the anchor's spherical k-means cluster. Returns int32 N×k.

    features: as in `knn_bags`. All images train the centroids (faiss subsamples by default). A cluster with fewer than
    k other images is repeated cyclically; an image alone in its cluster gets its nearest neighbour, k times.
    Deterministic for one (seed, device). `UserError`: as `knn_bags`, and clusters outside 1..N.
    """
    points = Points(features)
    check_k(k, len(points))
    if not 1 <= clusters <= len(points):
        raise UserError(f"clusters = {clusters} is not between 1 and the number of images, {len(points)}")
    bags = draw_from_groups(cluster(points, clusters, seed), k, seed)
    alone = np.flatnonzero(bags[:, 0] < 0)
    if len(alone):
        bags[alone] = find_nearest(points, alone, 1, EXACT)
    return bags


def find_nearest(points: Points, rows: np.ndarray, k: int, search: Search) -> np.ndarray:
    """Neighbours, int32 len(rows)×k, of the given rows; exact unless `search` is by inverted lists."""
    wanted = min(len(points.database), max(PLACES, k + 1 + SLACK))
    engine = make_engine(points, wanted, search)
    keys = propose(points, rows, wanted, engine)
    approximate, places = (part.numpy() for part in from_keys(keys))
    bags, kth = rank(points, rows, np.where(places < 0, points.own[rows, None], points.database[places]), k)
    if not engine.exact:  # a row whose lists hold too few
        short = np.flatnonzero(np.isneginf(kth))
        bags[short] = find_nearest(points, rows[short], k, replace(search, index="exact"))
    elif wanted < len(points.database):
        # What was left out is at most as similar as the last candidate, give or take the engine's rounding.
        unproven = np.flatnonzero(approximate[:, -1] + engine.slack >= kth)
        bags[unproven] = scan(points, rows[unproven], bags[unproven], search.device)
    return bags.astype(np.int32)


def propose(points: Points, rows: np.ndarray, wanted: int, engine: "Engine") -> Tensor:
    """Keys (see `kernels.knn.to_keys`) of the best `wanted` places in the database of each row, as the engine sees it.

    The tile is the outer loop: each is made once, and no more than one is held.
    """
    keys = torch.full((len(rows), wanted), LOWEST)
    for first in range(0, len(points.database), engine.tile_rows):
        engine.load(points.database[first : first + engine.tile_rows])
        for part in blocks(len(rows), points.dim, engine.query_elements):
            scores, places = engine.find(rows[part], first)
            found = to_keys(scores, places + first).masked_fill(places < 0, LOWEST)
            keys[part] = best_keys(torch.cat([keys[part], found], 1), wanted)
    return keys


def import_faiss() -> Any:
    """The module, or a sentence that says how to get it. The only place that imports it, always after torch:
    a CUDA-12 faiss ahead of a CUDA-13 torch has crashed hosts."""
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "faiss, which finds knn and kmeans bags, is not installed: type `pip install faiss-gpu`, "
            "or `pip install faiss-cpu` on a machine without a GPU"
        ) from error
    return faiss


def make_engine(points: Points, wanted: int, search: Search) -> "Engine":
    if search.engine == "triton":
        return KernelEngine(points, wanted, search)
    return ListEngine(points, wanted, search) if search.index == "ivf" else FlatEngine(points, wanted, search)


class FlatEngine:
    """faiss's exact index in fp32 over one tile of the database."""

    exact = True
    query_elements = 0  # the usual

    def __init__(self, points: Points, wanted: int, search: Search) -> None:
        self.points, self.wanted, self.search = points, wanted, search
        self.faiss = import_faiss()
        self.faiss.omp_set_num_threads(torch.get_num_threads())
        self.tile_rows = max(1, TILE_BYTES * (1 if self.exact else LIST_TILES) // (4 * points.dim))
        self.slack = rounding(points.dim)
        self.resources: Any = None
        if use_gpu(self.faiss, 4 * points.dim * min(self.tile_rows, len(points.database)), wanted, search.device):
            self.resources = self.faiss.StandardGpuResources()

    def empty_index(self) -> Any:
        return self.faiss.IndexFlatIP(self.points.dim)

    def load(self, tile: np.ndarray) -> None:
        self.index = self.empty_index()
        if self.resources is not None:
            self.index = self.faiss.index_cpu_to_gpu(self.resources, self.search.device.index or 0, self.index)
        for part in blocks(len(tile), self.points.dim):
            self.index.add(self.points.unit(tile[part]).numpy())
        self.count = len(tile)

    def find(self, rows: np.ndarray, first: int) -> tuple[Tensor, Tensor]:
        """fp32 scores and int64 places in the tile, -1 where there are fewer."""
        found = self.index.search(self.points.unit(rows).numpy(), min(self.wanted, self.count))
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])


class ListEngine(FlatEngine):
    """faiss's inverted lists in fp32 over a large tile of the database; every tile has the same centroids."""

    exact = False

    def empty_index(self) -> Any:
        assert self.search.centroids is not None
        lists, dim = self.search.centroids.shape
        quantiser = self.faiss.IndexFlatIP(dim)
        quantiser.add(self.search.centroids)
        index = self.faiss.IndexIVFFlat(quantiser, dim, lists, self.faiss.METRIC_INNER_PRODUCT)
        index.is_trained, index.nprobe = True, self.search.probes
        self.quantiser = quantiser  # faiss keeps a bare pointer to it
        return index


class KernelEngine:
    """`kernels.knn.nearest` in fp16 over one tile of the database: as large as a quarter of a GPU's free memory."""

    exact = True

    def __init__(self, points: Points, wanted: int, search: Search) -> None:
        self.points, self.wanted, self.device = points, wanted, search.device
        gpu = search.device.type == "cuda"
        bytes_free = torch.cuda.mem_get_info(search.device)[0] // 4 if gpu else TILE_BYTES
        self.tile_rows = max(1, bytes_free // (2 * points.dim))
        self.query_elements = GPU_ELEMENTS if gpu else 0
        self.places = np.searchsorted(points.database, points.own)
        self.worst = 0.0

    @property
    def slack(self) -> float:
        """|a·b - a'·b'| <= |a - a'| |b| + |a'| |b - b'| for the rounded rows a' and b' seen so far."""
        return 2.001 * self.worst + rounding(self.points.dim)

    def half(self, rows: np.ndarray) -> Tensor:
        found = torch.empty(len(rows), self.points.dim, dtype=torch.float16, device=self.device)
        for part in blocks(len(rows), self.points.dim):
            unit = self.points.unit(rows[part], self.device)
            found[part] = unit
            lost = torch.linalg.vector_norm(unit.double() - found[part], dim=1).max()
            self.worst = max(self.worst, lost.item())
        return found

    def load(self, tile: np.ndarray) -> None:
        self.tile = self.half(tile)

    def find(self, rows: np.ndarray, first: int) -> tuple[Tensor, Tensor]:
        """fp32 scores and int64 places in the tile, -1 where there are fewer."""
        exclude = torch.from_numpy(self.places[rows] - first).to(self.device)
        scores, places = nearest(self.half(rows), self.tile, self.wanted, exclude=exclude)
        return scores.cpu(), places.cpu()


Engine = FlatEngine | KernelEngine


def check_engine(engine: str, k: int, device: torch.device) -> None:
    """`UserError` where the kernel cannot run, or its lists are too short for bags of k."""
    if engine != "triton":
        return
    try:
        choose_nearest("auto", device)
    except ValueError as error:
        raise UserError(f"--engine triton: {error}; type --engine faiss") from error
    if k + 1 + SLACK > MOST:
        raise UserError(
            f"--engine triton finds bags of at most {MOST - 1 - SLACK} images, k = {k}: type --engine faiss"
        )


def use_gpu(faiss: Any, needed: int, candidates: int, device: torch.device) -> bool:
    """Whether faiss can search `needed` bytes of rows on `device`."""
    if device.type != "cuda" or candidates > GPU_MAX_CANDIDATES or not faiss.get_num_gpus():
        return False
    return 2 * needed < torch.cuda.mem_get_info(device)[0]


def rounding(dim: int) -> float:
    """Twice the bound D·2^-24 on the error of an fp32 dot product of unit rows, to cover norms and final rounding."""
    return 2 * (dim + 2) * 2.0**-24


def rank(points: Points, rows: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row's candidates by (-similarity, index), without its own, and the k-th similarity.

    candidates: int64 Q×m; one that is the row's own stands for none, and -inf is the similarity of a place left empty.
    """
    similarity = points.similarity(rows, candidates)
    similarity[candidates == points.own[rows, None]] = -np.inf
    order = np.lexsort((candidates, -similarity), axis=1)[:, :k]
    kth = np.take_along_axis(similarity, order[:, -1:], axis=1)[:, 0]
    return np.take_along_axis(candidates, order, axis=1), kth


def scan(points: Points, rows: np.ndarray, bags: np.ndarray, device: torch.device) -> np.ndarray:
    """Complete rows by ranking every image that may be as similar as the worst of the bag so far (int64 Q×k)."""
    if not len(rows):
        return bags
    step = max(1, TILE_BYTES // (4 * points.dim))
    for first in range(0, len(points.database), step):
        at = points.database[first : first + step]
        tile = points.unit(at, device)
        for part in blocks(len(rows), max(len(at), points.dim), GPU_ELEMENTS if device.type == "cuda" else 0):
            bags[part] = scan_tile(points, rows[part], bags[part], at, tile)
    return bags


def scan_tile(points: Points, rows: np.ndarray, bags: np.ndarray, at: np.ndarray, tile: Tensor) -> np.ndarray:
    """The k best of each row among its bag and the database rows `at`, whose unit vectors are `tile`."""
    k = bags.shape[1]
    left, members = np.repeat(np.arange(len(rows)), k), bags.ravel()
    kth = points.similarity(rows, bags)
    kth[bags == points.own[rows, None]] = -np.inf
    least = torch.from_numpy(kth.min(1) - np.float32(rounding(points.dim))).to(tile.device)
    near = torch.nonzero(points.unit(rows, tile.device) @ tile.T >= least[:, None]).cpu().numpy()
    pairs = np.unique(np.stack([np.r_[left, near[:, 0]], np.r_[members, at[near[:, 1]]]], 1), axis=0)
    left, members = pairs[:, 0], pairs[:, 1]
    similarity = points.similarity(rows[left], members[:, None])[:, 0]
    similarity[members == points.own[rows[left]]] = -np.inf
    order = np.lexsort((members, -similarity, left))
    starts = np.searchsorted(left, np.arange(len(rows)))
    return _first_places(members[order], starts, np.bincount(left, minlength=len(rows)), k, points.own[rows])


def _first_places(members: np.ndarray, starts: np.ndarray, counts: np.ndarray, k: int, own: np.ndarray) -> np.ndarray:
    """The first k of each run of `members`; a shorter run is filled with the row's own index, which stands for none."""
    places = np.minimum(starts[:, None] + np.arange(k), len(members) - 1)
    return np.where(np.arange(k) < counts[:, None], members[places], own[:, None])


def cluster(points: Points, clusters: int, seed: int) -> np.ndarray:
    """Spherical k-means of all rows; returns the cluster of each, int64 N. Holds them all in fp32."""
    faiss, every = import_faiss(), np.arange(len(points))
    unit = np.concatenate([points.unit(every[part]).numpy() for part in blocks(len(points), points.dim)])
    return train_kmeans(faiss, unit, clusters, seed).index.search(unit, 1)[1][:, 0]


def train_kmeans(faiss: Any, unit: np.ndarray, clusters: int, seed: int) -> Any:
    """faiss's k-means, spherical, trained on all of `unit`."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else CPU
    kmeans = faiss.Kmeans(
        unit.shape[1],
        clusters,
        niter=20,
        spherical=True,
        seed=seed % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=-(-len(unit) // clusters),  # at the default of 256 faiss trains on a sample
        gpu=use_gpu(faiss, unit.nbytes, 1, device),
    )
    kmeans.train(unit)
    return kmeans


def list_centroids(features: np.ndarray, lists: int, seed: int) -> np.ndarray:
    """Centroids (lists×D fp32) of inverted lists, trained on evenly spaced images, TRAINING_POINTS for each list."""
    points = Points(features)
    sample = np.unique(np.linspace(0, len(points) - 1, min(len(points), lists * TRAINING_POINTS)).astype(np.int64))
    return train_kmeans(import_faiss(), points.unit(sample).numpy(), lists, seed).centroids
