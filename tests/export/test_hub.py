"""What timm reads: the names that it shares with torchvision, and its own transform of images."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.evaluate.input import input_of
from bingo.export import hub, plain
from bingo.export.network import Network
from bingo.images.pack import pack_folder
from bingo.models import build_classifier
from bingo.views.loader import evaluation_batches
from tests.support.exports import NAMES, photographs


def network(name: str, size: int = 64, classes: int = 10) -> Network:
    """Random weights with a random classifier."""
    torch.manual_seed(0)
    module = build_classifier(name, classes)
    classifier = [path for path, part in module.named_modules() if isinstance(part, torch.nn.Linear)][-1]
    return Network(name, classifier, module.state_dict(), classes, NAMES, input_of(Augmentation(size=size)))


@pytest.mark.parametrize("name", hub.SAME)
def test_shared_names_have_shared_keys(name: str) -> None:
    import timm

    with torch.device("meta"):
        ours = {key: value.shape for key, value in build_classifier(name, 10).state_dict().items()}
        theirs = {key: value.shape for key, value in timm.create_model(name, num_classes=10).state_dict().items()}
    assert ours == theirs


def test_timms_own_networks_are_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer that takes images of any size is written down as one, and answers at the size that it is shown."""
    import timm

    def build(name: str, classes: int) -> torch.nn.Module:
        return timm.create_model("vit_tiny_patch16_224", num_classes=classes, dynamic_img_size=True, num_heads=4)

    monkeypatch.setattr("bingo.export.network.build_classifier", build)
    state = build("", 10).state_dict()
    found = Network("timm:vit_tiny_patch16_224.augreg_in21k", "head", state, 10, NAMES, input_of(Augmentation(size=32)))
    name, arguments = hub.timm_name(found)
    assert name == "vit_tiny_patch16_224"
    assert (arguments["dynamic_img_size"], arguments["num_heads"]) == (True, 4)
    config = json.loads(hub.files(found)[hub.CONFIG])
    assert config["model_args"]["num_heads"] == 4
    seen = config["pretrained_cfg"]
    assert (seen["input_size"], seen["fixed_input_size"]) == ([3, 32, 32], False)
    made: dict[str, Any] = {}
    exec(plain.maker(found), made)
    made["model"].load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_b0", r"weights of efficientnet_b0 \(timm:efficientnet_b0 is another one, to be trained under"),
        ("mobilenet_v3_large", "timm has no network with the weights of mobilenet_v3_large: leave safetensors out"),
        (
            "tiny-8",
            "timm has no network with the weights of tiny-8: leave safetensors out of --format; it is for timm:N",
        ),
    ],
)
def test_networks_that_timm_does_not_have(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        hub.timm_name(network(name))
    assert "\n" not in str(caught.value)


def test_a_network_that_answers_otherwise_is_refused() -> None:
    """Keys and shapes are not enough: here timm's network is another one than the state says."""
    real = network("resnet18", size=32)
    lying = dataclasses.replace(real, state={**real.state, "conv1.weight": real.state["conv1.weight"] * 2})
    object.__setattr__(lying, "logits", real.logits)
    with pytest.raises(
        UserError, match=r"timm computes other logits with the weights of resnet18 \(by up to .*: leave"
    ):
        hub.proven(lying, "resnet18", {})
    with pytest.raises(
        UserError, match=r"timm's resnet34 does not take the weights of resnet18 \(.*: leave safetensors"
    ):
        hub.proven(real, "resnet34", {})


def test_resized_sides_are_ours_for_every_size() -> None:
    """timm rounds down what ours rounds to the nearest."""
    for size in range(8, 700):
        resize = Augmentation(size=size).eval_resize
        assert int(size / hub.crop_share(size, resize)) == resize
    assert hub.crop_share(224, 256) == 0.875


def test_timms_transform_gives_our_evaluation_input(tmp_path: Path) -> None:
    """Within the rounding to whole levels, which PIL does after resizing and ours does too. Offsets are whole here."""
    import timm.data

    augment = Augmentation(size=112, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    (tmp_path / "images" / "one").mkdir(parents=True)
    sides = ((300, 300), (160, 320), (400, 200))
    for i, (width, height) in enumerate(sides):
        piece = photographs()[i % 2].crop((30, 10, 30 + width, 10 + height))
        piece.save(tmp_path / "images" / "one" / f"{i}.png")
    dataset = pack_folder(tmp_path / "images", tmp_path / "packed", workers=1)
    (ours,) = evaluation_batches(dataset, augment, [np.arange(len(sides))], device=torch.device("cpu"), threads=1)

    found = Network("resnet18", "fc", network("resnet18").state, 10, NAMES, input_of(augment))
    model = timm.create_model("resnet18", num_classes=10)
    config = hub.config_of(found, "resnet18", model, {})
    data = timm.data.resolve_data_config(pretrained_cfg=config["pretrained_cfg"])
    transform = timm.data.create_transform(**data, is_training=False)
    images = [Image.open(tmp_path / "images" / "one" / f"{i}.png").convert("RGB") for i in range(len(sides))]
    theirs = torch.stack([transform(image) for image in images])

    def levels(other: torch.Tensor) -> float:
        return ((other - ours).abs() * torch.tensor(augment.std).view(3, 1, 1) * 255).mean().item()

    assert theirs.shape == ours.shape == (3, 3, 112, 112)
    assert levels(theirs) < 0.6
    wrong = timm.data.create_transform(**{**data, "interpolation": "bicubic"}, is_training=False)
    assert levels(torch.stack([wrong(image) for image in images])) > 2 * levels(theirs), "the test sees such a fault"
