"""Whether a job starts again: the decision of `bingo.launch.job.attempt`, from records on disk and without them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bingo.launch.job.attempt import AGAIN, AGAIN_ELSEWHERE, FINISHED, PATIENCE, STOP, begin, end
from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick

CRASH = {"event": "failed", "kind": "exception", "error": "KeyError: 'x'", "step": 3, "stage": "distill"}
STAGE = {"event": "stage", "name": "distill"}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of job 12, whose helper runs on node c1; what it says to scontrol is in the file `said`."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURMD_NODENAME", "c1")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    return tmp_path


def attempt(job: Path, monkeypatch: pytest.MonkeyPatch, restart: int, events: list[dict[str, Any]], rc: int) -> int:
    """One start of the job: its rank 0 wrote `events`, srun ended with `rc`; returns the decision."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    assert begin(job) == 0
    start = {"event": "start", "host": "c1", "pid": 1}
    lines = [json.dumps({"time": float(i), **e}) for i, e in enumerate([start, *events])]
    (job / "attempts" / f"12-{restart}" / "rank-0.jsonl").write_text("\n".join(lines) + "\n")
    return end(job, rc)


def ends(job: Path, restart: int) -> Any:
    return json.loads((job / "attempts" / f"12-{restart}" / "end.json").read_text())


def test_four_crashes_without_progress_are_enough(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PATIENCE == 4
    saved = {"event": "checkpoint", "step": 16, "seconds": 0.1}
    decisions = [attempt(job, monkeypatch, n, [STAGE, *([saved] if n < 2 else []), CRASH], 70) for n in range(6)]
    # The second attempt wrote step 16 once more: that is no progress.
    assert decisions == [AGAIN, AGAIN, AGAIN, AGAIN, STOP, STOP]
    assert ends(job, 4)["cause"] == {
        "kind": "exception", "sentence": "rank 0 on c1 failed after step 3: KeyError: 'x'",
        "rank": 0, "node": "c1", "step": 3,
    }  # fmt: skip
    assert ends(job, 4)["decision"] == STOP


def test_progress_is_a_newer_checkpoint_or_a_finished_stage(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [[STAGE, {"event": "checkpoint", "step": n + 1, "seconds": 0.1}, CRASH] for n in range(6)]
    assert {attempt(job, monkeypatch, n, events, 70) for n, events in enumerate(steps)} == {AGAIN}
    for n in range(6, 9):
        assert attempt(job, monkeypatch, n, [CRASH], 70) == AGAIN
    skipped = {"event": "finished", "name": "distill", "skipped": True}
    assert attempt(job, monkeypatch, 9, [{**skipped, "skipped": False}, CRASH], 70) == AGAIN
    for n in range(10, 13):
        assert attempt(job, monkeypatch, n, [skipped, CRASH], 70) == AGAIN
    assert attempt(job, monkeypatch, 13, [skipped, CRASH], 70) == STOP


def test_leaving_costs_no_patience(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"event": "left", "step": None, "signal": "SIGUSR2"}
    assert {attempt(job, monkeypatch, n, [left], 75) for n in range(8)} == {AGAIN}
    rest = [attempt(job, monkeypatch, 8 + n, [left] if n % 2 else [CRASH], 75 if n % 2 else 70) for n in range(7)]
    assert rest == [AGAIN] * 6 + [STOP], "the fourth crash, with times between at which it was asked to leave"


@pytest.mark.parametrize("kind", ["user", "cancelled", "done"])
def test_what_is_never_tried_again(job: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    wrong = {"event": "failed", "kind": "user", "error": "UserError: no such file x", "step": 0, "stage": ""}
    if kind == "cancelled":
        log = "bingo: attempt 0 on c1\nslurmstepd-c1: error: *** JOB 12 ON c1 CANCELLED AT 2026-11-24T11:57:59 ***\n"
        (job / "12_batch.log").write_text(log)
    events, rc = {"user": ([wrong], 70), "cancelled": ([], 143), "done": ([], 0)}[kind]
    assert attempt(job, monkeypatch, 0, events, rc) == (FINISHED if kind == "done" else STOP)
    assert ends(job, 0)["cause"]["kind"] == kind


def test_a_slow_node_is_left_out(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    begin(job)
    (job / "attempts" / "12-0" / "exclude").write_text("c2\n")
    assert end(job, 76) == AGAIN_ELSEWHERE
    assert ends(job, 0)["cause"]["kind"] == "slow node"


def test_without_records_the_status_decides(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: nothing can be written, nothing is there to be read."""
    (job / "attempts").write_text("a file where the folder should be")
    for restart, decision in enumerate([AGAIN, AGAIN, AGAIN, STOP]):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        assert begin(job) == 1
        assert end(job, 74) == decision
    said = (job / "said").read_text().splitlines()
    assert len(said) == 4
    assert said[0].startswith("update JobId=12 Comment=it could not write, not even a record of that")
    assert end(job, 0) == FINISHED
    assert end(job, 75) == AGAIN
    assert end(job, 65) == STOP


def test_the_helper_needs_no_torch() -> None:
    code = "import sys, bingo.launch.job.attempt; assert not {'torch', 'numpy', 'submitit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
