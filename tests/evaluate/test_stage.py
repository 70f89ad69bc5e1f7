"""The `eval` stage: what it writes, and data that do not belong together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bingo.config_evaluation import EvalConfig
from bingo.config_json import from_record, to_record
from bingo.config_parts import Augmentation, Runtime
from bingo.errors import UserError
from bingo.identity import identify
from bingo.images.pack import pack_folder
from bingo.stages import Stage, run_stage


@pytest.fixture
def config(digits: Path, teacher: Path, tmp_path: Path) -> EvalConfig:
    return EvalConfig(
        run=teacher, train=digits / "train", val=digits / "val", out=tmp_path / "eval", kinds=("linear", "knn"),
        solver="lbfgs", augment=Augmentation(size=16), batch=512, runtime=Runtime(threads=1),
    )  # fmt: skip


def test_results_and_the_classifier(config: EvalConfig) -> None:
    record = run_stage(Stage("eval", "eval", config))
    results = json.loads((config.out / "results.json").read_text())
    assert results["protocol"] == record["figures"]["protocol"] == "cached"
    assert "fewshot" not in results, "only what was asked for"
    assert 0.1 < results["linear"] <= results["linear_top5"] <= 1
    assert 0.1 < results["knn"] <= 1
    classifier = torch.load(config.out / "linear.pt", weights_only=True)
    assert (classifier["weight"].shape[0], classifier["bias"].shape) == (10, (10,))


def test_several_numbers_of_neighbours_and_a_record_of_one(config: EvalConfig) -> None:
    """The first is the run's kNN accuracy. A record of a release that knew one number is still recognised."""
    several = replace(config, kinds=("knn",), k=(10, 1, 50))
    figures = run_stage(Stage("eval", "eval", several))["figures"]
    results = json.loads((config.out / "results.json").read_text())
    assert list(results["knn_by_k"]) == ["10", "1", "50"]
    assert results["knn"] == results["knn_by_k"]["10"] == figures["knn"]
    assert figures["knn_50"] == results["knn_by_k"]["50"] != results["knn"]
    one = replace(several, k=(10,))
    assert identify("eval", one).settings["k"] == 10
    assert not {"transfer_l2", "holdout"} & identify("eval", one).settings.keys()
    assert identify("eval", replace(one, holdout=0.3)).settings["holdout"] == 0.3
    assert identify("eval", several).settings["k"] == [10, 1, 50]
    record = {**to_record("eval", one), "k": 10}
    assert from_record(EvalConfig, record, "config.json") == one


def test_transfer_to_other_classes(config: EvalConfig) -> None:
    run_stage(Stage("eval", "eval", replace(config, kinds=("transfer",), transfer_l2=(1e-4, 1e-2))))
    results = json.loads((config.out / "results.json").read_text())
    assert "linear" not in results
    assert results["transfer_protocol"].startswith("transfer: ")
    assert results["transfer_held_out"].keys() == {"0.0001", "0.01"}
    assert results["transfer_l2"] in (1e-4, 1e-2)
    assert 0.1 < results["transfer"] <= 1
    assert 0.1 < results["transfer_per_class"] <= 1
    assert torch.load(config.out / "linear.pt", weights_only=True)["weight"].shape[0] == 10


def test_splits_with_different_classes(config: EvalConfig, source: Path, tmp_path: Path) -> None:
    pack_folder(source, tmp_path / "others")
    with pytest.raises(UserError, match=r"have different classes.* only \S+train has '0', '1', '2' and 7 more"):
        run_stage(Stage("eval", "eval", replace(config, val=tmp_path / "others")))
    assert not (config.out / "results.json").exists()


def test_a_kind_that_cannot_be_measured_is_refused_before_the_features(
    config: EvalConfig, digits: Path, tmp_path: Path
) -> None:
    """One class, fewer images than shots, more neighbours than images: named, with no file written."""
    alone = tmp_path / "alone"
    (alone / "3").mkdir(parents=True)
    for file in sorted((digits / "images/train/3").iterdir())[:4]:
        (alone / "3" / file.name).symlink_to(file)
    one = replace(config, train=alone, val=alone)
    for wrong, said in (
        (one, "has one class only: no classes to tell apart for linear;"),
        (replace(config, kinds=("fewshot",), shots=1000), r"train has \d+ of the class '\d'; lower --shots"),
        (replace(one, kinds=("transfer",)), "has one class only: no classes to tell apart for transfer;"),
        (replace(one, kinds=("knn",), k=(2, 5)), "--k 5 is more than the 4 images"),
    ):
        with pytest.raises(UserError, match=said):
            run_stage(Stage("eval", "eval", wrong))
    assert not (config.out / "results.json").exists()


def test_knn_of_images_without_labels_says_that_it_means_nothing(
    config: EvalConfig, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "all").mkdir(parents=True)
        for file in sorted((digits / "images" / split / "3").iterdir())[:6]:
            (tmp_path / split / "all" / file.name).symlink_to(file)
    run_stage(
        Stage("eval", "eval", replace(config, train=tmp_path / "train", val=tmp_path / "val", kinds=("knn",), k=(2,)))
    )
    assert caplog.text.count("are of one class, 'all': an accuracy on them says nothing") == 2
    assert json.loads((config.out / "results.json").read_text())["knn"] == 1.0
