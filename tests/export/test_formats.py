"""Every format is loaded by who is to load it, and answers as the encoder with its classifier does on photographs."""

import hashlib
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bingo.config_evaluation import ExportConfig
from bingo.models import Encoder
from bingo.stages import Stage, run_stage
from tests.support.exports import (
    NAMES,
    DetectronResNet,
    answers,
    evaluation_folder,
    real_images,
    run_folder,
    settled_encoder,
)

SIZE = 64
ALL = ("torchvision", "safetensors", "onnx", "detectron2")
pytestmark = pytest.mark.slow


class Exported:
    """A folder with the formats of one network, and what the network answers."""

    def __init__(self, root: Path, name: str, formats: tuple[str, ...]) -> None:
        self.encoder: Encoder = settled_encoder(name, SIZE)
        self.out, self.images = root / "export", real_images(SIZE)
        config = ExportConfig(
            model=run_folder(root / "run", self.encoder, SIZE), out=self.out,
            classifier=evaluation_folder(root / "eval", self.encoder), format=formats,
        )  # fmt: skip
        run_stage(Stage("export", "export", config))
        saved = torch.load(root / "eval" / "linear.pt", weights_only=True)
        self.features = answers(self.encoder.features, self.images)
        self.logits = self.features @ saved["weight"].T + saved["bias"]
        assert self.logits.std(0).min() > 0.01, "images that all get the same answer would prove nothing"

    def check(self, found: Tensor) -> None:
        torch.testing.assert_close(found, self.logits, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("resnet18"), "resnet18", ALL)


def test_torchvision_and_plain_safetensors(resnet18: Exported) -> None:
    import safetensors.torch
    import torchvision.models as zoo

    model = zoo.resnet18(num_classes=10).eval()
    model.load_state_dict(torch.load(resnet18.out / "weights.pt", weights_only=True), strict=True)
    resnet18.check(answers(model, resnet18.images))
    other = zoo.resnet18(num_classes=10).eval()
    other.load_state_dict(safetensors.torch.load_file(resnet18.out / "hub" / "model.safetensors"), strict=True)
    assert torch.equal(answers(other, resnet18.images), answers(model, resnet18.images))


def test_timm_loads_the_folder(resnet18: Exported) -> None:
    import timm

    model = timm.create_model(f"local-dir:{resnet18.out / 'hub'}", pretrained=True).eval()
    resnet18.check(answers(model, resnet18.images))
    assert (model.num_classes, list(model.pretrained_cfg["label_names"])) == (10, NAMES)
    pooled = timm.create_model(f"local-dir:{resnet18.out / 'hub'}", pretrained=True, num_classes=0).eval()
    torch.testing.assert_close(answers(pooled, resnet18.images), resnet18.features, atol=1e-4, rtol=0)


def test_onnxruntime_takes_batches_of_any_size(resnet18: Exported) -> None:
    import onnx
    import onnxruntime

    file = resnet18.out / "weights.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for rows in (1, 6):
        found = session.run(["logits"], {"images": resnet18.images[:rows].numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), resnet18.logits[:rows], atol=1e-4, rtol=0)
    graph = onnx.load(file)
    onnx.checker.check_model(graph, full_check=True)
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(said["class_names"]) == NAMES
    assert said["preprocessing"].endswith("not in the graph")
    assert [entry.version for entry in graph.opset_import if not entry.domain] == [18]
    assert b"site-packages" not in file.read_bytes(), "where torch is installed here is nobody's business"


def test_detectron2_names_hold_the_backbone(resnet18: Exported) -> None:
    """detectron2 itself is no package of the index: its network by its documented names takes the file strictly."""
    saved = pickle.loads((resnet18.out / "detectron2.pkl").read_bytes())
    assert (saved["__author__"], saved["matching_heuristics"]) == ("bingo-distill", True)
    model = DetectronResNet(18).eval()
    state = {name: torch.from_numpy(array) for name, array in saved["model"].items()}
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict(state | counters, strict=True)
    torch.testing.assert_close(answers(model, resnet18.images), resnet18.features, atol=1e-4, rtol=1e-4)


