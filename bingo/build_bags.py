"""The `bags` stage: bags of a dataset from features, labels or chance, with their diagnostics."""

from typing import TYPE_CHECKING, Any

import numpy as np

from bingo.bags import bag_purity, in_degree, kmeans_bags, knn_bags, label_bags, random_bags, save_bags
from bingo.config import BagsConfig
from bingo.dataset import Dataset
from bingo.errors import UserError
from bingo.features import load_features

if TYPE_CHECKING:
    from bingo.distributed import World


def run(config: BagsConfig, key: str, world: "World") -> dict[str, Any]:
    """Write `bags.npz`. purity: share of members with the anchor's label; hub: uses of the most used member."""
    dataset = Dataset.open(config.data)
    members, header = build(config, dataset)
    save_bags(
        config.out / "bags.npz",
        members,
        kind=config.kind,
        dataset_hash=dataset.hash,
        features_hash=header.get("hash"),
        teacher_hash=header.get("teacher"),
        engine="faiss" if header else "numpy",
        seed=config.seed,
    )
    return {"k": config.k, "purity": bag_purity(members, dataset.labels), "hub": int(in_degree(members).max())}


def build(config: BagsConfig, dataset: Dataset) -> tuple[np.ndarray, dict[str, Any]]:
    """(N x k int32 members, the features' header or {})."""
    if config.kind == "random":
        return random_bags(len(dataset), config.k, config.seed), {}
    if config.kind == "label":
        return label_bags(dataset.labels, config.k, config.seed), {}
    assert config.features is not None
    features, header = load_features(config.features)
    if header["dataset"] != dataset.hash:
        raise UserError(f"{config.features} holds features of another dataset than {config.data}; run `bingo features`")
    if config.kind == "knn":
        return knn_bags(features, config.k), header
    return kmeans_bags(features, config.clusters, config.k, config.seed), header
