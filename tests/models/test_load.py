"""Encoders, and strict loading."""

from pathlib import Path

import pytest
import torch
import torchvision.models as zoo

from bingo.errors import UserError
from bingo.models import Encoder, build_classifier, load_encoder, save_encoder, seeded_encoder, state_hash


@pytest.mark.parametrize(
    ("name", "dim"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("efficientnet_b0", 1280), ("vit_b_32", 768), ("tiny", 16)],
)
def test_features_are_what_the_classifier_would_see(name: str, dim: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(name, dim=8, hidden=16).eval()
    whole = build_classifier(name, 10).eval()
    assert encoder.feature_dim == dim
    inner = dict(encoder.backbone.state_dict())
    last = encoder.classifier_name
    whole.load_state_dict(
        {**inner, f"{last}.weight": whole.get_submodule(last).weight, f"{last}.bias": whole.get_submodule(last).bias},
        strict=True,
    )
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = whole(images)
        features = encoder.features(images)
        torch.testing.assert_close(whole.get_submodule(last)(features), expected)
        rows = encoder(images)
    assert rows.shape == (2, 8)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


def test_seed_decides_the_weights() -> None:
    a, b, c = (seeded_encoder("tiny", dim=4, hidden=8, seed=s) for s in (1, 1, 2))
    assert state_hash(a.state_dict()) == state_hash(b.state_dict()) != state_hash(c.state_dict())


def test_tiny_has_fifteen_hundred_parameters() -> None:
    backbone = Encoder("tiny", dim=4, hidden=8).backbone
    assert sum(p.numel() for p in backbone.parameters()) == 1604


def test_round_trip(tmp_path: Path) -> None:
    encoder = seeded_encoder("tiny-6", dim=4, hidden=8, seed=3)
    written = save_encoder(tmp_path / "model.pt", encoder)
    loaded, read = load_encoder(tmp_path)
    assert written == read
    assert (loaded.name, loaded.dim, loaded.hidden) == ("tiny-6", 4, 8)


def test_unknown_model_suggests() -> None:
    with pytest.raises(UserError, match=r"'resnet81' is unknown; did you mean.*'resnet18'"):
        build_classifier("resnet81")


def test_keys_that_do_not_match_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_encoder(path, seeded_encoder("tiny", dim=4, hidden=8, seed=0))
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["backbone.stranger"] = saved["state_dict"].pop("backbone.0.weight")
    saved["state_dict"]["head.2.bias"] = torch.zeros(9)
    torch.save(saved, path)
    with pytest.raises(UserError) as error:
        load_encoder(path)
    for part in (
        "missing keys backbone.0.weight",
        "unexpected keys backbone.stranger",
        "head.2.bias is (9,), not (4,)",
    ):
        assert part in str(error.value)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_encoder(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(
        UserError, match=r"is a text file that begins with \"hello\", not a file written by torch.save; give a"
    ):
        load_encoder(tmp_path / "text.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(
        UserError, match=r"is no network of a kind that is known here \(it holds: weights\); give a run"
    ):
        load_encoder(tmp_path / "other.pt")


def test_moco_v2_checkpoint(tmp_path: Path) -> None:
    """The published layout: module.encoder_q.*, head in fc.0 and fc.2, the queue and key encoder beside it."""
    model = zoo.resnet18(num_classes=16)
    model.fc = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 16))
    state = {f"module.encoder_q.{k}": v for k, v in model.state_dict().items()}
    state |= {"module.encoder_k.conv1.weight": model.conv1.weight, "module.queue": torch.zeros(16, 8)}
    torch.save({"arch": "resnet18", "epoch": 200, "state_dict": state}, tmp_path / "moco.pt")
    encoder, _ = load_encoder(tmp_path / "moco.pt")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.eval()(images), dim=1)
        torch.testing.assert_close(encoder.eval()(images), expected)
    del state["module.encoder_q.layer1.0.conv1.weight"]
    torch.save({"arch": "resnet18", "state_dict": state}, tmp_path / "moco.pt")
    with pytest.raises(UserError, match=r"missing keys backbone\.layer1\.0\.conv1\.weight"):
        load_encoder(tmp_path / "moco.pt")
