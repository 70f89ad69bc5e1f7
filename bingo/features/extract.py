"""Pooled backbone features of a dataset, computed by all ranks, in file order."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bingo.config import FeaturesConfig
from bingo.config_parts import Augmentation, Loader, Runtime
from bingo.distributed import World, shard
from bingo.errors import UserError
from bingo.features.alike import engine_same, key_of_blocks, load_same, open_same, rounded_by
from bingo.features.blocks import Range, fill_blocks
from bingo.features.stored import MOST_HALF, all_equal, check_content, check_rows, open_rows
from bingo.files import hash_file, read_sealed, write_sealed
from bingo.images.dataset import Dataset
from bingo.images.open import left_out_now
from bingo.models import Encoder, autocast
from bingo.progress import progress_bar
from bingo.views.decode_failures import Failures
from bingo.views.loader import evaluation_batches

FILE, HEADER = "features.npy", "features.json"
AGAIN = "run `bingo features` again"
STORED = {"fp16": np.float16, "fp32": np.float32}
BLOCK_IMAGES = 4096
"""About how many images' features are computed before they are written: what a kill costs at most, on each rank."""


@torch.no_grad()
def features_of_batches(
    encoder: Encoder,
    dataset: Dataset,
    augment: Augmentation,
    batches: list[np.ndarray],
    runtime: Runtime,
    world: World,
    *,
    loader: Loader | None = None,
    failures: Failures | None = None,
) -> Iterator[torch.Tensor]:
    """float32 features (B x D) of each batch of indices, on the rank's device; leaves the encoder in eval mode."""
    encoder.eval()
    images = evaluation_batches(
        dataset, augment, batches, device=world.device, threads=world.threads, settings=loader, failures=failures
    )
    for block in images:
        with autocast(runtime, world.device):
            features = encoder.features(block)
        yield features.float()


def cut(first: int, last: int, batch: int) -> list[np.ndarray]:
    """The indices first .. last in batches."""
    return [np.arange(start, min(start + batch, last)) for start in range(first, last, batch)]


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
    batches = cut(*shard(len(dataset), world.rank, world.size), batch)
    rows = list(
        features_of_batches(encoder, dataset, augment, batches, runtime, world, loader=loader, failures=failures)
    )
    mine = torch.cat(rows) if rows else torch.zeros(0, encoder.feature_dim, device=world.device)
    return world.gather_shards(mine, len(dataset))


def run(config: FeaturesConfig, key: str, world: World) -> dict[str, Any]:
    """Write `features.npy` (N x D float16 or float32) and `features.json` with the hashes of dataset and model.

    All ranks fill the file block by block; a killed run goes on after the blocks that are done. A block is a whole
    number of batches, so who computes it changes nothing.
    """
    dataset = open_same(config.data, config.loader, world)
    encoder, model_hash = load_same(config.model, config.augment.size, world, head=False, arch=config.arch)
    rows = min(config.batch, len(dataset))
    encoder = engine_same(encoder, config.runtime, world, rows=rows, size=config.augment.size)
    path, key = config.out / FILE, key_of_blocks(key, encoder, config.runtime, world)

    def compute(ranges: list[Range]) -> Iterator[np.ndarray]:
        batches = [rows for first, last in ranges for rows in cut(first, last, config.batch)]
        found = features_of_batches(
            encoder, dataset, config.augment, batches, config.runtime, world, loader=config.loader
        )
        for first, last in ranges:
            rows = torch.cat([next(found) for _ in cut(first, last, config.batch)])
            yield as_stored(rows, config.dtype, first, dataset, config.model)

    with progress_bar("features", unit="blocks", show=world.main) as advance:
        resumed = fill_blocks(
            path, (len(dataset), encoder.feature_dim), STORED[config.dtype], key=key, world=world, compute=compute,
            block=config.batch * max(1, BLOCK_IMAGES // config.batch), advance=advance,
        )  # fmt: skip
    if world.main:
        header = {"dataset": dataset.hash, "teacher": model_hash, "count": len(dataset), "dim": encoder.feature_dim}
        header |= {"dtype": "fp32"} if config.dtype == "fp32" else {}  # as before where nothing is new
        header |= {name: value for name, value in rounded_by(encoder, config.runtime, world).items() if value}
        write_sealed(config.out / HEADER, {**header, "hash": hash_file(path)})
    return {
        "images": len(dataset),
        "left_out": left_out_now(dataset) or None,
        "dim": encoder.feature_dim,
        "resumed_blocks": resumed or None,
        **rounded_by(encoder, config.runtime, world),
    }


def as_stored(rows: torch.Tensor, dtype: str, first: int, dataset: Dataset, model: Path) -> np.ndarray:
    """Features (R x D) of the images `first` on in the file's dtype on the host.

    `UserError`: as for `check_rows`; in fp16 too large.
    """
    stored = rows.to(torch.float16 if dtype == "fp16" else torch.float32).cpu()
    try:
        check_rows(stored, "features", model, lambda row: dataset.paths[first + row])
    except UserError as error:
        largest = float(rows.abs().max())
        if MOST_HALF < largest < math.inf and dtype == "fp16":
            raise UserError(
                f"the features of the network in {model} reach {largest:.3g}, more than the {MOST_HALF} that "
                "float16, in which they are stored, can hold: store them with --dtype fp32, or give another network"
            ) from error
        raise
    return stored.numpy()


def load_features(folder: Path, world: World) -> tuple[np.ndarray, dict[str, Any]]:
    """(N x D float16 or float32, mapped from disk, header) of a features folder; each rank compares its content hash.

    Called by every rank. `UserError`, the same on each: no or damaged header, a file that is not the one described,
    features that are the same for every image. `TransientError` where ranks do not see the same.
    """
    path = folder / FILE
    return world.together(lambda: _load_features(folder), lambda found: {f"the content of {path}": found[1]["hash"]})


def _load_features(folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    if not (folder / HEADER).exists():
        raise UserError(f"{folder} holds no finished features (no {HEADER} in it); make them with `bingo features`")
    header = read_sealed(
        folder / HEADER, {"dataset": str, "teacher": str, "count": int, "dim": int, "hash": str}, remedy=AGAIN
    )
    path = folder / FILE
    dtype = header.get("dtype", "fp16")
    if dtype not in STORED:
        raise UserError(f"{folder / HEADER}: dtype {dtype!r} is not one of {', '.join(STORED)}; {AGAIN}")
    features = open_rows(path, (header["count"], header["dim"]), STORED[dtype], AGAIN)
    check_content(path, header["hash"], AGAIN)
    if all_equal(features):
        raise UserError(
            f"{path} holds the same features for each of {len(features)} images: the network that made "
            "them is broken, or all images are one; give other features"
        )
    return features, header