def test_the_card_says_how_and_it_works(resnet18: Exported) -> None:
    """Its Python, as written, gives the network's answers; the folder `hub` may stand elsewhere."""
    from huggingface_hub import ModelCard

    blocks = re.findall(r"```python\n(.*?)```", (resnet18.out / "README.md").read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        names = {"images": resnet18.images.numpy()}
        exec(block.replace("DIR", str(resnet18.out)), names)
        found = names["logits"] if "onnx" in block else answers(names["model"], resnet18.images)
        resnet18.check(torch.as_tensor(found))
    moved = resnet18.out.parent / "elsewhere"
    (resnet18.out / "hub").rename(moved)
    try:
        (block,) = re.findall(r"```python\n(.*?)```", (moved / "README.md").read_text(), re.S)
        names = {}
        exec(block.replace("DIR", str(moved)), names)
        resnet18.check(answers(names["model"], resnet18.images))
    finally:
        moved.rename(resnet18.out / "hub")
    card = ModelCard.load(resnet18.out / "hub" / "README.md")
    assert (card.data.library_name, card.data.license, card.data.pipeline_tag) == (
        "timm", "other", "image-classification",
    )  # fmt: skip


def test_every_file_has_its_sha256(resnet18: Exported) -> None:
    said = json.loads((resnet18.out / "weights.json").read_text())["files"]
    ours = {"weights.json", "stage.json", "config.json", "environment.json"}
    there = {
        p.relative_to(resnet18.out).as_posix() for p in resnet18.out.rglob("*") if p.is_file() and p.name[0] != "."
    }
    assert set(said) == there - ours
    assert set(said) == {
        "weights.pt", "weights.onnx", "detectron2.pkl", "README.md", "hub/README.md", "hub/config.json",
        "hub/model.safetensors",
    }  # fmt: skip
    page = (resnet18.out / "README.md").read_text()
    for name, entry in said.items():
        content = (resnet18.out / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        assert name.endswith("README.md") or entry["sha256"] in page


def test_a_network_of_torchvision_alone_as_onnx(tmp_path: Path) -> None:
    import onnxruntime

    exported = Exported(tmp_path, "efficientnet_b0", ("onnx",))
    session = onnxruntime.InferenceSession(exported.out / "weights.onnx", providers=["CPUExecutionProvider"])
    exported.check(torch.from_numpy(session.run(None, {"images": exported.images.numpy()})[0]))
    assert not (exported.out / "weights.pt").exists(), "only what was asked for"


def test_zeros_to_train_are_zeros_in_every_format(tmp_path: Path) -> None:
    """And the same weights give the same bytes."""
    import onnx

    written = []
    for name in ("one", "two"):
        run = run_folder(tmp_path / name, settled_encoder("tiny-8", 16), 16)
        config = ExportConfig(model=run, out=tmp_path / name / "export", classes=3, format=("torchvision", "onnx"))
        run_stage(Stage("export", "export", config))
        written.append({file: (config.out / file).read_bytes() for file in ("weights.pt", "weights.onnx", "README.md")})
    assert written[0] == written[1]
    graph = onnx.load_from_string(written[0]["weights.onnx"])
    held = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.graph.initializer}
    assert held["11.weight"].shape == (3, 32)
    assert not held["11.weight"].any()
    assert not held["11.bias"].any()


def test_a_killed_export_is_done_again_and_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is whole or absent; the same command ends it and leaves nothing half-written of the first."""
    import bingo.export.stage as stage

    run = run_folder(tmp_path / "run", settled_encoder("resnet18", 32), 32)
    config = ExportConfig(model=run, out=tmp_path / "export", classes=3, format=("safetensors", "detectron2"))
    real, written = stage.atomic_write, []

    def killed_at_the_second(path: Path) -> object:
        written.append(path.relative_to(config.out).as_posix())
        if len(written) == 2:
            path.with_name(f".{path.name}.host-1-0a.tmp").write_bytes(b"half")
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(stage, "atomic_write", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_stage(Stage("export", "export", config))
    assert written == ["hub/model.safetensors", "hub/config.json"]
    assert (config.out / "hub" / ".config.json.host-1-0a.tmp").exists()
    monkeypatch.undo()
    assert not run_stage(Stage("export", "export", config))["skipped"]
    files = json.loads((config.out / "weights.json").read_text())["files"]
    assert {f"hub/{path.name}" for path in (config.out / "hub").iterdir()} == {n for n in files if n.startswith("hub/")}
    for name, entry in files.items():
        assert entry["sha256"] == hashlib.sha256((config.out / name).read_bytes()).hexdigest()
