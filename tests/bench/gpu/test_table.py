"""The table of `bingo bench gpu` stays short whatever was found."""

from bingo.bench.gpu import checks as gpu_checks
from bingo.bench.gpu.record import State
from bingo.bench.gpu.table import MOST_LINES, table


def test_a_long_table_is_cut() -> None:
    packages = {"torch": "2", "triton": "3"}
    checks = [
        gpu_checks.record(f"triton bf16 {i}", f"n{i}", "failed", "w" * 200, error=2.0, bound=1.0) for i in range(99)
    ]
    state: State = {
        "environment": {"gpu": [], "device": "cpu", "cpu": "x", "packages": packages, "python": "3", "git": ""},
        "failures": 99, "seconds": 1.0,
        "correctness": {"quick": False, "checks": checks},
        "kernels": {"table": [f"row {i}" for i in range(80)], "result": {"aims": []}},
        "step": {"error": "none"},
    }  # fmt: skip
    lines = table(state)
    assert len(lines) <= MOST_LINES
    assert any("more, in gpu.json" in line for line in lines)
    assert any("more lines, in gpu.json" in line for line in lines)
    assert max(map(len, lines)) <= 160
    state["kernels"]["result"]["aims"] = [{"text": "768: reached"}]
    assert "  768: reached" in table(state)
