"""MoCo-v2 checkpoints under the names in which they are found, and what only looks like one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.errors import UserError
from bingo.models import load_encoder, seeded_encoder, state_hash

ENCODER = seeded_encoder("tiny-8", dim=16, hidden=32, seed=5)


def state(prefix: str) -> dict[str, Any]:
    """The weights of `ENCODER` as a MoCo-v2 checkpoint names them."""
    names = {name: name.removeprefix("backbone.").replace("head.", "fc.") for name in ENCODER.state_dict()}
    return {prefix + names[name]: value for name, value in ENCODER.state_dict().items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "module.encoder_q.",
        "encoder_q.",
        "_orig_mod.module.encoder_q.",
        "module.encoder_q._orig_mod.",
        "module.module.encoder_q.",
    ],
)
def test_wrappers_before_the_names_are_understood(prefix: str, tmp_path: Path) -> None:
    others = {prefix.replace("_q", "_k") + "0.weight": torch.zeros(1), "queue": torch.zeros(16, 8)}
    torch.save({"arch": "tiny-8", "state_dict": {**state(prefix), **others}}, tmp_path / "moco.pt")
    encoder, content = load_encoder(tmp_path / "moco.pt")
    assert content == state_hash(ENCODER.state_dict())
    assert (encoder.name, encoder.dim, encoder.hidden) == ("tiny-8", 16, 32)


def renamed(**changes: Any) -> dict[str, Any]:
    return {"arch": "tiny-8", "state_dict": {**state("module.encoder_q."), **changes}}


WRONG: dict[str, tuple[Any, str]] = {
    "v1": (
        {"state_dict": {"module.encoder_q.conv1.weight": torch.zeros(1), "module.encoder_q.fc.weight": torch.zeros(1)}},
        r"no head fc.0, fc.2 \(MoCo v1 has one layer\)",
    ),
    "v3": (
        {"arch": "resnet50", "state_dict": {"module.base_encoder.conv1.weight": torch.zeros(1)}},
        r"it holds: arch, state_dict; names in its state_dict begin with base_encoder., not encoder_q.\)",
    ),
    "three layers": (renamed(**{"module.encoder_q.fc.4.weight": torch.zeros(1)}), r"has a head of fc.0, fc.2, fc.4: a"),
    "twice": (renamed(**{"encoder_q.fc.0.bias": torch.zeros(1)}), "holds some weights twice"),
    "arch": ({**renamed(), "arch": 18}, "its 'arch' is of type int, not the name of a torchvision model"),
    "unknown arch": ({**renamed(), "arch": "vit_small"}, r"moco.pt: model 'vit_small' is unknown; did you mean"),
    "list": (renamed(**{"module.encoder_q.fc.2.weight": [1.0]}), "head.2.weight is a list, not a tensor"),
    "flat": (renamed(**{"module.encoder_q.fc.2.weight": torch.zeros(5)}), r"head.2.weight has the shape \(5,\)"),
    "repeated": (
        renamed(**{"module.encoder_q.fc.0.weight": torch.zeros(1, 1).expand(10**9, 32)}),
        r"head.0.weight of shape \(1000000000, 32\) is not stored in full",
    ),
    "int8": (
        renamed(**{"module.encoder_q.fc.2.weight": torch.zeros(16, 32, dtype=torch.int8)}),
        "wrong dtypes head.2.weight is int8, not float32",
    ),
    "complex": (
        renamed(**{"module.encoder_q.0.weight": torch.zeros(8, 3, 3, 3, dtype=torch.complex64)}),
        "backbone.0.weight is a complex64 tensor",
    ),
    "lightning": (
        {"pytorch-lightning_version": "2.1", "state_dict": {"model.conv1.weight": torch.zeros(1)}},
        r"it is a PyTorch-Lightning checkpoint; names in its state_dict begin with model., not encoder_q.",
    ),
    "dino": ({"student": {}, "teacher": {}, "epoch": 1}, "it is a DINO checkpoint"),
    "torchvision": (
        {"conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)},
        "it is a plain state dict of conv1.weight, fc.weight: it names no network and has no projection head",
    ),
    "tensor": (torch.zeros(3), "holds a Tensor, not a model; give a run folder"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_only_looks_like_one_is_a_sentence(kind: str, tmp_path: Path) -> None:
    value, message = WRONG[kind]
    torch.save(value, tmp_path / "moco.pt")
    with pytest.raises(UserError, match=message) as caught:
        load_encoder(tmp_path / "moco.pt")
    assert "\n" not in str(caught.value)
