"""The model card: what it says of a recorded training and of an evaluation, and what it says where nothing is known."""

import re
from pathlib import Path

import pytest

from bingo.config import PretrainConfig
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.errors import UserError
from bingo.export.training import figures_of, name_of, training_of
from bingo.files import read_object
from bingo.identity import read_record
from bingo.stages import Stage, run_stage
from tests.support.exports import run_folder, settled_encoder


@pytest.fixture(scope="module")
def exported(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained for one epoch, evaluated by the real stage, exported; below a folder of its own."""
    root = tmp_path_factory.mktemp("chain")
    alone, small = Runtime(threads=1), Augmentation(size=16)
    train = PretrainConfig(
        data=digits / "val", out=root / "run", model="tiny", augment=small, runtime=alone,
        contrast=Contrast(dim=16, hidden=32, queue=64), optim=Optimiser(epochs=1, batch=64, lr=0.06), seed=4,
    )  # fmt: skip
    evaluation = EvalConfig(
        run=root / "run", train=digits / "val", val=digits / "val", out=root / "run" / "eval" / "linear",
        kinds=("linear", "knn", "fewshot"), k=(7,), draws=3, linear_epochs=1, augment=small, batch=512, runtime=alone,
    )  # fmt: skip
    export = ExportConfig(model=root / "run", out=root / "export", classifier=evaluation.out)
    for kind, config in (("pretrain", train), ("eval", evaluation), ("export", export)):
        run_stage(Stage(kind, kind, config))
    return root


@pytest.mark.slow
def test_the_training_is_told_without_paths(exported: Path) -> None:
    page, record = (exported / "export" / "README.md").read_text(), read_record(exported / "run")
    for row in (
        "| stage | pretrain of bingo-distill 0.1.0 |",
        f"| data | `val`, content hash `{record['inputs']['data']['hash']}` |",
        "| network | tiny |",
        "| learning rate per 256 images | 0.06 |",
        "| seed | 4 |",
    ):
        assert row in page
    said = (exported / "export" / "weights.json").read_text()
    for text in (page, said):
        assert str(exported) not in text
        assert "/tmp" not in text
    training = read_object(exported / "export" / "weights.json")["training"]
    assert training["settings"] == record["settings"]
    assert training["settings"]["data"] == record["inputs"]["data"]["hash"]


@pytest.mark.slow
def test_numbers_stand_with_their_protocol(exported: Path) -> None:
    page = (exported / "export" / "README.md").read_text()
    results = read_object(exported / "run" / "eval" / "linear" / "results.json")
    for name, protocol in (
        ("linear", "protocol cached, solver sgd"),
        ("linear_top5", "protocol cached, solver sgd"),
        ("knn", "k = 7"),
        ("fewshot", "2 labelled images per class, mean of 3 draws"),
    ):
        assert f"| {name} | {100 * results[name]:.2f} % | {protocol} |" in page
    measured = read_object(exported / "export" / "weights.json")["measured"]
    assert {name: entry["value"] for name, entry in measured.items()} == {name: results[name] for name in measured}
    assert "**Fill this in before you share the weights.**" in page


def test_inputs_are_named_without_their_place() -> None:
    paths = ("/home/someone/runs/teacher/model.pt", "/home/someone/moco_v2_800ep_pretrain.pth.tar", "/data/train")
    assert [name_of(Path(path)) for path in paths] == ["teacher", "moco_v2_800ep_pretrain.pth.tar", "train"]


def test_protocols_of_later_evaluations_are_taken() -> None:
    """Settings among the results are no accuracies."""
    results = {
        "protocol": "release", "linear": 0.5, "linear_lr": 0.1, "linear_epochs": 1.0,
        "knn": 0.25, "knn_by_k": {"10": 0.25, "20": 0.125},
        "transfer": 0.75, "transfer_l2": 0.01, "transfer_protocol": "lbfgs", "epochs": 1.0,
    }  # fmt: skip
    assert figures_of(results, None) == [
        ("linear", 0.5, "protocol release"), ("knn", 0.25, "k = 10"), ("transfer", 0.75, "lbfgs"),
        ("knn_20", 0.125, "k = 20"),
    ]  # fmt: skip


def test_nothing_is_claimed_where_nothing_is_known(tmp_path: Path) -> None:
    model = run_folder(tmp_path / "run", settled_encoder("tiny-8", 16), 16) / "model.pt"
    (tmp_path / "run" / "config.json").unlink()
    assert training_of(model) is None
    run_stage(Stage("export", "export", ExportConfig(model=model, out=tmp_path / "export", classes=3)))
    page = (tmp_path / "export" / "README.md").read_text()
    assert page.count("Not recorded.") == 2
    assert "whose training is not recorded" in page
    assert "No evaluation was given to the export." in page
    assert "**The classifier is zeros: train it before use.**" in page
    assert "pipeline_tag: image-feature-extraction" in page
    assert 'model = build_classifier("tiny-8", 3)' in page


def test_a_page_of_others_stays(tmp_path: Path) -> None:
    """In a folder of an export that an earlier release began, and that its user has described."""
    model = run_folder(tmp_path / "run", settled_encoder("tiny-8", 16), 16)
    stage = Stage("export", "export", ExportConfig(model=model, out=tmp_path / "export", classes=3))
    run_stage(stage)
    page, weights = stage.out / "README.md", stage.out / "weights.pt"
    page.write_text("# my notes\n")
    weights.unlink()
    with pytest.raises(
        UserError, match=r"README.md is not what bingo writes under that name; move it, or choose anoth"
    ):
        run_stage(stage)
    assert page.read_text() == "# my notes\n"
    assert not weights.exists()
    page.unlink()
    assert not run_stage(stage)["skipped"]
    assert re.search(r"sha256", page.read_text())
