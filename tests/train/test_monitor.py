"""What an evaluation while training says of the features, and that it changes nothing of the training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bingo.config import DistillConfig, PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Monitor, Optimiser, Runtime
from bingo.distributed import World
from bingo.evaluate.representation import described, neighbour_agreement
from bingo.features.extract import extract
from bingo.features.keys import load_keys
from bingo.images.open import open_dataset
from bingo.models import load_encoder
from bingo.stages import Stage, run_stage
from bingo.train.lines import read_metrics
from bingo.views.loader import evaluation_batches
from tests.support.cached_keys import keys_config

ALONE = World(0, 1, torch.device("cpu"), 1)


def last(out: Path) -> dict[str, Any]:
    return read_metrics(out / "metrics.jsonl", "eval")[-1]


def test_the_line_is_what_the_saved_weights_give(config: DistillConfig, digits: Path, tmp_path: Path) -> None:
    """And a run that is not looked at ends with the same weights."""
    watched = replace(config, monitor=Monitor(val=digits / "val"))
    figures = run_stage(Stage("run", "distill", watched))["figures"]
    assert (
        figures["weights"]
        == run_stage(Stage("x", "distill", replace(config, out=tmp_path / "x")))["figures"]["weights"]
    )
    line, data = last(config.out), open_dataset(config.data)
    encoder, _ = load_encoder(config.out / "model.pt")
    features = extract(encoder, data, config.augment, config.optim.batch, config.runtime, ALONE)
    assert {name: line[name] for name in described(features)} == described(features)
    assert 1 < line["rankme"] < features.shape[1]
    assert -4 < line["uniformity"] < 0
    assert config.teacher is not None
    teacher, _ = load_encoder(config.teacher)
    batches = [torch.arange(len(data)).numpy()]
    (images,) = evaluation_batches(data, config.augment, batches, device=ALONE.device, threads=1)
    with torch.no_grad():
        agreement = neighbour_agreement(features, teacher.eval()(images))
    assert line["teacher_agreement"] == pytest.approx(agreement, abs=0.002)
    assert 0.05 < agreement < 1
    assert {name: line[name] for name in ("knn", "rankme", "teacher_agreement")}.items() <= figures.items()


def test_cached_keys_stand_for_the_teacher(config: DistillConfig, digits: Path, tmp_path: Path) -> None:
    assert config.teacher is not None
    run_stage(Stage("keys", "keys", keys_config(digits, config.teacher, tmp_path / "keys")))
    cached = replace(config, teacher=None, keys=tmp_path / "keys", monitor=Monitor(val=digits / "val"))
    run_stage(Stage("run", "distill", cached))
    data = open_dataset(config.data)
    cache, images = load_keys(tmp_path / "keys", data, config.augment, ALONE), np.arange(len(data))
    keys = sum(cache.read(images, np.full(len(data), view)) for view in range(cache.views))
    features = extract(
        load_encoder(config.out / "model.pt")[0], data, config.augment, config.optim.batch, config.runtime, ALONE
    )
    assert isinstance(keys, torch.Tensor)
    agreement = neighbour_agreement(features, keys)
    assert last(config.out)["teacher_agreement"] == pytest.approx(agreement, abs=0.002)
    assert agreement > 2 / len(data), "chance"


def test_pre_training_has_no_teacher_to_agree_with(digits: Path, tmp_path: Path) -> None:
    config = PretrainConfig(
        data=digits / "train", out=tmp_path / "run", model="tiny", contrast=Contrast(dim=16, hidden=32, queue=100),
        augment=Augmentation(size=8), optim=Optimiser(epochs=1, batch=64), runtime=Runtime(threads=1),
        monitor=Monitor(val=digits / "val"),
    )  # fmt: skip
    figures = run_stage(Stage("run", "pretrain", config))["figures"]
    assert "teacher_agreement" not in last(config.out).keys() | figures.keys()
    assert figures["rankme"] == last(config.out)["rankme"] > 1
