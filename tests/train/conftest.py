"""Shared by the tests of training."""

from pathlib import Path

import pytest

from bingo.config import DistillConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from tests.support.ranks import finish, start_ranks
from tests.support.short_run import command


@pytest.fixture(scope="session")
def uninterrupted(digits: Path, teacher: Path, bags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The short run by two ranks that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    results = finish(start_ranks(command(digits, teacher, bags, out), 2))
    assert [code for code, _ in results] == [0, 0], results
    return out


@pytest.fixture
def config(digits: Path, teacher: Path, bags: Path, tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        data=digits / "train",
        out=tmp_path / "run",
        teacher=teacher,
        bags=bags,
        student="tiny",
        warm_epochs=0,
        contrast=Contrast(dim=16, hidden=32, queue=100),
        augment=Augmentation(size=16),
        optim=Optimiser(epochs=1, batch=64),
        runtime=Runtime(threads=1),
    )
