"""The `bags` stage: bags from features, labels or chance, by all ranks, with their diagnostics.

kNN bags: each rank finds the neighbours of its contiguous share, so the file does not depend on the number of ranks.
The other kinds are rank 0's: k-means trains on all features at once, and drawing takes seconds.
"""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bingo.bags.diagnostics import diagnose
from bingo.bags.file import check_k, label_bags, load_bags, random_bags, save_bags
from bingo.bags.neighbours import EXACT, Search, check_engine, kmeans_bags, knn_bags, list_centroids
from bingo.config import BagsConfig
from bingo.distributed import World, shard
from bingo.errors import UserError
from bingo.features.alike import open_same
from bingo.features.extract import load_features
from bingo.files import write_json
from bingo.images.dataset import Dataset

RECALL_ROWS = 1000
PROBES = 64
POINTS_PER_LIST = 39  # fewer, and faiss warns that the centroids are ill-defined

logger = logging.getLogger(__name__)


def run(config: BagsConfig, key: str, world: World) -> dict[str, Any]:
    """Write `bags.npz` and `diagnostics.json`; what the figures mean is said in `bag_diagnostics`."""
    dataset = open_same(config.data, None, world)
    compare = config.compare
    other = world.by_main(lambda: load_other(compare, dataset)) if compare else None
    members, header, found = build(config, dataset, world)
    if not world.main:
        return {}
    save_bags(
        config.out / "bags.npz",
        members,
        kind=config.kind,
        dataset_hash=dataset.hash,
        features_hash=header.get("hash"),
        teacher_hash=header.get("teacher"),
        engine=found.pop("engine"),
        seed=config.seed,
    )
    found["duplicates"] = int((dataset.duplicates != np.arange(len(dataset))).sum())
    if config.kind == "label" and len(np.unique(dataset.labels)) == 1:
        logger.warning("all images of %s are of one class: label bags are random bags", config.data)
    measured = diagnose(members, dataset.labels, config.seed, {} if other is None else {str(compare): other})
    write_json(config.out / "diagnostics.json", {**found, **measured})
    figures = {"k": config.k, "purity": measured["purity"]["found"] if measured["purity"] else None}
    figures |= {"hub": measured["in_degree"]["most"]["found"], "orphans": measured["in_degree"]["orphans"]["found"]}
    overlap = next(iter(measured["overlap"].values()))["found"] if other is not None else None
    return {**figures, **found, "overlap": overlap}


def load_other(path: Path, dataset: Dataset) -> np.ndarray:
    """Members of another bag file of the same dataset."""
    path = path if path.suffix == ".npz" else path / "bags.npz"
    return load_bags(path, dataset_hash=dataset.hash, teacher_hash=None).members


def build(config: BagsConfig, dataset: Dataset, world: World) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    """(N x k int32 members, the features' header or {}, {"engine": ..., and what was measured}); rank 0's count."""
    check_k(config.k, len(dataset))
    nothing = np.zeros((0, config.k), np.int32)
    if config.kind == "random":
        return (random_bags(len(dataset), config.k, config.seed) if world.main else nothing), {}, {"engine": "numpy"}
    if config.kind == "label":
        return (label_bags(dataset.labels, config.k, config.seed) if world.main else nothing), {}, {"engine": "numpy"}
    assert config.features is not None
    features, header = load_features(config.features, world)
    if header["dataset"] != dataset.hash:
        raise UserError(f"{config.features} holds features of another dataset than {config.data}; run `bingo features`")
    if config.kind == "knn":
        members, found = all_neighbours(config, features, dataset, world)
        return members, header, found
    members = kmeans_bags(features, config.clusters, config.k, config.seed) if world.main else nothing
    return members, header, {"engine": "faiss"}


def all_neighbours(
    config: BagsConfig, features: np.ndarray, dataset: Dataset, world: World
) -> tuple[np.ndarray, dict[str, Any]]:
    """kNN bags of all ranks' shares, and {"engine", with ivf also "recall"}."""
    groups = dataset.duplicates if config.duplicates == "collapse" else None
    engine = config.engine if config.engine != "auto" else "triton" if world.device.type == "cuda" else "faiss"
    if config.index == "ivf":
        search = inverted_lists(config, features, world)
    else:
        check_engine(engine, config.k, world.device)
        search = Search(engine, world.device)
    lo, hi = shard(len(dataset), world.rank, world.size)
    mine = knn_bags(features, config.k, groups=groups, rows=np.arange(lo, hi), search=search)
    found: dict[str, Any] = {"engine": engine}
    if config.index == "ivf":
        found = {"engine": "faiss ivf", "recall": round(recall(features, groups, mine, lo, search, world), 5)}
    world.barrier()  # which waits longer than the exchange would
    members = world.gather_shards(torch.from_numpy(mine).to(world.device), len(dataset))
    return members.cpu().numpy(), found


def inverted_lists(config: BagsConfig, features: np.ndarray, world: World) -> Search:
    """Rank 0 trains the centroids; all ranks get the same."""
    count, dim = features.shape
    lists = config.nlist or max(1, min(round(4 * math.sqrt(count)), count // POINTS_PER_LIST))
    if lists > count:
        raise UserError(f"--nlist {lists} is more than the {count} images: make it smaller")
    probes = min(config.nprobe or PROBES, lists)
    if world.main:
        logger.warning(
            "--index ivf is approximate (%d of %d lists read per image); its recall is in the figures", probes, lists
        )
    centroids = torch.zeros(lists, dim, device=world.device)
    if world.main:
        centroids.copy_(torch.from_numpy(list_centroids(features, lists, config.seed)))
    world.barrier()
    world.broadcast([centroids])
    return Search("faiss", world.device, "ivf", centroids.cpu().numpy(), probes)


def recall(
    features: np.ndarray, groups: np.ndarray | None, mine: np.ndarray, lo: int, search: Search, world: World
) -> float:
    """Share of exact neighbours in the bags of evenly spaced anchors; mine: this rank's bags, of images `lo` on."""
    sample = np.unique(np.linspace(0, len(features) - 1, min(len(features), RECALL_ROWS)).astype(np.int64))
    sample = sample[(sample >= lo) & (sample < lo + len(mine))]
    exact = knn_bags(features, mine.shape[1], groups=groups, rows=sample, search=Search(EXACT.engine, search.device))
    hits = (exact[:, :, None] == mine[sample - lo][:, None, :]).any(2).sum()
    counts = world.gather_rows(torch.tensor([[hits, exact.size]], dtype=torch.float64, device=world.device))().sum(0)
    return float(counts[0] / counts[1])
