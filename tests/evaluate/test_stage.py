"""The `eval` stage: what it writes, and data that do not belong together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bingo.config import EvalConfig
from bingo.config_parts import Augmentation, Runtime
from bingo.errors import UserError
from bingo.images.pack import pack_folder
from bingo.stages import Stage, run_stage


@pytest.fixture
def config(digits: Path, teacher: Path, tmp_path: Path) -> EvalConfig:
    return EvalConfig(
        run=teacher, train=digits / "train", val=digits / "val", out=tmp_path / "eval", kinds=("linear", "knn"),
        solver="lbfgs", augment=Augmentation(size=16), batch=512, runtime=Runtime(threads=1),
    )  # fmt: skip


def test_results_and_the_classifier(config: EvalConfig) -> None:
    run_stage(Stage("eval", "eval", config))
    results = json.loads((config.out / "results.json").read_text())
    assert "fewshot" not in results, "only what was asked for"
    assert 0.1 < results["linear"] <= results["linear_top5"] <= 1
    assert 0.1 < results["knn"] <= 1
    classifier = torch.load(config.out / "linear.pt", weights_only=True)
    assert (classifier["weight"].shape[0], classifier["bias"].shape) == (10, (10,))


def test_splits_with_different_classes(config: EvalConfig, source: Path, tmp_path: Path) -> None:
    pack_folder(source, tmp_path / "others")
    with pytest.raises(UserError, match="have different classes; pack them from folders with the same class names"):
        run_stage(Stage("eval", "eval", replace(config, val=tmp_path / "others")))
    assert not (config.out / "results.json").exists()
