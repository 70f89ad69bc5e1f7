"""Trainings of the user's own: groups of seeds, differences by hand, what is told of runs that have not ended."""

import json
import shutil
from pathlib import Path

import pytest

from bingo.bench.report import runs
from bingo.bench.report.page import write_reports
from bingo.errors import UserError
from tests.support.page import Page


@pytest.fixture(scope="module")
def trainings(root: Path) -> list[runs.Training]:
    """Three seeds without a teacher (kNN 90, 92, 91 %), three of kNN bags (90, 91, 92 %)."""
    return [runs.read_training(root / "students" / f"{arm}-{seed}") for arm in (0, 1) for seed in range(3)]


def test_seeds_of_one_setting_are_one_group(trainings: list[runs.Training]) -> None:
    groups = runs.grouped(trainings)
    assert {name: [t.seed for t in group] for name, group in groups.items()} == {
        "0-0 and seeds": [0, 1, 2],
        "1-0 and seeds": [0, 1, 2],
    }
    twice = runs.grouped([trainings[0], trainings[0], trainings[3]])
    assert [len(group) for group in twice.values()] == [1, 1], "the same run is not its own second seed"


def test_figures_equal_those_computed_by_hand(trainings: list[runs.Training]) -> None:
    shown = runs.content(trainings)
    first, second = shown["rows"]
    assert (first["n"], first["steps"], first["values"]) == (3, "64", ["91.0 [88.5, 93.5]", "10.0 [10.0, 10.0]"])
    assert first["speed"] == "64", "64 images a step, a step a second"
    assert (second["wait"], second["state"]) == ("not recorded", "finished")
    # By seed 0, -1, +1 points: standard error 0.58, times 4.30.
    assert runs.told(shown)[-1] == (
        "1-0 and seeds − 0-0 and seeds: kNN +0.0 points [-2.5, +2.5], n = 3: unclear; "
        "top-1 +0.0 points [+0.0, +0.0], n = 3: unclear"
    )
    differing = {row["name"] for row in shown["settings"] if row["differs"]}
    assert {"kind", "optim.epochs", "objective"} <= differing
    assert not {"out", "seed"} & {row["name"] for row in shown["settings"]}


def test_what_a_run_says_of_its_speed_is_shown(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "students" / "1-0", tmp_path / "run")
    (tmp_path / "run" / "stage.json").unlink()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines[:2]:
        line.update(images_per_second=1000.0, loader_wait=0.25, gpu_peak_gib=2.0)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = runs.content([runs.read_training(tmp_path / "run")])
    (row,) = shown["rows"]
    assert (row["speed"], row["wait"], row["state"]) == ("1k", "25.0 %", "1 not finished")
    titles = [chart.alt.partition(":")[0] for chart in shown["curves"]]
    assert {"images per second", "time spent waiting for the loader, %", "GPU memory at its peak, GiB"} <= set(titles)


def test_a_page_of_runs(root: Path, tmp_path: Path) -> None:
    folders = [root / "students" / name for name in ("0-0", "1-0", "1-1", "0-0")]
    said = write_reports(folders, tmp_path / "page.html")
    assert said[-1] == f"report: {tmp_path / 'page.html'}"
    assert "one seed, no interval" in said[-2]
    page = Page((tmp_path / "page.html").read_text())
    assert [row[0] for row in page.rows if row and row[0] in ("0-0", "1-0 and seeds")] == ["0-0", "1-0 and seeds"]
    assert "training loss" in page.text


def test_a_folder_without_a_training_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train has no metrics.jsonl: no training has begun there; give the --out"):
        runs.read_training(root / "train")
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "config.json").write_text('{"kind": "pack"}')
    with pytest.raises(UserError, match=r"config.json does not say which training this is"):
        runs.read_training(tmp_path)
