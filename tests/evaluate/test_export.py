"""The export: plain weights of torchvision's classifier."""

import json
from pathlib import Path

import pytest
import torch
import torchvision.models as zoo

from bingo.config import ExportConfig
from bingo.errors import UserError
from bingo.models import build_classifier, save_encoder, seeded_encoder
from bingo.stages import Stage, run_stage


def test_export_loads_strictly_into_torchvision(tmp_path: Path) -> None:
    encoder = seeded_encoder("resnet18", dim=8, hidden=16, seed=0)
    save_encoder(tmp_path / "run" / "model.pt", encoder)
    weight, bias = torch.randn(10, 512), torch.randn(10)
    (tmp_path / "eval").mkdir()
    torch.save({"weight": weight, "bias": bias}, tmp_path / "eval" / "linear.pt")
    config = ExportConfig(model=tmp_path / "run", out=tmp_path / "export", classifier=tmp_path / "eval")
    run_stage(Stage("export", "export", config))
    model = zoo.resnet18(num_classes=10)
    model.load_state_dict(torch.load(tmp_path / "export" / "weights.pt", weights_only=True), strict=True)
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = encoder.eval().features(images) @ weight.T + bias
        torch.testing.assert_close(model.eval()(images), expected)
    assert json.loads((tmp_path / "export" / "weights.json").read_text())["model"] == "resnet18"


def test_without_a_classifier_there_are_zeros_to_train(tmp_path: Path) -> None:
    save_encoder(tmp_path / "model.pt", seeded_encoder("tiny-8", dim=8, hidden=16, seed=0))
    config = ExportConfig(model=tmp_path / "model.pt", out=tmp_path / "export", classes=3)
    assert run_stage(Stage("export", "export", config))["figures"]["classes"] == 3
    build_classifier("tiny-8", 3).load_state_dict(torch.load(config.out / "weights.pt", weights_only=True))
    assert json.loads((config.out / "weights.json").read_text())["classifier"].startswith("zeros: ")


def test_classifiers_that_do_not_fit(tmp_path: Path) -> None:
    save_encoder(tmp_path / "model.pt", seeded_encoder("tiny-8", dim=8, hidden=16, seed=0))
    torch.save({"weight": torch.zeros(3, 5), "bias": torch.zeros(3)}, tmp_path / "linear.pt")
    for classifier, message in (
        (tmp_path / "linear.pt", r"linear.pt is a classifier of 5-d features, the model has \d+; evaluate this model"),
        (tmp_path, r"linear.pt is a classifier of 5-d features"),
    ):
        config = ExportConfig(model=tmp_path / "model.pt", out=tmp_path / "export", classifier=classifier)
        with pytest.raises(UserError, match=message):
            run_stage(Stage("export", "export", config))
    assert not (tmp_path / "export" / "weights.pt").exists()
    (tmp_path / "eval").mkdir()
    config = ExportConfig(model=tmp_path / "model.pt", out=tmp_path / "export", classifier=tmp_path / "eval")
    with pytest.raises(UserError, match=r"linear.pt does not exist; run `bingo eval linear` first"):
        run_stage(Stage("export", "export", config))
