"""Retrieval: the validation images that a teacher and its student find nearest to the same anchors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from bingo.bench.report.contents import Retrieved
from bingo.bench.report.pictures import anchors_of, neighbour_rows
from bingo.config_parts import Augmentation, Runtime
from bingo.distributed import World
from bingo.features.extract import features_of_batches
from bingo.images.dataset import Dataset
from bingo.models import load_encoder

GALLERY = 1_000
"""Images among which is searched, evenly spaced: more would take minutes on a CPU with a large teacher."""
NEAREST = 5
BATCH = 64


def retrieve(networks: Mapping[str, Path], dataset: Dataset, augment: Augmentation, anchors: int) -> list[Retrieved]:
    """For each network the `NEAREST` images of the same anchors by cosine, and how many of all are of the class.

    `UserError`: DALI is missing, or a folder holds no network.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), GALLERY)).round().astype(int))
    shown = chosen[anchors_of(len(chosen), anchors)]
    found: list[Retrieved] = []
    for name, path in networks.items():
        nearest = neighbours(path, dataset, augment, chosen)
        same = dataset.labels[nearest] == dataset.labels[chosen][:, None]
        rows = neighbour_rows(dataset, {int(a): nearest[np.searchsorted(chosen, a)].tolist() for a in shown}, "found")
        found.append({"name": name, "share": float(same.mean()), "images": len(chosen), "rows": rows})
    return found


@torch.no_grad()
def neighbours(path: Path, dataset: Dataset, augment: Augmentation, chosen: np.ndarray) -> np.ndarray:
    """The numbers of the `NEAREST` others of each chosen image (len(chosen) x NEAREST), nearest first."""
    encoder = load_encoder(path)[0]
    world = World(0, 1, torch.device("cpu"), 1)
    batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    rows = list(features_of_batches(encoder, dataset, augment, batches, Runtime(device="cpu"), world))
    features = F.normalize(torch.cat(rows), dim=1)
    likeness = features @ features.T
    likeness.fill_diagonal_(-2)
    return chosen[likeness.topk(min(NEAREST, len(chosen) - 1), dim=1).indices.numpy()]
