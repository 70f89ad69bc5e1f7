"""Networks of torchvision and timm by name: what the library itself gives, how it sees images, and what it lacks."""

import os
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision.models as zoo

from bingo.config import FeaturesConfig
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.flags import stage_of
from bingo.identity import identify
from bingo.inputs import check_input
from bingo.models import load_encoder
from bingo.paths import library_name

CREATE = timm.create_model


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Both libraries "have" weights that are drawn by the seed in the list, without a network."""
    seed = [0]

    def create(name: str, pretrained: bool = False, **settings: Any) -> Any:
        torch.manual_seed(seed[0])
        return CREATE(name, **settings)

    def state(weights: Any, **_: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed[0])
        return zoo.get_model(weights.meta["arch"]).state_dict()

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(zoo.WeightsEnum, "get_state_dict", state)
    for enum, arch in ((zoo.ResNet18_Weights, "resnet18"), (zoo.MobileNet_V3_Small_Weights, "mobilenet_v3_small")):
        monkeypatch.setitem(enum.DEFAULT.meta, "arch", arch)
    return seed


@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenetv3_small_050", 64), ("convnext_atto", 64), ("vit_tiny_patch16_224", 224), ("resnet10t", 64)],
)
def test_timm_gives_what_timm_gives(name: str, size: int, random_weights: list[int]) -> None:
    encoder, _ = load_encoder(Path(f"timm:{name}"))
    own = timm.create_model(name, pretrained=True, num_classes=0).eval()
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval().features(images), own(images), rtol=1e-5, atol=1e-5)
    assert (encoder.name, encoder.form.form) == (f"timm:{name}", "")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_gives_what_torchvision_gives(name: str, random_weights: list[int]) -> None:
    encoder, _ = load_encoder(Path(f"torchvision:{name}"))
    torch.manual_seed(0)
    own = zoo.get_model(name).eval()
    setattr(own, "fc" if name == "resnet18" else "classifier", torch.nn.Identity())
    images = torch.randn(1, 3, 64, 64)
    expected = own(images)
    if name == "mobilenet_v3_small":
        torch.manual_seed(0)
        expected = zoo.get_model(name).classifier[:2](expected)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval().features(images), expected, rtol=1e-5, atol=1e-5)
    assert encoder.name == name


def test_a_stage_is_known_by_the_weights_and_not_by_the_name(
    random_weights: list[int], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FeaturesConfig(digits / "train", Path("timm:mobilenetv3_small_050"), tmp_path)
    first = identify("features", config)
    assert first.inputs["model"].place == "timm:mobilenetv3_small_050"
    monkeypatch.chdir(tmp_path)
    elsewhere = FeaturesConfig(digits / "train", Path(os.path.abspath("timm:mobilenetv3_small_050")), tmp_path)
    assert identify("features", elsewhere).key == first.key
    random_weights[0] = 1
    assert identify("features", config).key != first.key


def test_images_are_seen_as_the_library_sees_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for name, expected in (
        ("timm:tf_efficientnet_lite0", Augmentation(mean=(0.5,) * 3, std=(0.5,) * 3)),
        ("timm:vit_small_patch14_dinov2.lvd142m", Augmentation(size=518)),
        ("torchvision:efficientnet_b3", Augmentation(size=300)),
        ("torchvision:resnet50", Augmentation()),
    ):
        assert stage_of("features", f"--data d --model {name} --out o".split()).config.augment == expected, name
    assert "augment.size=518: as timm:vit_small_patch14_dinov2.lvd142m says; flags say otherwise" in caplog.messages
    config = stage_of("eval", ["knn", "timm:resnet10t", "--train", "t", "--val", "v"]).config
    assert (config.out, config.augment.size) == (Path("runs/timm-resnet10t/eval/knn"), 176)


def test_a_name_stays_a_name_and_a_file_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("timm:x.y"), Path("timm:x.y").absolute(), Path("a/timm:x.y")):
        assert library_name(path) == "timm:x.y"
    assert library_name(Path("timm:a/b")) == library_name(Path("timm")) == ""
    Path("timm:x.y").touch()
    assert library_name(Path("timm:x.y")) == ""
    with pytest.raises(UserError, match="--data: timm:z does not exist"):
        check_input("data", Path("timm:z"))
    check_input("teacher", Path("timm:z"))


def test_what_a_library_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **settings: object) -> Any:
        if settings.get("pretrained") or "progress" in settings:
            raise URLError("no route")
        return CREATE(*_, **settings)

    monkeypatch.setattr(timm, "create_model", fails)
    monkeypatch.setattr(zoo.WeightsEnum, "get_state_dict", fails)
    for name, told in (
        (
            "timm:resnet10t",
            r"weights of timm:resnet10t are not in .* could not be fetched from .* \(<urlopen err",
        ),
        ("torchvision:resnet18", r"or give resnet18-\w+.pth as a file"),
        ("timm:resnet1o1", r"model 'timm:resnet1o1' is unknown to timm .*; did you mean 'timm:resnet101'"),
        ("torchvision:resnet19", r"model 'resnet19' is unknown; did you mean"),
        ("torchvision:googlenet", r"torchvision's weights for googlenet cannot serve here"),
        (
            "timm:vit_small_patch16_dinov3.lvd168m",
            r"is unknown to timm .*; did you mean 'timm:vit_small_patch16_dinov3.lvd",
        ),
    ):
        with pytest.raises(UserError, match=told) as caught:
            load_encoder(Path(name))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="--arch is for checkpoints of others, and timm:resnet10t names its network"):
        load_encoder(Path("timm:resnet10t"), "resnet18")


def test_without_timm_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"model 'timm:resnet10t' needs timm: pip install 'bingo-distill\[teachers\]'"):
        load_encoder(Path("timm:resnet10t"))
