"""The export stage: what it writes in plain form, and what it refuses."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models as zoo

from bingo.cli import main
from bingo.config import PretrainConfig
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_json import to_json
from bingo.config_parts import Augmentation, Runtime
from bingo.errors import UserError
from bingo.evaluate.input import input_of
from bingo.files import read_sealed, write_json
from bingo.identity import identify
from bingo.inputs import augmentation_of
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
    with pytest.raises(UserError, match=r"--classifier: \S+eval does not hold an evaluation \(no linear.pt in it\)"):
        run_stage(Stage("export", "export", config))


def run_folder(root: Path, name: str = "tiny-8", seed: int = 0) -> Path:
    """A trained model with the settings of its training beside it."""
    save_encoder(root / "model.pt", seeded_encoder(name, dim=8, hidden=16, seed=seed))
    settings = PretrainConfig(data=Path("d"), out=root, augment=Augmentation(size=32, mean=(0.5, 0.5, 0.5)))
    write_json(root / "config.json", {"kind": "pretrain", **to_json(settings)})
    return root


def described(config: ExportConfig) -> dict[str, Any]:
    run_stage(Stage("export", "export", config))
    return json.loads((config.out / "weights.json").read_text())


def test_what_the_weights_are_shown_is_written_beside_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From the training's settings without an evaluation; a bare file says nothing."""
    run = run_folder(tmp_path / "run")
    found = described(ExportConfig(model=run, out=tmp_path / "export", classes=7))
    assert found["input"] == {
        "size": 32, "resize": 36, "crop": "centre", "interpolation": "bilinear, antialiased",
        "mean": [0.5, 0.5, 0.5], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    assert (found["classes"], found["class_names"]) == (7, None)
    assert "is 7 zero outputs; give --classifier" in caplog.text
    (run / "config.json").unlink()
    assert described(ExportConfig(model=run / "model.pt", out=tmp_path / "bare"))["input"] is None


@pytest.fixture(scope="module")
def evaluated(digits: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "linear"
    config = EvalConfig(
        run=teacher, train=digits / "val", val=digits / "val", out=out, kinds=("linear",), linear_epochs=1,
        augment=Augmentation(size=16), batch=512, runtime=Runtime(threads=1),
    )  # fmt: skip
    run_stage(Stage("eval", "eval", config))
    return out


def test_class_names_and_input_come_from_the_evaluation(evaluated: Path, teacher: Path, tmp_path: Path) -> None:
    found = described(ExportConfig(model=teacher, out=tmp_path / "export", classifier=evaluated))
    assert found["class_names"] == [str(digit) for digit in range(10)]
    assert found["classes"] == 10
    assert found["input"]["size"] == 16
    assert read_sealed(evaluated / "results.json")["classes"] == found["class_names"]


def test_a_classifier_of_another_model_is_refused(evaluated: Path, tmp_path: Path) -> None:
    """Also one of the same width, alone or as an earlier release wrote it: results.json beside it says whose it is."""
    run, old = run_folder(tmp_path / "run"), tmp_path / "old"
    shutil.copytree(evaluated, old)
    (old / "stage.json").unlink()
    saved = torch.load(old / "linear.pt", weights_only=True)
    torch.save({name: saved[name] for name in ("weight", "bias")}, old / "linear.pt")
    alone = tmp_path / "linear.pt"
    shutil.copyfile(evaluated / "linear.pt", alone)
    for classifier, file in ((evaluated, "linear.pt"), (alone, "linear.pt"), (old, "results.json")):
        config = ExportConfig(model=run, out=tmp_path / "export", classifier=classifier)
        with pytest.raises(
            UserError, match=rf"{file} is of another model than .*run \(content hash .*evaluate this mod"
        ):
            run_stage(Stage("export", "export", config))


GOOD = {"weight": torch.ones(3, 32), "bias": torch.zeros(3)}
CLASSIFIERS: dict[str, tuple[Any, str]] = {
    "NaN": ({**GOOD, "bias": torch.full((3,), torch.nan)}, r"is not finite \(NaN or infinity\): its fit diverged"),
    "wide": ({**GOOD, "weight": torch.full((3, 32), 1e300, dtype=torch.float64)}, "is not finite"),
    "bias": ({**GOOD, "bias": torch.zeros(4)}, r"weight is \(3, 32\), bias \(4,\), not C x D and C"),
    "flat": ({**GOOD, "weight": torch.ones(3)}, r"weight is \(3,\), bias \(3,\), not C x D and C"),
    "none": ({"weight": torch.ones(0, 32), "bias": torch.zeros(0)}, "not C x D and C"),
    "whole": ({**GOOD, "weight": torch.ones(3, 32, dtype=torch.int8)}, "weight is torch.int8, bias torch.float32, not"),
    "list": ({**GOOD, "weight": [[1.0]]}, r"is no linear classifier \(tensors weight and bias\); give the folder"),
    "missing": ({"weight": GOOD["weight"]}, "is no linear classifier"),
    "tensor": (GOOD["weight"], "is no linear classifier"),
    "model": (torch.nn.Linear(32, 3), "holds a Python object of class torch.nn.modules.linear.Linear"),
    "unit": ({**GOOD, "normalise": True}, r"acts on features of unit length \(--protocol simreg\), which no linear"),
    "names": ({**GOOD, "classes": ["a", "b"]}, "has 3 outputs but not as many class names"),
    "numbers": ({**GOOD, "classes": [1, 2, 3]}, "has 3 outputs but not as many class names"),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_files_that_are_no_classifier(kind: str, tmp_path: Path) -> None:
    value, message = CLASSIFIERS[kind]
    torch.save(value, tmp_path / "linear.pt")
    config = ExportConfig(model=run_folder(tmp_path / "run"), out=tmp_path / "export", classifier=tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        run_stage(Stage("export", "export", config))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "export" / "weights.pt").exists()


FORMATS = {
    "tiny, safetensors": (
        "tiny-8",
        ("safetensors",),
        "timm has no network with the weights of tiny-8: leave safetensors",
    ),
    "tiny, detectron2": (
        "tiny-8",
        ("torchvision", "detectron2"),
        "backbones are resnet18, resnet34, resnet50 here, not",
    ),
}


@pytest.mark.parametrize("case", FORMATS)
def test_formats_that_cannot_hold_a_network(case: str, tmp_path: Path) -> None:
    """Nothing is written, not even the formats that could."""
    name, formats, message = FORMATS[case]
    save_encoder(tmp_path / "model.pt", seeded_encoder(name, dim=8, hidden=16, seed=0))
    config = ExportConfig(model=tmp_path / "model.pt", out=tmp_path / "export", format=formats)
    with pytest.raises(UserError, match=message) as caught:
        run_stage(Stage("export", "export", config))
    assert "\n" not in str(caught.value)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("name", "module"),
    [("safetensors", "timm"), ("safetensors", "safetensors"), ("onnx", "onnxscript"), ("onnx", "onnxruntime")],
)
def test_a_package_that_is_missing(name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config = ExportConfig(model=run_folder(tmp_path / "run"), out=tmp_path / "export", format=(name,))
    wanted = (
        rf"--format {name} needs the package {module}, which does not import \(.*\): type `pip install 'bingo-distill"
    )
    with pytest.raises(UserError, match=wanted) as caught:
        run_stage(Stage("export", "export", config))
    assert "\n" not in str(caught.value)
    assert not config.out.exists()


def test_formats_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    for formats in ((), ("onnx", "onnx")):
        with pytest.raises(
            UserError, match=r"format=.* is not allowed: name some of torchvision, safetensors, onnx, dete"
        ):
            ExportConfig(model=Path("m"), out=Path("o"), format=formats)
    assert main(["export", "--model", "m", "--out", "o", "--format", "onxx"]) == 2
    assert "--format: 'onxx' is not allowed; did you mean 'onnx'?" in capsys.readouterr().err


def test_the_usual_format_leaves_old_records_valid(tmp_path: Path) -> None:
    """An export of a release without `format` is known as done; one of other formats is another stage."""
    run = run_folder(tmp_path / "run")
    config = ExportConfig(model=run, out=tmp_path / "export", classes=3)
    assert "format" not in identify("export", config).settings
    other = ExportConfig(model=run, out=tmp_path / "export", classes=3, format=("torchvision", "onnx"))
    assert identify("export", other).settings["format"] == ["torchvision", "onnx"]
    run_stage(Stage("export", "export", config))
    with pytest.raises(
        UserError, match=r"export holds exported weights made with format=torchvision, not torchvision,onnx; choo"
    ):
        run_stage(Stage("export", "export", other))


def test_a_network_of_others_is_described_as_it_sees_images(tmp_path: Path) -> None:
    """A library's network is not shown ImageNet's usual colours only because no run of ours trained it."""
    seen = augmentation_of(Path("timm:tf_efficientnet_lite0"))
    assert seen is not None
    shown = input_of(seen)
    assert (shown["size"], shown["mean"]) == (224, [0.5, 0.5, 0.5])
    assert augmentation_of(tmp_path) is None
