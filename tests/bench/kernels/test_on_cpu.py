"""The benchmark of the CPU draws, and counts the host's time."""

import json
from pathlib import Path

import pytest

from bingo.cli import main


@pytest.mark.slow
def test_cpu_benchmark_draws_and_counts_host_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    words = ["bench", "kernels", "--device", "cpu", "--rows", "16", "--queue", "500", "--samples", "2"]
    words += ["--json", str(tmp_path / "k.json"), "--picture", str(tmp_path / "k.svg")]
    assert main(words) == 0
    record = json.loads((tmp_path / "k.json").read_text())["kernels"]
    assert set(record["host_seconds"]) == {
        "implementation alone", "queue_softmax", "queue_softmax, gradient wanted",
    }  # fmt: skip
    assert "host time per call" in capsys.readouterr().out
    assert (tmp_path / "k.svg").exists()
