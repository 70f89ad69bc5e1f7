"""A profile inside a run: which steps and ranks, what it may not disturb."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import DistillConfig
from bingo.config_parts import Runtime, Window, profile_window
from bingo.distributed import World
from bingo.errors import UserError
from bingo.identity import output_hashes
from bingo.stages import Stage, stage_key
from bingo.train.profile import StepProfile, trace_path
from bingo.train.spans import span

CPU = torch.device("cpu")


def world(rank: int = 0, size: int = 1) -> World:
    return World(rank, size, CPU, 1)


@pytest.mark.parametrize(
    ("text", "window"),
    [("", None), ("10:15", Window(10, 15, (0,))), ("0:1@3,1,3", Window(0, 1, (1, 3)))],
)
def test_what_the_setting_means(text: str, window: Window | None) -> None:
    assert profile_window(text) == window
    assert Runtime(profile=text).profile == text


@pytest.mark.parametrize("text", ["5", "5:5", "9:5", "a:b", "1:2@", "1:2@x", "-1:2", "0:101", "1:2@0,"])
def test_what_it_may_not_be(text: str) -> None:
    with pytest.raises(UserError, match=r"runtime.profile=.* must be FIRST:PAST or FIRST:PAST@RANK.*--runtime.profile"):
        Runtime(profile=text)


class Profiler:
    """Stands for torch's: says when it was started and ended."""

    def __init__(self, **_: Any) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def export_chrome_trace(self, path: str) -> None:
        Path(path).write_text(json.dumps(self.calls))


def test_the_window_alone_is_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    for rank, wrote in ((0, False), (1, True)):
        profile, running = StepProfile("2:4@1", tmp_path, range(6), world(rank, 2)), []
        for step in range(6):
            profile.at(step)
            running.append(profile._profiler is not None)
        profile.at(6)
        assert running == [False, False, wrote, wrote, False, False]
        assert trace_path(tmp_path, rank).exists() == wrote
    last = StepProfile("5:6", tmp_path, range(6), world())
    for step in range(7):
        last.at(step)
    assert trace_path(tmp_path, 0).exists(), "a window may end with the run"
    assert [path.name for path in (tmp_path / "profile").iterdir() if path.name[0] == "."] == []


def test_a_trace_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    (tmp_path / "profile").write_text("a file is in the way")
    profile = StepProfile("0:1", tmp_path, range(1), world())
    profile.at(0)
    profile.at(1)
    assert "the profile cannot be written" in caplog.text


def test_a_run_that_goes_on_behind_the_window_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        StepProfile("2:4", tmp_path, range(3, 9), world())
    assert "nothing is profiled: the run goes on at step 3" in caplog.text


def test_it_is_no_part_of_a_stage(config: DistillConfig) -> None:
    """Neither of the key nor of the outputs; and without a profiler a span is nothing."""
    profiled = replace(config, runtime=replace(config.runtime, profile="1:2"))
    assert stage_key(Stage("run", "distill", profiled)) == stage_key(Stage("run", "distill", config))
    trace = trace_path(config.out, 0)
    trace.parent.mkdir(parents=True)
    trace.write_bytes(b"x")
    assert output_hashes(config.out) == {}
    assert span("loss") is span("teacher")
