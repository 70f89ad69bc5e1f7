"""ResNet-18 from SwAV's ResNet-50x2, from images to exported weights: the recipe's own wiring on a dozen images."""

import json
from pathlib import Path

import pytest
import torch
from torchvision import models as zoo

from bingo.cli import main
from bingo.models import Encoder
from bingo.models.heads import Head
from tests.support.small_imagenet import submitted_here


def swav_file(path: Path) -> Path:
    """The published layout with random weights; its hidden layer is narrower than the published 8 192."""
    torch.manual_seed(0)
    state = Encoder("resnet50w2", head=Head("LBRL", (256, 16))).state_dict()
    names = {n: n.replace("backbone.", "module.").replace("head.", "module.projection_head.") for n in state}
    torch.save({names[n]: v for n, v in state.items()} | {"module.prototypes.weight": torch.zeros(30, 16)}, path)
    return path


@pytest.mark.slow
def test_resnet18_from_a_swav_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = swav_file(tmp_path / "swav_RN50w2_400ep_pretrain.pth.tar")
    assert main(submitted_here("resnet18-r50x2", tmp_path, teacher, monkeypatch)) == 0
    export = tmp_path / "out" / "export"
    classes = json.loads((export / "weights.json").read_text())["classes"]
    weights = torch.load(export / "weights.pt", weights_only=True)
    zoo.resnet18(num_classes=classes).load_state_dict(weights, strict=True)
