"""`bingo bench gpu` on a CPU: its files, a part that breaks, the time that is up, one op for a profiler."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bingo.bench.gpu import main as gpu
from bingo.bench.gpu import suite as gpu_suite
from bingo.bench.gpu.children import Child, work_through
from bingo.bench.gpu.record import Check
from bingo.bench.gpu.table import MOST_LINES
from bingo.bench.record import read_result
from bingo.bench.step import main as bench_step
from bingo.cli import main
from tests.support import fake_group
from tests.support.gpu_suite import few, run
from tests.support.ranks import ROOT
from tests.support.toy_step import BARE, TOY

CPU = torch.device("cpu")
KEYS = set(Check.__annotations__)


@pytest.mark.slow
def test_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_suite, "suite", few("chunked", lambda name: "compile" not in name))
    monkeypatch.setattr(bench_step, "default_shape", lambda device: TOY)
    status, state = run(tmp_path, "--impl", "chunked")
    assert status == 0
    checks = state["correctness"]["checks"]
    assert len({(c["group"], c["name"]) for c in checks}) == len(checks) > 80
    assert all(set(c) == KEYS for c in checks)
    assert all(c["ok"] and c["error"] <= c["bound"] for c in checks if c["status"] != "skipped")
    assert {c["note"] for c in checks if c["status"] == "skipped"} == {"needs a CUDA device"}
    assert "bench kernels" in state["kernels"]["skipped"]
    assert len(state["step"]["result"]["variants"]["ours fp32"]["seconds"]["samples"]) == 3
    assert {"kernels/ring.py", "bench/samples.py", "bench/gpu/checks.py"} <= state["environment"]["source"].keys()
    printed = capsys.readouterr().out
    text = (tmp_path / "gpu.txt").read_text()
    assert printed.endswith(text)
    assert len(text.splitlines()) <= MOST_LINES
    assert "0 failed" in text
    assert "0 failure(s)" in text.splitlines()[-1]


def test_a_part_that_breaks_leaves_what_it_found(tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path, minutes=1.0, only=None, quick=True, impl=None)
    run = gpu.GpuRun(options, CPU)
    gpu._part(run, "kernels", fake_group.part, 1.0, time.monotonic() + 900)
    run.finish()
    state = read_result(tmp_path / "gpu.json", "gpu")["detail"]
    assert state["kernels"] == {
        "result": fake_group.NO_KERNELS, "table": ["a row"], "error": "exit status 1, last output: out of memory",
    }  # fmt: skip
    assert state["failures"] == 1
    assert "a row" in (tmp_path / "gpu.txt").read_text()


def test_what_the_time_cuts_off_is_said_and_is_a_failure(tmp_path: Path) -> None:
    status, state = run(tmp_path, "--only", "correctness", "--impl", "chunked", "--minutes", "0.000001")
    assert status == 1
    assert {c["status"] for c in state["correctness"]["checks"]} == {"missed"}
    assert "MISSED" in (tmp_path / "gpu.txt").read_text()


def test_one_op_for_a_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--device", "cpu", "--only", "one", "--impl", "chunked", "--rows", "5"]) == 0
    assert "8 calls each of bag_loss and queue_softmax, impl chunked, R=5" in capsys.readouterr().out


def test_the_checks_of_a_child(tmp_path: Path) -> None:
    heard: list[Check] = []
    group = "chunked fp32 shapes"
    names = list(gpu_suite.suite(CPU, quick=True, impls=("chunked",))[group])

    def start(name: str, first: int, path: Path) -> Child:
        arguments = ["cpu", True, ["chunked"], name, first + 2, str(path)]
        return Child(gpu.check_group, arguments, path.with_suffix(".log"))

    work_through(
        {group: names}, start, tmp_path, parallel=1, deadline=time.monotonic() + 900, silence=gpu._silence,
        ended=lambda group, item, record: heard.append(record), lost=lambda *loss: pytest.fail(str(loss)),
    )  # fmt: skip
    assert [record["name"] for record in heard] == names[2:]
    assert all(record["ok"] for record in heard)


def test_runs_with_torch_alone() -> None:
    words = ["bench", "gpu", "--device", "cpu", "--only", "one", "--rows", "4"]
    done = subprocess.run([sys.executable, "-c", BARE, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "R=4 K=256" in done.stdout
