"""Stages are recognised by content, not by name; configs survive JSON; wrong values are one sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo import __version__, identity
from bingo.config import BagsConfig, DemoDataConfig, FeaturesConfig, PackConfig, PretrainConfig
from bingo.config_parts import Augmentation
from bingo.errors import TransientError, UserError
from bingo.identity import identify, read_record
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
    first = run_stage(bag_stage(digits / "train", tmp_path / "bags"))
    (tmp_path / "bags" / "notes.txt").write_text("mine")
    other = bag_stage(digits / "train", tmp_path / "bags", seed=1)
    with pytest.raises(UserError, match=r"bags holds bags made with seed=0, not 1; choose another --out, or .*--repl"):
        run_stage(other)
    assert run_stage(other, replace=True)["skipped"] is False
    assert run_stage(other)["skipped"] is True
    (moved,) = tmp_path.glob("bags.replaced-*")
    assert read_record(moved)["key"] == first["key"], "nothing is deleted"
    assert finished(replace(other, config=replace(other.config, out=moved, seed=0)), first["key"])
    assert (tmp_path / "bags" / "notes.txt").read_text() == "mine"
    assert not (moved / "notes.txt").exists()


def test_notes_in_a_folder_are_no_output(digits: Path, tmp_path: Path) -> None:
    """Written while the stage runs, changed afterwards: they say nothing about the stage."""
    stage = bag_stage(digits / "train", tmp_path / "bags")
    run_stage(stage)
    (stage.out / "bags.npz").unlink()
    (stage.out / "notes.txt").write_text("first")
    run_stage(stage)
    assert set(read_record(stage.out)["outputs"]) == {"bags.npz", "diagnostics.json"}
    (stage.out / "notes.txt").write_text("second")
    assert run_stage(stage)["skipped"] is True


def test_a_folder_that_lost_its_record_is_not_another_stages(digits: Path, teacher: Path, tmp_path: Path) -> None:
    """A resumable stage goes on without it, but only with its own settings."""
    config = FeaturesConfig(data=digits / "train", model=teacher, out=tmp_path / "out", augment=Augmentation(size=16))
    run_stage(Stage("f", "features", config))
    whole = (tmp_path / "out" / "features.npy").read_bytes()
    (tmp_path / "out" / "stage.json").unlink()
    with pytest.raises(UserError, match=r"out holds features made with augment.size=16, not 24; choose another --out"):
        run_stage(Stage("f", "features", replace(config, augment=Augmentation(size=24))))
    run = PretrainConfig(data=digits / "train", out=tmp_path / "out")
    with pytest.raises(UserError, match=r"out holds features, not a model; choose another --out"):
        run_stage(Stage("p", "pretrain", run))
    assert (tmp_path / "out" / "features.npy").read_bytes() == whole
    assert run_stage(Stage("f", "features", config))["skipped"] is False


def test_packed_images_without_a_record_are_not_replaced(source: Path, tmp_path: Path) -> None:
    """Files that were copied here, or a folder made by `pack_folder`."""
    stage = Stage("pack", "pack", PackConfig(source=source, out=tmp_path / "out"))
    run_stage(stage)
    for name in ("stage.json", "config.json"):
        (tmp_path / "out" / name).unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match=r"out holds packed images without their stage.json; choose another --out"):
        run_stage(stage)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert run_stage(stage, replace=True)["skipped"] is False
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    (aside,) = tmp_path.glob("out.replaced-*")
    assert (aside / "index.npz").read_bytes() == before["index.npz"]


def test_demo_images_beside_notes(tmp_path: Path) -> None:
    run_stage(Stage("d", "demo-data", DemoDataConfig(out=tmp_path / "out", size=8)))
    (tmp_path / "out" / "train" / "notes.txt").write_text("mine")
    stage = Stage("d", "demo-data", DemoDataConfig(out=tmp_path / "out", size=9))
    with pytest.raises(UserError, match=r"out holds demo images .* made with size=8, not 9; choose another --out"):
        run_stage(stage)
    with pytest.raises(UserError, match=r"cannot write \S+out: Directory not empty|already exists and is not"):
        run_stage(stage, replace=True)
    assert (tmp_path / "out" / "train" / "notes.txt").read_text() == "mine"
    (tmp_path / "out" / "train" / "notes.txt").rename(tmp_path / "out" / "notes.txt")
    (tmp_path / "out" / "train").rmdir()
    assert run_stage(stage)["skipped"] is False


def test_files_of_others_are_left(digits: Path, tmp_path: Path) -> None:
    """What the suite's names look like at first sight: a lock, a temporary, metrics."""
    mine = {".lock": "1", ".notes.tmp": "2", "metrics.jsonl": "3"}
    (tmp_path / "out").mkdir()
    for name, text in mine.items():
        (tmp_path / "out" / name).write_text(text)
    with pytest.raises(UserError, match=r"out holds 'metrics.jsonl' and no stage of bingo; choose a new or empty"):
        run_stage(bag_stage(digits / "train", tmp_path / "out"))
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == mine


