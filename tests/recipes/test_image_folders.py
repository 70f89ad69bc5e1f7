"""Leaderboards of folders of images with a teacher of one's own: what all students share, and who makes the keys."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import DistillConfig, PretrainConfig
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.files import write_json, write_torch
from bingo.recipes import Recipe, build
from bingo.recipes.leaderboard import ARMS
from bingo.stages import RECORD, Stage


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "photos" / split / "cat").mkdir(parents=True)
    return tmp_path / "photos"


@pytest.fixture
def teacher(tmp_path: Path, images: Path) -> Path:
    """A training's folder, as far as a recipe looks into it: keys of 24 channels, images of 48 pixels."""
    run = tmp_path / "teacher"
    run.mkdir()
    about = {"format": "bingo-model-1", "model": "tiny-8", "dim": 24}
    write_torch(run / "model.pt", {**about, "state_dict": {"conv1.weight": torch.zeros(8, 3, 3, 3)}})
    write_json(
        run / "config.json", {"kind": "pretrain", "data": str(images), "augment": {"size": 48, "mean": [0.5] * 3}}
    )
    return run


def leaderboard(root: Path, **settings: Any) -> Recipe:
    return build("leaderboard-imagenet", root, settings)


def stages(recipe: Recipe) -> dict[str, Stage]:
    return {stage.name: stage for group in recipe.jobs for stage in group.stages}


def test_every_objective_on_own_images(images: Path, teacher: Path, tmp_path: Path) -> None:
    flags = ["--student", "resnet34", "--contrast.queue", "4096", "--augment.flip-p", "0"]
    found = stages(
        recipe := leaderboard(tmp_path / "out", images=images, teacher=teacher, seeds=2, epochs=60, flags=flags)
    )
    assert set(recipe.arms) == set(ARMS)
    trained = {arm: found.get(f"distill {arm} 1", found.get(f"pretrain {arm} 1")) for arm in ARMS}
    configs = {arm: stage.config for arm, stage in trained.items() if stage is not None}
    students = {arm: config for arm, config in configs.items() if isinstance(config, DistillConfig)}
    assert {arm: c.optim.epochs * c.method.passes() for arm, c in students.items()} == dict.fromkeys(students, 60)
    assert {c.student for c in students.values()} == {"resnet34"}
    alone = configs["no teacher"]
    assert isinstance(alone, PretrainConfig)
    assert (alone.model, alone.key_bn, alone.optim.epochs) == ("resnet34", "shuffle", 60)
    for config in configs.values():
        assert (config.contrast.queue, config.contrast.dim, config.seed) == (4096, 24, 1)
        assert (config.augment.size, config.augment.mean, config.augment.flip_p) == (48, (0.5, 0.5, 0.5), 0)
        assert config.data == tmp_path / "out" / "train"
    assert {arm for arm, c in students.items() if c.teacher == teacher} == {"coss"}
    assert {arm for arm, c in students.items() if c.bags} == {"paper", "release"}
    assert found["keys"].config.teacher == teacher
    assert "teacher" not in found, "its own head makes the keys"
    assert len({found[f"eval {arm} 0"].config.augment for arm in ARMS}) == 1


def test_a_network_of_others_gets_a_head(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    found = stages(leaderboard(root, images=images, teacher=Path("timm:vit_tiny"), flags=["--contrast.dim", "64"]))
    head = found["teacher"].config
    assert (head.model, head.head, head.dim, head.features) == (Path("timm:vit_tiny"), "pca", 64, root / "features")
    assert found["keys"].config.teacher == found["distill coss 0"].config.teacher == root / "teacher"


def test_packed_images_are_taken_as_they_are(images: Path, teacher: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_json(images / split / RECORD, {"kind": "pack"})
    found = stages(leaderboard(tmp_path / "out", images=images, teacher=teacher, compare="seed,simreg", seeds=1))
    assert not [name for name in found if name.startswith("pack")]
    judged = found["eval seed 0"].config
    assert (judged.train, judged.val) == (images / "train", images / "val")
    assert found["distill seed 0"].config.monitor.val == images / "val"


def test_flags_stand_above_what_the_teacher_says(images: Path, teacher: Path, tmp_path: Path) -> None:
    found = stages(leaderboard(tmp_path / "out", images=images, teacher=teacher, flags=["--augment.size", "64"]))
    config = found["distill seed 0"].config
    assert config.augment == Augmentation(size=64, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--objective", "seed"], "unknown flag '--objective'"),
        (["--optim.batch", "0"], "optim.batch=0 is not allowed"),
        (["--local-crops", "2"], "unknown flag '--local-crops'"),
        (["--no-cutmix"], "unknown flag '--no-cutmix'"),
        (["--contrast.temperature", "0.1"], "unknown flag '--contrast.temperature'"),
    ],
)
def test_wrong_flags(flags: list[str], sentence: str, images: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        leaderboard(tmp_path / "out", images=images, teacher=teacher, flags=flags)


def test_what_is_missing(images: Path, teacher: Path, tmp_path: Path) -> None:
    for given, sentence in (
        ({"images": images}, "the recipe leaderboard-imagenet needs --teacher"),
        ({"teacher": teacher}, "the recipe leaderboard-imagenet needs --images"),
        ({"images": tmp_path / "none", "teacher": teacher}, "has neither a folder train nor a file train.tar"),
    ):
        with pytest.raises(UserError, match=sentence):
            leaderboard(tmp_path / "out", **given)
    with pytest.raises(UserError, match="digits takes no flags after `--`"):
        build("digits", tmp_path, {"flags": ["--student", "tiny"]})
