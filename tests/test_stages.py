"""Stages are recognised by content, not by name; configs survive JSON; wrong values are one sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.config import BagsConfig, DistillConfig, EvalConfig, FeaturesConfig, PretrainConfig
from bingo.config_json import from_json, to_json
from bingo.config_parts import TrainingLoader
from bingo.errors import UserError
from bingo.recipes import digits as digits_recipe
from bingo.recipes import resnet18_r50
from bingo.stages import Stage, finished, run_stage, stage_key


def bag_stage(data: Path, out: Path, seed: int = 0) -> Stage:
    return Stage("bags", "bags", BagsConfig(data=data, out=out, kind="random", k=3, seed=seed))


def test_done_once_then_skipped_then_noticed(digits: Path, tmp_path: Path) -> None:
    stage = bag_stage(digits / "train", tmp_path / "bags")
    first, second = run_stage(stage), run_stage(stage)
    assert (first["skipped"], second["skipped"]) == (False, True)
    bags = tmp_path / "bags" / "bags.npz"
    whole = bags.read_bytes()
    bags.write_bytes(whole[:-10])
    assert finished(stage, stage_key(stage)) is None, "a damaged output is not done"
    assert run_stage(stage)["skipped"] is False
    assert bags.read_bytes() == whole
    bags.unlink()
    assert finished(stage, stage_key(stage)) is None


def test_a_touched_but_equal_output_stays_done(digits: Path, tmp_path: Path) -> None:
    stage = bag_stage(digits / "train", tmp_path / "bags")
    run_stage(stage)
    (tmp_path / "bags" / "bags.npz").touch()
    assert run_stage(stage)["skipped"] is True


def test_the_key_follows_settings_and_inputs_but_not_places(digits: Path, tmp_path: Path) -> None:
    base = stage_key(bag_stage(digits / "train", tmp_path / "a"))
    assert stage_key(bag_stage(digits / "train", tmp_path / "b")) == base
    assert stage_key(bag_stage(digits / "train", tmp_path / "a", seed=1)) != base
    assert stage_key(bag_stage(digits / "val", tmp_path / "a")) != base


def test_speed_settings_do_not_change_the_key_but_precision_does(digits: Path, teacher: Path, tmp_path: Path) -> None:
    config = FeaturesConfig(data=digits / "train", model=teacher, out=tmp_path)
    key = stage_key(Stage("f", "features", config))
    assert stage_key(Stage("f", "features", replace(config, runtime=replace(config.runtime, threads=7)))) == key
    assert stage_key(Stage("f", "features", replace(config, runtime=replace(config.runtime, precision="bf16")))) != key


def test_of_the_loader_only_what_changes_pixels_enters_the_key(digits: Path, teacher: Path, tmp_path: Path) -> None:
    config = FeaturesConfig(data=digits / "train", model=teacher, out=tmp_path)

    def key(**settings: Any) -> str:
        return stage_key(Stage("f", "features", replace(config, loader=replace(config.loader, **settings))))

    for same in ({"hw_decoder_load": 0.1}, {"size_hints": False}, {"prefetch": 5}, {"allow_bad": True}):
        assert key(**same) == key()
    assert key(fancy_upsampling=False) != key()
    run = PretrainConfig(data=digits / "train", out=tmp_path)
    more = replace(run, loader=replace(run.loader, max_bad=0.5))
    assert stage_key(Stage("p", "pretrain", run)) == stage_key(Stage("p", "pretrain", more))


def test_other_settings_are_refused_or_replaced(digits: Path, tmp_path: Path) -> None:
    run_stage(bag_stage(digits / "train", tmp_path / "bags"))
    other = bag_stage(digits / "train", tmp_path / "bags", seed=1)
    with pytest.raises(UserError, match="holds a bags with other settings or inputs; choose another --out"):
        run_stage(other)
    assert run_stage(other, replace=True)["skipped"] is False


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist; run the stage that makes it first"):
        run_stage(bag_stage(tmp_path / "nowhere", tmp_path / "bags"))


def test_input_of_an_unfinished_run(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "teacher"
    run.mkdir()
    (run / "stage.json").write_text(json.dumps({"key": "k", "kind": "pretrain", "name": "teacher"}))
    config = FeaturesConfig(data=digits / "train", model=run, out=tmp_path / "features")
    with pytest.raises(UserError, match="teacher is a pretrain that is not finished; run it to its end"):
        run_stage(Stage("features", "features", config))


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"studnt": "resnet18"}, r"unknown key 'studnt'; did you mean 'student'"),
        ({"objective": "papier"}, r"objective: 'papier' is not allowed; did you mean 'paper'"),
        ({"contrast": {"temperature": 0.0}}, r"contrast.temperature=0.0 is not allowed: it must be > 0"),
        ({"contrast": {"temperature": -1}}, r"contrast.temperature=-1.0 is not allowed"),
        ({"optim": {"batch": "many"}}, r"batch: 'many' is not a int"),
        (
            {"loader": {"hw_decoder_load": 1.5}},
            r"loader.hw-decoder-load=1.5 is not allowed: .* between 0 and 1",
        ),
        ({"loader": {"prefetch": 0}}, r"loader.prefetch=0 is not allowed: it must be >= 1; set --loader.prefetch"),
        ({"loader": {"max_bad": -1}}, r"loader.max-bad=-1.0 is not allowed: it must be between 0 and 1"),
        ({"loader": {"size_hint": True}}, r"unknown key 'size_hint'; did you mean 'size_hints'"),
        ({"augment": {"scale": [0.5, 0.2]}}, r"augment.scale=\(0.5, 0.2\) is not allowed"),
    ],
)
def test_wrong_settings(values: dict[str, object], message: str) -> None:
    paths = {"data": "d", "out": "o", "teacher": "t", "bags": "b"}
    with pytest.raises(UserError, match=message):
        from_json(DistillConfig, {**paths, **values})


def test_round_trip_of_configs() -> None:
    for config in (
        DistillConfig(data=Path("d"), out=Path("o"), teacher=Path("t"), bags=Path("b"), objective="paper"),
        PretrainConfig(data=Path("d"), out=Path("o"), loader=TrainingLoader(0.5, False, prefetch=4, max_bad=0.25)),
        EvalConfig(run=Path("r"), train=Path("t"), val=Path("v"), out=Path("o"), kinds=("knn",)),
    ):
        assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_knn_bags_need_features() -> None:
    with pytest.raises(UserError, match="knn bags need features: give --features DIR"):
        BagsConfig(data=Path("d"), out=Path("o"))
