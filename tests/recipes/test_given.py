"""A teacher held against a card: its published number, or in one sentence the card that it is for."""

import functools
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.models import save_encoder, seeded_encoder
from bingo.recipes.given import sentence
from bingo.recipes.teachers import TEACHERS
from tests.support.checkpoints import ROWS, save, thin

made = functools.cache(lambda name: ROWS[name].make())


def file(name: str, path: Path, **entries: Any) -> Path:
    return save(thin({**made(name), **entries}), path / "teacher.pth")


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        (800, "the file says epoch 800: arXiv 2107.01691 (linear evaluation) has 64.0, linear, release, from"),
        (200, "has 61.4, linear, release, from MoCo-v2 ResNet-50, 200 epochs; 64.0 is for MoCo-v2 ResNet-50, 800"),
        (400, "the file says epoch 400; arXiv 2107.01691 (linear evaluation) has 64.0 from MoCo-v2 ResNet-50, 800"),
    ],
)
def test_the_number_follows_the_files_epoch(epoch: int, text: str, tmp_path: Path) -> None:
    told = sentence("resnet18-r50", file("MoCo v2 R-50", tmp_path, epoch=epoch))
    assert text in told
    assert "\n" not in told


def test_a_file_that_does_not_say_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("MoCo v2 R-50", tmp_path)
    assert "does not say how long it was trained" in sentence("resnet18-r50", path)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(TEACHERS, "moco-r50-200", replace(TEACHERS["moco-r50-200"], md5=digest[:8]))
    assert "has 61.4, linear" in sentence("resnet18-r50", path)


def test_the_published_hashes_are_mocos() -> None:
    found = {t.file: t.md5 for t in TEACHERS.values() if t.md5}
    assert found == {"moco_v2_200ep_pretrain.pth.tar": "59fd9945", "moco_v2_800ep_pretrain.pth.tar": "a04e12f8"}


@pytest.mark.parametrize(
    ("name", "recipe", "text"),
    [
        ("MoCo v2 R-18", "resnet18-r50", "teacher.pth is a resnet18, trained for 200 epochs, and the recipe"),
        ("MoCo v2 R-50", "resnet18-r50x2", "wants SwAV ResNet-50x2, 400 epochs; it is for resnet18-r50, resnet34-r50"),
        ("torchvision MobileNetV3", "resnet18-r50", ""),
    ],
)
def test_another_network_is_refused(name: str, recipe: str, text: str, tmp_path: Path) -> None:
    """Not one that cannot be told: what loads it says more."""
    path = file(name, tmp_path, epoch=200)
    if not text:
        assert "cannot be told without loading it" in sentence(recipe, path)
        return
    with pytest.raises(UserError) as refused:
        sentence(recipe, path)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_teachers_without_a_number(tmp_path: Path) -> None:
    """One's own, of whatever network, and a published one of another method."""
    save_encoder(tmp_path / "model.pt", seeded_encoder("tiny-6", dim=4, hidden=8, seed=3))
    assert "no number is published for it" in sentence("resnet18-r50", tmp_path)
    assert "tiny-6 of your own" in sentence("resnet18-r50", tmp_path)
    assert "no number is published for it" in sentence("resnet18-r50", file("SwAV R-50", tmp_path))
    supervised = file("torchvision R-50", tmp_path)
    for path in (supervised, Path("torchvision:resnet50")):
        assert "no number is published for it" in sentence("resnet18-r50", path)
        assert "no number is published for it" in sentence("simreg-resnet18-byol", path), "BYOL's has no classifier"
    assert "66.8, linear, simreg, from BYOL" in sentence("simreg-resnet18-byol", file("BYOL", tmp_path))
    with pytest.raises(UserError, match="torchvision:vit_b_16 is a vit_b_16, and the recipe resnet18-r50 wants"):
        sentence("resnet18-r50", Path("torchvision:vit_b_16"))


def test_run_and_submit_refuse_before_anything_is_made(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = file("MoCo v2 R-18", tmp_path)
    words = ["--images", str(images), "--teacher", str(teacher), "--out", str(tmp_path / "out")]
    for verb in (["run", "resnet18-r50"], ["submit", "resnet18-r50", "--cluster", "local"]):
        assert main([*verb, *words]) == 2
        assert "wants MoCo-v2 ResNet-50" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
