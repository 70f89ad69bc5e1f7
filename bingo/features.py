"""Pooled backbone features of a dataset, computed by all ranks, in file order."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from bingo.config import Augmentation, FeaturesConfig, Loader, Runtime
from bingo.dataset import Dataset
from bingo.decode_failures import Failures
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import atomic_write, hash_file, read_json, write_json
from bingo.image_folder import open_images
from bingo.loader import evaluation_batches
from bingo.models import Encoder, load_encoder


@torch.no_grad()
def extract(
    encoder: Encoder,
    dataset: Dataset,
    augment: Augmentation,
    batch: int,
    runtime: Runtime,
    world: World,
    *,
    loader: Loader | None = None,
    failures: Failures | None = None,
) -> torch.Tensor:
    """N x D float32 features on the rank's device, complete on every rank; leaves the encoder in eval mode.

    Without `failures` an image that cannot be decoded is a `UserError`; with them its row is some other image's.
    """
    encoder.eval()
    rows = []
    batches = evaluation_batches(
        dataset,
        augment,
        batch=batch,
        rank=world.rank,
        world=world.size,
        device=world.device,
        threads=world.threads,
        settings=loader,
        failures=failures,
    )
    for images in batches:
        with torch.autocast(world.device.type, torch.bfloat16, enabled=runtime.precision == "bf16"):
            rows.append(encoder.features(images))
    mine = torch.cat(rows) if rows else torch.zeros(0, encoder.feature_dim, device=world.device)
    return world.gather_shards(mine, len(dataset))


def run(config: FeaturesConfig, key: str, world: World) -> dict[str, Any]:
    """Write `features.npy` (N x D float16) and `features.json` with the hashes of the dataset and the model."""
    dataset = open_images(config.data, config.loader, tell=world.main)
    encoder, model_hash = load_encoder(config.model)
    encoder.to(world.device)
    features = extract(encoder, dataset, config.augment, config.batch, config.runtime, world, loader=config.loader)
    if world.main:
        with atomic_write(config.out / "features.npy") as file:
            np.save(file, features.to(torch.float16).cpu().numpy())
        header = {"dataset": dataset.hash, "teacher": model_hash, "count": len(features), "dim": features.shape[1]}
        write_json(config.out / "features.json", {**header, "hash": hash_file(config.out / "features.npy")})
    return {"images": len(dataset), "left_out": len(dataset.left_out) or None, "dim": int(features.shape[1])}


def load_features(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """(N x D float16, header) of a features folder; `UserError` when it is absent or incomplete."""
    header = read_json(folder / "features.json")
    try:
        features = np.load(folder / "features.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'features.npy'} cannot be read ({error}); run `bingo features` again") from error
    if len(features) != header["count"]:
        raise UserError(
            f"{folder / 'features.npy'} has {len(features)} rows, its header says {header['count']}; "
            "run `bingo features` again"
        )
    return features, header
