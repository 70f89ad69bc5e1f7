"""Wrong pixels get no ratio."""

from pathlib import Path

import pytest

from bingo.bench.loader import gate as loader_gate
from bingo.bench.loader import main as bench
from bingo.bench.loader.table import table
from bingo.bench.loader.variants import OURS, STAGES
from bingo.cli import main

SMALL = ["--images", "12", "--batch", "4", "--burst", "1", "--rounds", "1", "--device", "cpu"]


def test_no_ratio_for_wrong_pixels(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loader_gate._torchvision
    monkeypatch.setattr(loader_gate, "_torchvision", lambda *args: real(*args) + 0.01)
    options = [*SMALL, "--cache", str(cache), "--variants", "packed,release"]
    lines: list[str] = []
    monkeypatch.setattr(bench, "table", lambda found: lines.extend(table(found)) or lines)
    assert main(["bench", "loader", *options]) == 1
    ours = [line for line in lines if line.startswith(OURS) and "wrong pixels" in line]
    assert len(ours) == len(STAGES)
    assert sum(line.endswith("not measured") for line in lines) == 2
