"""Recipes: what their chains hold, the papers' settings, and wrong ones refused."""

import json
from pathlib import Path

import pytest

from bingo.config import DistillConfig, PretrainConfig, TeacherConfig
from bingo.config_json import to_record
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.files import write_json
from bingo.recipes import build, resnet18_r50
from bingo.recipes import digits as digits_recipe
from bingo.stages import Stage

pytestmark = pytest.mark.quick


def test_wrong_settings_of_a_recipe(tmp_path: Path, images: Path) -> None:
    for name, settings, text in (
        ("digts", {}, "recipe 'digts' is unknown; did you mean 'digits'?"),
        ("digits", {"teacher": tmp_path}, "--teacher is no setting of the recipe digits; it takes --seeds, --epochs"),
        ("digits", {"seeds": 0}, "--seeds 0 is not allowed: it must be between 1 and 1000"),
        ("resnet18-r50", {"images": images}, "the recipe resnet18-r50 needs --teacher"),
        ("resnet18-r50", {"images": tmp_path, "teacher": tmp_path}, "has neither a folder train nor a file train.tar"),
    ):
        with pytest.raises(UserError) as raised:
            build(name, tmp_path, settings)
        assert text in str(raised.value)


def test_every_stage_of_the_recipe_survives_json(tmp_path: Path) -> None:
    recipe = digits_recipe(tmp_path)
    stages = [stage for group in recipe.jobs for stage in group.stages]
    for stage in stages:
        assert Stage.from_json(json.loads(json.dumps(stage.to_json()))) == stage
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    assert {name for arm in recipe.arms.values() for name in arm} <= set(names)


def test_the_recipe_gives_every_arm_the_same_student_passes(tmp_path: Path) -> None:
    """paper: two student passes per image and step; MoCo: one."""
    stages = [stage for group in digits_recipe(tmp_path).jobs for stage in group.stages]
    passes = set()
    for stage in stages:
        if stage.out.parent.name == "students":
            views = 2 if isinstance(stage.config, DistillConfig) else 1
            passes.add((views * stage.config.optim.epochs, stage.config.optim.batch, stage.config.optim.lr))
    assert len(passes) == 1


def test_paper_recipe_is_the_papers(tmp_path: Path) -> None:
    config = resnet18_r50(tmp_path, tmp_path, tmp_path, tmp_path)
    assert (config.student, config.contrast.queue, config.contrast.temperature, config.contrast.dim) == (
        "resnet18",
        65536,
        0.2,
        128,
    )
    assert (config.optim.epochs, config.optim.batch, config.optim.lr, config.optim.weight_decay) == (
        200,
        256,
        0.03,
        1e-4,
    )
    assert (config.optim.lr_at(0, 10), round(config.optim.lr_at(1000, 10), 6)) == (0.03, 0.015)


@pytest.mark.parametrize("kind", ["pretrain", "teacher", ""])
def test_images_are_seen_as_the_teachers_folder_says(tmp_path: Path, images: Path, kind: str) -> None:
    """Features, views and the evaluation agree; of a folder that says nothing they are ImageNet's."""
    teacher, augment = tmp_path / "teacher", Augmentation(size=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    teacher.mkdir()
    if kind == "pretrain":
        write_json(
            teacher / "config.json", to_record(kind, PretrainConfig(data=tmp_path, out=teacher, augment=augment))
        )
    if kind == "teacher":
        write_json(teacher / "config.json", to_record(kind, TeacherConfig(tmp_path, teacher, augment=augment)))
    recipe = build("resnet18-r50", tmp_path / "out", {"images": images, "teacher": teacher})
    configs = {stage.kind: stage.config for group in recipe.jobs for stage in group.stages}
    seen = {(c.augment.size, c.augment.mean, c.augment.std) for c in map(configs.get, ("features", "distill", "eval"))}
    usual = Augmentation()
    assert seen == {(64, augment.mean, augment.std) if kind else (usual.size, usual.mean, usual.std)}
    assert configs["distill"].augment.scale == usual.scale
