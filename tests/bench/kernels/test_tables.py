"""The tables and aims of the kernel benchmark, from made-up numbers."""

import json

import pytest

from bingo.bench.kernels import tables as kernel_tables
from bingo.bench.kernels.on_gpu import print_table
from bingo.bench.kernels.record import CpuResult
from bingo.bench.kernels.workload import LossShape
from tests.support.kernel_result import fake_gpu_result
from tests.support.ranks import ROOT


@pytest.mark.parametrize(
    ("aim", "low", "high", "smaller", "verdict"),
    [
        (42, 40, 41, True, "met"),
        (42, 41, 43, True, "unsure"),
        (42, 43, 44, True, "missed"),
        (1.2, 1.3, 1.4, False, "met"),
        (1.2, 1.0, 1.1, False, "missed"),
    ],
)
def test_verdicts(aim: float, low: float, high: float, smaller: bool, verdict: str) -> None:
    assert kernel_tables.judge(aim, low, high, smaller) == verdict


def test_table_and_aims(capsys: pytest.CaptureFixture[str]) -> None:
    result = fake_gpu_result()
    print_table(result)
    text = capsys.readouterr().out
    assert "absent: quack is not installed" in text
    assert "R=768 time, µs: aim <= 42, measured" in text
    assert len(result["aims"]) == sum(len(aims) for aims in kernel_tables.AIMS.values())
    verdicts = {(aim["rows"], aim["what"]): aim["verdict"] for aim in result["aims"]}
    assert verdicts[768, "µs"] == "met"
    assert verdicts[3072, "µs"] == "missed"
    assert verdicts[256, "naive fp32"] == "met"
    assert kernel_tables.aims(LossShape(256, keys=4096), result["cases"]) == []


def test_the_stored_result_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    stored = json.loads((ROOT / "bench" / "results" / "kernels-cpu-epyc-2core.json").read_text())["detail"]
    assert stored.keys() == CpuResult.__annotations__.keys()
    print_table(stored)
    assert "CPU time over ours, of pairs" in capsys.readouterr().out
