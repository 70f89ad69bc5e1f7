"""Stages are recognised by content, not by name; configs survive JSON; wrong values are one sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.config import BagsConfig, FeaturesConfig, PretrainConfig
from bingo.errors import UserError
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
    with pytest.raises(UserError, match=r"bags holds bags made with seed=0, not 1; choose another --out"):
        run_stage(other)
    assert run_stage(other, replace=True)["skipped"] is False


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data: \S+nowhere does not exist .*; `bingo pack` makes one"):
        run_stage(bag_stage(tmp_path / "nowhere", tmp_path / "bags"))


def test_input_of_an_unfinished_run(digits: Path, tmp_path: Path) -> None:
    run = tmp_path / "teacher"
    run.mkdir()
    (run / "stage.json").write_text(json.dumps({"key": "k", "kind": "pretrain", "name": "teacher"}))
    config = FeaturesConfig(data=digits / "train", model=run, out=tmp_path / "features")
    with pytest.raises(UserError, match="teacher is a pretrain that is not finished; run it to its end"):
        run_stage(Stage("features", "features", config))
