"""`bingo bench step` on the CPU with a toy shape: record, gate, failures, wrong flags."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bingo.bench.step import main as bench
from bingo.bench.step.record import Result, ShapeRecord
from bingo.bench.step.release import ReleaseStyle
from bingo.bench.step.table import PARTS, table
from bingo.cli import main
from tests.support.ranks import ROOT
from tests.support.toy_step import BARE, TOY


def test_record_keeps_every_sample(found: dict) -> None:
    assert list(found["variants"]) == [
        "release-style fp32", "ours fp32", "ours fp32, cached keys", "ours bf16 channels-last",
        "ours bf16 channels-last, cached",
    ]  # fmt: skip
    json.dumps(found)
    assert found.keys() == Result.__annotations__.keys()
    assert found["shape"].keys() == ShapeRecord.__annotations__.keys()
    for name, figures in found["variants"].items():
        assert len(figures["seconds"]["samples"]) == 4
        low, high = figures["seconds"]["interval"]
        assert low <= figures["seconds"]["median"] <= high
        assert set(figures["parts"]) == set(PARTS)
        assert all(len(samples) == bench.LEAST_SAMPLES for samples in figures["parts"].values())
        assert all((seconds > 0) == ("cached" not in name) for seconds in figures["parts"]["teacher"])
        assert min(figures["parts"]["student"]) > 0
    for name in ("ours fp32", "ours fp32, cached keys"):
        ours = found["variants"][name]
        assert ours["loss_gate"]["error"] < bench.LOSS_GATE
        assert ours["over_release"]["median"] > 0


def test_no_speed_up_is_shown_for_a_wrong_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ReleaseStyle._view_loss
    monkeypatch.setattr(ReleaseStyle, "_view_loss", lambda *args: 1.1 * whole(*args))
    wrong = bench.run(replace(TOY, samples=1))
    assert not wrong["variants"]["ours fp32"]["loss_gate"]["ok"]
    assert "over_release" not in wrong["variants"]["ours fp32"]
    assert any("% off" in line for line in table(wrong))


def test_a_variant_that_fails_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate")

    monkeypatch.setattr(ReleaseStyle, "loss", fail)
    rest = bench.run(replace(TOY, samples=1))
    assert rest["variants"]["release-style fp32"]["error"] == "OutOfMemoryError: CUDA out of memory. Tried"
    assert "seconds" in rest["variants"]["ours fp32"]
    assert any("out of memory" in line for line in table(rest))


@pytest.mark.slow
def test_a_short_budget_still_gives_a_few_samples_and_no_compilation() -> None:
    states: list[dict] = []
    short = bench.run(replace(TOY, samples=50, compile=True), seconds_budget=0, on_change=states.append)
    assert len(short["variants"]["ours fp32"]["seconds"]["samples"]) == bench.LEAST_SAMPLES
    assert "too little of the time" in short["variants"]["ours bf16 channels-last, compiled"]["error"]
    assert len(states) >= 4


@pytest.mark.slow
def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = "bench step --device cpu --batch 4,8 --student tiny-2 --teacher tiny-2 --size 16 --queue 16 --samples 1"
    assert main([*words.split(), "--json", str(tmp_path / "step.json")]) == 0
    saved = json.loads((tmp_path / "step.json").read_text())
    assert [record["shape"]["batch"] for record in saved["step"]] == [4, 8]
    assert saved["environment"]["python"]
    assert capsys.readouterr().out.count("release-style fp32") == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch 0", "'0' is not a whole number of at least 1"),
        ("--batch 16,x", "'x' is not a whole number"),
        ("--samples", "--samples: needs a value"),
        ("--queue 100", "--queue 100 is not a multiple of --batch 16"),
        ("--impl fast", "--impl: 'fast' is not allowed"),
        ("--wrong", "unknown flag '--wrong'"),
    ],
)
def test_wrong_flags_are_one_sentence(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--device", "cpu", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_runs_with_torch_alone() -> None:
    words = "bench step --device cpu --batch 4 --size 16 --queue 16 --samples 1"
    done = subprocess.run([sys.executable, "-c", BARE, *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ours bf16 channels-last" in done.stdout
    words += " --student resnet18"
    done = subprocess.run([sys.executable, "-c", BARE, *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "need torchvision, which does not import; add --student tiny-16" in done.stderr
