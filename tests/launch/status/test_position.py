"""Where a running attempt is: from its events, its beat and its newest line of metrics."""

import json
from pathlib import Path
from typing import Any

import pytest

from bingo.config import PretrainConfig
from bingo.config_parts import Optimiser
from bingo.launch.job.causes import Beat
from bingo.launch.status.attempts import Attempt
from bingo.launch.status.position import where
from bingo.stages import Stage

pytestmark = pytest.mark.quick
STAGE = {"time": 20.0, "event": "stage", "name": "teacher"}


def attempt(*events: dict[str, Any], beat: Beat | None = None) -> Attempt:
    return Attempt("7", 0, None, {}, {}, {0: events}, {0: beat} if beat else {})


@pytest.fixture
def stages(tmp_path: Path) -> tuple[Stage, ...]:
    config = PretrainConfig(data=tmp_path / "data", out=tmp_path / "run", optim=Optimiser(epochs=9))
    config.out.mkdir()
    return (Stage("teacher", "pretrain", config), Stage("next", "pretrain", config))


def test_before_the_first_stage(stages: tuple[Stage, ...]) -> None:
    assert where(attempt(), stages) == ("its ranks start and find each other", None, None)


def test_a_beat_of_an_earlier_start_or_stage_does_not_count(stages: tuple[Stage, ...]) -> None:
    assert where(attempt(STAGE), stages) == ("teacher (stage 1 of 2)", "teacher", None)
    assert where(attempt(STAGE, beat=Beat(7, 19.0, "teacher")), stages)[2] is None
    assert where(attempt(STAGE, beat=Beat(7, 21.0, "next")), stages)[2] is None
    resumed = {"time": 21.0, "event": "resumed", "step": 5}
    assert where(attempt(STAGE, resumed), stages) == ("teacher (stage 1 of 2), step 5", "teacher", 5)
    assert where(attempt(STAGE, resumed, beat=Beat(7, 21.0, "teacher")), stages[:1])[0] == "teacher, step 7"


@pytest.mark.parametrize(
    ("time", "text", "step"), [(22.0, "step 12, epoch 3 of 9, loss 1.23", 12), (19.0, "step 7", 7)]
)
def test_a_line_of_metrics_counts_if_this_start_wrote_it(
    stages: tuple[Stage, ...], time: float, text: str, step: int
) -> None:
    line = {"kind": "train", "time": time, "step": 11, "epoch": 2, "loss": 1.2345}
    (stages[0].out / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    found = where(attempt(STAGE, beat=Beat(7, 21.0, "teacher")), stages[:1])
    assert found == (f"teacher, {text}", "teacher", step)


def test_the_newest_rate_of_this_start_is_told(stages: tuple[Stage, ...]) -> None:
    line = {"kind": "train", "time": 22.0, "step": 11, "epoch": 2, "loss": 1.2345}
    for time, rates in ((21.0, ", 900 images/s, 12 % waiting for images"), (19.0, "")):
        measured = line | {"step": 10, "time": time, "images_per_second": 900.0, "loader_wait": 0.12}
        text = "".join(json.dumps(each) + "\n" for each in (measured, line))
        (stages[0].out / "metrics.jsonl").write_text(text)
        assert where(attempt(STAGE), stages[:1])[0] == f"teacher, step 12, epoch 3 of 9, loss 1.23{rates}"
