"""`bingo bench step` on the CPU with a toy shape: record, gate, failures, wrong flags."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bingo.bench.record import read_result
from bingo.bench.step import main as bench
from bingo.bench.step.record import Result, ShapeRecord
from bingo.bench.step.release import ReleaseStyle
from bingo.bench.step.table import PARTS, table
from bingo.bench.step.variants import BASE
from bingo.cli import main
from tests.support.ranks import ROOT
from tests.support.toy_step import BARE, TOY


def test_record_keeps_every_sample(found: dict) -> None:
    plain = [f"{who} {precision} channels-last" for precision in ("fp32", "bf16") for who in ("release-style", "ours")]
    assert {name for name in found["variants"] if "," not in name} == {BASE, "ours fp32", *plain}
    assert {name.split(", ")[1] for name in found["variants"] if "," in name} == {"teacher folded", "cached keys"}
    json.dumps(found)
    assert found.keys() == Result.__annotations__.keys()
    assert found["shape"].keys() == ShapeRecord.__annotations__.keys()
    for name, figures in found["variants"].items():
        assert len(figures["seconds"]["samples"]) == len(figures["cpu_seconds"]["samples"]) == 4
        low, high = figures["seconds"]["interval"]
        assert low <= figures["seconds"]["median"] <= high
        assert set(figures["parts"]) == set(PARTS)
        assert all(len(samples) == bench.LEAST_SAMPLES for samples in figures["parts"].values())
        assert all((seconds > 0) == ("cached" not in name) for seconds in figures["parts"]["teacher"])
        assert min(figures["parts"]["student"]) > 0
        assert len(figures["cpu_seconds"]["samples"]) == 4
    for name in ("ours fp32", "ours fp32 channels-last, cached keys", "release-style fp32 channels-last"):
        one = found["variants"][name]
        assert one["loss_gate"]["error"] < bench.LOSS_GATE
        base = found["variants"][BASE]["cpu_seconds"]["samples"]
        pairs = [theirs / mine for theirs, mine in zip(base, one["cpu_seconds"]["samples"], strict=True)]
        assert one["over_release"]["median"] == np.median(pairs)
        assert list(one["over_peers"]) == ([] if "release" in name else ["release-style fp32 channels-last"])
    assert list(found["variants"]["ours bf16 channels-last"]["over_peers"]) == ["release-style bf16 channels-last"]


@pytest.mark.slow
def test_no_speed_up_is_shown_for_a_wrong_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ReleaseStyle._view_loss
    monkeypatch.setattr(ReleaseStyle, "_view_loss", lambda *args: 1.1 * whole(*args))
    wrong = bench.run(replace(TOY, samples=1))
    assert not wrong["variants"]["ours fp32"]["loss_gate"]["ok"]
    assert "over_release" not in wrong["variants"]["ours fp32"]
    assert any("% off" in line for line in table(wrong))


@pytest.mark.slow
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
    assert "too little of the time" in short["variants"]["ours bf16 channels-last, both compiled"]["error"]
    assert len(states) >= 4


@pytest.mark.slow
def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = "bench step --device cpu --batch 4,8 --student tiny-2 --teacher tiny-2 --size 16 --queue 16 --samples 1"
    assert main([*words.split(), "--json", str(tmp_path / "step.json")]) == 0
    saved = read_result(tmp_path / "step.json", "step")
    assert [record["shape"]["batch"] for record in saved["detail"]] == [4, 8]
    assert not saved["partial"]
    assert capsys.readouterr().out.count("release-style fp32 ") == 8


def test_some_variants_on_some_threads(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    try:
        words = "bench step --device cpu --batch 4 --size 16 --queue 16 --student tiny-2 --teacher tiny-2 --samples 1"
        assert main([*words.split(), "--threads", "1", "--variants", "release-style fp32,cached"]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    said = capsys.readouterr().out
    assert "ours bf16 channels-last, cached keys" in said
    assert "teacher folded" not in said


def test_ratios_are_of_rounds_that_both_were_in() -> None:
    """What joined later, after a compiler had run, is set beside what was measured then."""
    peer, late = (bench.Runner(name, *[None] * 3) for name in ("peer", "late"))  # type: ignore[arg-type]
    peer.rounds, peer.cpu_seconds = [0, 1, 2, 3], [9.0, 9.0, 4.0, 6.0]
    late.rounds, late.cpu_seconds = [2, 3], [2.0, 3.0]
    assert bench._ratio(peer, late, TOY)["median"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch 0", "'0' is not a whole number of at least 1"),
        ("--batch 16,x", "'x' is not a whole number"),
        ("--samples", "--samples: needs a value"),
        ("--queue 100", "--queue 100 is not a multiple of --batch 16"),
        (
            "--variants slow",
            "--variants slow: there are release-style fp32; ours fp32; release-style",
        ),
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
