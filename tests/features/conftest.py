"""Shared by the tests of features and of cached keys."""

from pathlib import Path

import pytest

from bingo.config import DistillConfig
from bingo.config_parts import Contrast, Optimiser, Runtime
from bingo.stages import Stage, run_stage
from tests.support.cached_keys import SMALL, keys_config


@pytest.fixture(scope="session")
def cache(digits: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of three views of the training digits, in bf16, through the real stage."""
    out = tmp_path_factory.mktemp("keys") / "keys"
    run_stage(Stage("keys", "keys", keys_config(digits, teacher, out)))
    return out


@pytest.fixture
def config(digits: Path, cache: Path, bags: Path, tmp_path: Path) -> DistillConfig:
    """A distillation from these keys."""
    return DistillConfig(
        data=digits / "train", out=tmp_path / "run", keys=cache, bags=bags, student="tiny", warm_epochs=0,
        contrast=Contrast(dim=16, hidden=32, queue=100), augment=SMALL, optim=Optimiser(epochs=2, batch=64),
        runtime=Runtime(threads=1),
    )  # fmt: skip
