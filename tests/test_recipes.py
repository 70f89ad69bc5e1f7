"""Recipes: what their chains hold, the papers' settings, and wrong ones refused."""

import json
from pathlib import Path

import pytest

from bingo.config import DistillConfig, PretrainConfig, TeacherConfig
from bingo.config_json import to_record
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.files import write_json
from bingo.recipes import build, fashion, resnet18_r50
from bingo.recipes import digits as digits_recipe
from bingo.stages import Stage
from tests.support.idx_files import write_idx_files

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


@pytest.fixture(params=["digits", "fashion"])
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> list[Stage]:
    recipe = digits_recipe(tmp_path)
    if request.param == "fashion":
        recipe = fashion(tmp_path, images=write_idx_files(tmp_path / "idx", train=10, val=10))
    stages = [stage for group in recipe.jobs for stage in group.stages]
    assert {name for arm in recipe.arms.values() for name in arm} <= {stage.name for stage in stages}
    return stages


def test_every_stage_of_a_demo_survives_json(demo: list[Stage]) -> None:
    for stage in demo:
        assert Stage.from_json(json.loads(json.dumps(stage.to_json()))) == stage
    names = [stage.name for stage in demo]
    assert len(set(names)) == len(names)


def test_a_demo_gives_every_arm_the_same_student_passes(demo: list[Stage]) -> None:
    """paper: two student passes per image and step; MoCo: one."""
    passes = set()
    for stage in demo:
        if stage.out.parent.name == "students":
            views = 2 if isinstance(stage.config, DistillConfig) else 1
            passes.add((views * stage.config.optim.epochs, stage.config.optim.batch, stage.config.optim.lr))
    assert len(passes) == 1


def test_students_on_clothes_learn_from_cached_keys(demo: list[Stage]) -> None:
    """Which one stage before them computes; the digits have the teacher beside them."""
    distilled = [stage.config for stage in demo if isinstance(stage.config, DistillConfig)]
    made = {stage.out for stage in demo if stage.kind in ("keys", "pretrain")}
    assert {config.keys or config.teacher for config in distilled} <= made
    assert len({config.keys is None for config in distilled}) == 1
    assert any(stage.kind == "keys" for stage in demo) == (distilled[0].keys is not None)


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
