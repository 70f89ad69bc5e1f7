"""The whole benchmark of a GPU, run without one; sizes that make no sense."""

import json

import pytest

from bingo.bench.kernels.on_gpu import print_table, run_any, run_gpu
from bingo.bench.kernels.peers import COMPILED, LIBRARIES, LOOSE, PLAIN
from bingo.bench.kernels.workload import LOSS, TASKS

COMPILED_FLAT = [variant for together in COMPILED for variant in together]


def test_whole_run_off_the_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row is there, with a number or a reason, and the record is JSON. Without the interpreter, which is slow."""
    for task in TASKS:
        monkeypatch.setitem(PLAIN, task, [v for v in PLAIN[task] if v.name != "triton fp32"])
    result = run_gpu("cpu", (8,), keys=256, dim=16, rounds=1, samples=1, repeats=1, seconds_budget=5)
    result = json.loads(json.dumps(result))
    loss, lse = result["cases"]
    names = [v.name for v in [*PLAIN[LOSS], *LIBRARIES[LOSS], *COMPILED_FLAT]]
    assert [row["variant"] for row in loss["results"] if not row["repeat"]] == names
    assert all(row["reason"] or row["n"] for case in (loss, lse) for row in case["results"])
    assert loss["flops"] == 2 * lse["flops"]
    print_table(result)
    assert "L only: R=8" in capsys.readouterr().out


def test_wrong_sizes() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        run_gpu("cpu", ())
    with pytest.raises(ValueError, match="at least 1"):
        run_any("cpu", [8], 0, 16, 1, seconds=1)
    assert LOOSE == (2e-2, 2e-2)
