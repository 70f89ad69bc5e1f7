"""Shared by all tests: the Triton interpreter where there is no GPU, tiny packed datasets, a small teacher, a Slurm."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.slurm import Cluster, missing

if not torch.cuda.is_available():
    # Kernels read this when their module is imported, so it is set before any test module is.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo data as image folders (images/train, images/val) and packed (train, val)."""
    from bingo.demo_data import write_digits
    from bingo.pack import pack_folder

    root = tmp_path_factory.mktemp("digits")
    write_digits(root / "images")
    for split in ("train", "val"):
        pack_folder(root / "images" / split, root / split)
    return root


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with random weights: tiny-8 with 16-d keys."""
    from bingo.models import save_encoder, seeded_encoder

    path = tmp_path_factory.mktemp("teacher") / "model.pt"
    save_encoder(path, seeded_encoder("tiny-8", dim=16, hidden=32, seed=5))
    return path


@pytest.fixture(scope="session")
def bags(tmp_path_factory: pytest.TempPathFactory, digits: Path, teacher: Path) -> Path:
    """kNN bags of the training digits under `teacher`, through the real stages."""
    from bingo.config import BagsConfig, FeaturesConfig
    from bingo.config_parts import Augmentation
    from bingo.stages import Stage, run_stage

    root = tmp_path_factory.mktemp("bags")
    features = FeaturesConfig(
        data=digits / "train", model=teacher, out=root / "features", augment=Augmentation(size=16)
    )
    run_stage(Stage("features", "features", features))
    run_stage(Stage("bags", "bags", BagsConfig(data=digits / "train", features=root / "features", out=root / "bags")))
    return root / "bags"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of a real Slurm, for tests marked `slurm`; every process of pytest-xdist starts one of its own."""
    if reason := missing():
        if os.environ.get("BINGO_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running
