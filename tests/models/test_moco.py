"""MoCo checkpoints under the names in which they are found, and what only looks like one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models as zoo

from bingo.errors import UserError
from bingo.models import load_encoder, save_encoder, seeded_encoder, state_hash

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
    "no backbone": (
        {"state_dict": {"module.encoder_q.fc.weight": torch.zeros(4, 2), "module.encoder_q.fc.bias": torch.zeros(4)}},
        "whose network cannot be told: the file does not name it, and its tensors fit none, or several; give --arch N",
    ),
    "one layer of two": (
        {"state_dict": {"module.encoder_q.fc.0.weight": torch.zeros(4, 2), "encoder_q.fc.0.bias": torch.zeros(4)}},
        "encoder_q.fc.2.bias is missing: such a head has the layers 0, 2",
    ),
    "three layers": (
        renamed(**{"module.encoder_q.fc.4.weight": torch.zeros(1)}),
        "encoder_q.fc.4.weight is not expected: such a head has the layers 0, 2",
    ),
    "a stranger": (
        renamed(**{"module.encoder_x.0.weight": torch.zeros(1)}),
        "is a MoCo v1 or v2, or BINGO's student checkpoint by its names, and encoder_x.0.weight is not among those",
    ),
    "twice": (renamed(**{"encoder_q.fc.0.bias": torch.zeros(1)}), "holds some weights twice"),
    "arch": ({**renamed(), "arch": 18}, "its 'arch' is of type int, not the name of a network"),
    "unknown arch": ({**renamed(), "arch": "vit_small"}, r"its name for it, 'vit_small', is not known here, and its"),
    "list": (renamed(**{"module.encoder_q.fc.2.weight": [1.0]}), "encoder_q.fc.2.weight is a list, not a tensor"),
    "flat": (renamed(**{"module.encoder_q.fc.2.weight": torch.zeros(5)}), r"fc.2.weight has the shape \(5,\), not"),
    "repeated": (
        renamed(**{"module.encoder_q.fc.0.weight": torch.zeros(1, 1).expand(10**9, 32)}),
        r"encoder_q.fc.0.weight of shape \(1000000000, 32\) is not stored in full",
    ),
    "int8": (
        renamed(**{"module.encoder_q.fc.2.weight": torch.zeros(16, 32, dtype=torch.int8)}),
        "wrong dtypes head.2.weight is int8, not float32",
    ),
    "complex": (
        renamed(**{"module.encoder_q.0.weight": torch.zeros(8, 3, 3, 3, dtype=torch.complex64)}),
        ": 0.weight is a complex64 tensor",
    ),
    "lightning": (
        {"pytorch-lightning_version": "2.1", "state_dict": {"model.conv1.weight": torch.zeros(1)}},
        r"it is a PyTorch-Lightning checkpoint; names in its state_dict begin with model.",
    ),
    "dino": ({"student": {}, "teacher": {}, "epoch": 1}, r"known here \(it holds: epoch, student, teacher\); g"),
    "torchvision": (
        {"conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}, "is a state dict whose network cannot be told"
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


def test_the_network_is_told_where_the_file_does_not(tmp_path: Path) -> None:
    torch.save({"state_dict": state("module.encoder_q.")}, tmp_path / "moco.pt")
    encoder, content = load_encoder(tmp_path / "moco.pt", "tiny-8")
    assert (encoder.name, content) == ("tiny-8", state_hash(ENCODER.state_dict()))
    for arch, message in (
        ("tiny-4", "does not fit tiny-4: missing keys none; unexpected keys none; wrong shapes backbone.0.weight is"),
        ("tinny-8", "--arch: model 'tinny-8' is unknown; did you mean"),
    ):
        with pytest.raises(UserError, match=message):
            load_encoder(tmp_path / "moco.pt", arch)
    save_encoder(tmp_path / "model.pt", ENCODER)
    with pytest.raises(UserError, match=r"--arch is for checkpoints of others, and .*model.pt names its network"):
        load_encoder(tmp_path, "tiny-8")


def test_a_file_that_names_another_network_than_it_holds(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = zoo.resnet34(num_classes=4)
    found = {f"encoder_q.{n}": torch.zeros(v.shape, dtype=v.dtype) for n, v in model.state_dict().items()}
    torch.save({"arch": "resnet18", "state_dict": found}, tmp_path / "moco.pt")
    with pytest.raises(
        UserError, match=r"says that it is a resnet18, and its tensors look like resnet34; .* --arch resnet34"
    ):
        load_encoder(tmp_path / "moco.pt")
    with pytest.raises(UserError, match=r"does not fit resnet18: .*; it looks like resnet34: give --arch resnet34"):
        load_encoder(tmp_path / "moco.pt", "resnet18")
    assert load_encoder(tmp_path / "moco.pt", "resnet34")[0].form.widths == (4,)
