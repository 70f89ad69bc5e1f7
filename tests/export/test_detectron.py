"""detectron2's names: what its own converter makes of torchvision's."""

from pathlib import Path

import pytest
import torch

from bingo.errors import UserError
from bingo.export import detectron
from bingo.export.network import Network
from bingo.models import build_classifier
from tests.support.exports import DetectronResNet

NAMES = {
    "conv1.weight": "stem.conv1.weight",
    "bn1.running_var": "stem.conv1.norm.running_var",
    "layer1.0.conv1.weight": "res2.0.conv1.weight",
    "layer3.5.bn3.bias": "res4.5.conv3.norm.bias",
    "layer2.0.downsample.0.weight": "res3.0.shortcut.weight",
    "layer4.0.downsample.1.running_mean": "res5.0.shortcut.norm.running_mean",
    "fc.weight": None,
    "bn1.num_batches_tracked": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert detectron.their_name(name) == NAMES[name]


@pytest.mark.parametrize("name", detectron.DEPTHS)
def test_every_parameter_of_theirs_is_there_in_its_shape(name: str) -> None:
    with torch.device("meta"):
        ours = build_classifier(name, 10).state_dict()
        theirs = DetectronResNet(detectron.DEPTHS[name]).state_dict()
    found = {detectron.their_name(key): value.shape for key, value in ours.items()}
    found.pop(None)
    assert found == {k: v.shape for k, v in theirs.items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", ["resnet101", "wide_resnet50_2", "efficientnet_b0", "tiny", "timm:resnet50d"])
def test_other_networks_are_refused(name: str) -> None:
    with pytest.raises(
        UserError, match=f"backbones are resnet18, resnet34, resnet50 here, not {name}: leave detectron2"
    ):
        detectron.files(Network(name, "fc", {}, 10))


def test_the_config_has_pixels_from_0_to_255() -> None:
    seen = {"size": 224, "resize": 256, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    lines = detectron.loading(Network("timm:resnet18.a1_in1k", "fc", {}, 10, None, seen)).splitlines()
    for wanted in (
        "  PIXEL_MEAN: [123.675, 116.28, 103.53]",
        "  PIXEL_STD: [58.395, 57.12, 57.375]",
        "    DEPTH: 18",
        "    RES2_OUT_CHANNELS: 64",
        '  FORMAT: "RGB"',
    ):
        assert wanted in lines
    assert "RES2_OUT_CHANNELS" not in detectron.loading(Network("resnet50", "fc", {}, 10))


def test_the_file_is_named_in_the_config() -> None:
    assert Path("DIR", detectron.FILE).as_posix() in detectron.loading(Network("resnet34", "fc", {}, 10))