@pytest.mark.parametrize("name", ["environment.json", "saved.json"])
def test_the_users_own_under_names_of_ours(digits: Path, source: Path, tmp_path: Path, name: str) -> None:
    """Nothing says that a stage wrote them, so no stage writes over them."""
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    stages = [bag_stage(digits / "train", out)]
    if name == "environment.json":
        demo, pack = DemoDataConfig(out=out, size=8), PackConfig(source=source, out=out)
        stages += [Stage("d", "demo-data", demo), Stage("p", "pack", pack)]
    for stage in stages:
        with pytest.raises(UserError, match=f"out holds '{name}' and no stage of bingo; choose a new or empty folder"):
            run_stage(stage)
        assert {path.name: path.read_text() for path in out.iterdir()} == {name: "mine"}


def test_a_folder_that_the_work_itself_refuses_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="already exists and is not a folder of demo digits"):
        run_stage(Stage("d", "demo-data", DemoDataConfig(out=tmp_path / "out")))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_what_another_version_began_is_taken_over_on_request_only(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = bag_stage(digits / "train", tmp_path / "bags")
    monkeypatch.setattr(identity, "__version__", "0.0.9")
    before = run_stage(stage)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"made with version 0.0.9 of bingo, not .*`bingo repair --new-code`, or have"):
        run_stage(stage)
    takes = {"any_version": True, "inputs": {}}
    again = run_stage(stage, sent=takes)
    assert (again["skipped"], again["key"]) == (True, before["key"])
    (stage.out / "bags.npz").unlink()
    redone = run_stage(stage, sent=takes)
    assert (redone["key"], redone["version"], redone["continued_by"]) == (before["key"], "0.0.9", __version__)
    with pytest.raises(UserError, match=r"version 0.0.9 of bingo, not \S+; seed=0, not 1; choose"):
        run_stage(bag_stage(digits / "train", stage.out, seed=1), sent=takes)


def test_an_input_that_is_not_as_it_was_sent(source: Path, tmp_path: Path) -> None:
    stage = Stage("bags", "bags", BagsConfig(data=source, out=tmp_path / "bags", kind="random", k=1))
    sent = {"any_version": False, "inputs": identify("bags", stage.config).inputs_json()}
    (source / "class0" / "0.png").touch()
    with pytest.raises(UserError, match=r"--data: \S+source has another content than when the job was sent .known"):
        run_stage(stage, sent=sent)
    assert not stage.out.exists()
    source.rename(tmp_path / "away")
    for there in (False, True):  # a mount point without its storage is empty
        with pytest.raises(TransientError, match=r"--data: \S+source is empty or not there, although it was when"):
            run_stage(stage, sent=sent)
        if not there:
            source.mkdir()


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
