"""The line of the stage that runs here: words, from what its ranks recorded."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from bingo.config import BagsConfig, PretrainConfig
from bingo.config_evaluation import EvalConfig
from bingo.config_parts import Optimiser
from bingo.launch.live import fitted, live_line, position
from bingo.stages import Stage

pytestmark = pytest.mark.quick
STAGE = {"time": 90.0, "event": "stage", "name": "teacher"}
TRAINING = {"time": 100.0, "event": "training", "step": 35, "steps": 9000}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    config = PretrainConfig(data=tmp_path / "data", out=tmp_path / "run", optim=Optimiser(epochs=96))
    config.out.mkdir()
    return Stage("teacher", "pretrain", config)


def told(stage: Stage, folder: Path, *events: dict[str, Any], lines: tuple[dict[str, Any], ...] = ()) -> str:
    (folder / "rank-0.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (stage.out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tra')
    return position(stage, 7, 49, folder, 130.0)


def test_a_training_in_words(stage: Stage, tmp_path: Path) -> None:
    lines: tuple[dict[str, Any], ...] = (
        {"kind": "eval", "step": 1500, "epoch": 11, "knn": 0.9142, "left_out": 0},
        {"kind": "train", "step": 1534, "epoch": 11, "lr": 0.1, "time": 140.0, "top1": 0.5, "loss": 2.8765},
    )
    assert told(stage, tmp_path, STAGE, TRAINING, lines=lines) == (
        "stage 7 of 49  teacher  3 min left, epoch 12 of 96, loss 2.88, kNN 0.914, step 1535 of 9000"
    )
    quick = lines[1] | {"step": 1533, "images_per_second": 512.3, "loader_wait": 0.07}
    assert ", kNN 0.914, step 1535" in told(stage, tmp_path, STAGE, TRAINING, lines=(quick | {"time": 99.0}, *lines))
    assert ", loss 2.88, 512 images/s, 7 % waiting for images, kNN 0.914, step 1535 of 9000" in told(
        stage, tmp_path, STAGE, TRAINING, lines=(quick, *lines)
    )
    assert len(fitted("x" * 90, 78)) == 78
    assert fitted("short", 78) == "short"
    damaged = ({"kind": "train", "step": "x"}, {"kind": "eval", "epoch": 1})
    assert told(stage, tmp_path, STAGE, TRAINING, lines=(*lines, *damaged)).endswith("kNN 0.914, step 1535 of 9000")


def test_an_evaluation_that_trains_in_words(tmp_path: Path) -> None:
    paths = {"run": tmp_path, "train": tmp_path, "val": tmp_path, "out": tmp_path}
    stage = Stage("teacher", "eval", EvalConfig(**paths, kinds=("linear",), protocol="simreg"))  # type: ignore[arg-type]
    lines: tuple[dict[str, Any], ...] = (
        {"kind": "accuracy", "step": 1500, "epoch": 11, "top1": 0.5142, "top5": 0.9},
        {"kind": "train", "step": 1534, "epoch": 11, "lr": 0.1, "time": 140.0, "loss": 2.8765},
    )
    assert told(stage, tmp_path, STAGE, TRAINING, lines=lines) == (
        "stage 7 of 49  teacher  3 min left, epoch 12 of 40, loss 2.88, top-1 0.514, step 1535 of 9000"
    )


def test_lines_of_an_earlier_start_do_not_count(stage: Stage, tmp_path: Path) -> None:
    line = {"kind": "train", "step": 40, "epoch": 0, "time": 99.0, "loss": 2.0}
    assert told(stage, tmp_path, lines=(line,)) == "stage 7 of 49  teacher  starting"
    assert told(stage, tmp_path, STAGE, TRAINING, lines=(line,)) == "stage 7 of 49  teacher  for 40 s"


def test_other_stages_say_their_blocks(tmp_path: Path) -> None:
    stage = Stage("teacher", "bags", BagsConfig(data=tmp_path / "data", out=tmp_path, kind="random"))
    assert told(stage, tmp_path, STAGE) == "stage 7 of 49  teacher  for 40 s"
    (tmp_path / "rank-0.beat").write_text("12 110.000 teacher      \n")
    assert told(stage, tmp_path, STAGE) == "stage 7 of 49  teacher  12 blocks done, for 40 s"


def test_without_a_terminal_the_line_is_made_when_it_is_due(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bingo.launch.live.FIRST_S", 0)
    made = []
    with caplog.at_level(logging.INFO, "bingo"), live_line() as show:
        show(stage, lambda: made.append("now") or "the line")
    assert made == ["now"]
    assert "the line" in caplog.text
    monkeypatch.setattr("bingo.launch.live.FIRST_S", 1000)
    with live_line() as show:
        show(stage, lambda: made.append("again") or "")
    assert made == ["now"]
