"""Whether a job starts again: the decision of `bingo.launch.job.attempt`, from records on disk and without them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bingo.files import write_json
from bingo.launch.job import attempt as attempts
from bingo.launch.job.attempt import AGAIN, AGAIN_ELSEWHERE, FINISHED, PATIENCE, STOP, STORM, begin, end
from bingo.launch.job.spec import JobSpec
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


def test_asked_starts_that_never_come_to_a_step_end_too(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"event": "left", "step": None, "signal": "SIGUSR2"}
    decisions = [attempt(job, monkeypatch, n, [left], 75) for n in range(STORM)]
    assert decisions == [AGAIN] * (STORM - 1) + [STOP]
    assert (
        ends(job, STORM - 1)["then"]
        == f"not tried again: {STORM} attempts in a row, asked to leave or not, made no progress"
    )
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(STORM))
    assert begin(job) == STOP, "Slurm requeues what it preempts without asking"
    assert ends(job, STORM)["cause"]["kind"] == "limit"
    saved = {"event": "checkpoint", "step": 16, "seconds": 0.1}
    with open(job / "attempts" / f"12-{STORM - 1}" / "rank-0.jsonl", "a") as file:
        file.write("".join(json.dumps({"time": 9.0, **event}) + "\n" for event in (STAGE, saved)))
    assert attempt(job, monkeypatch, STORM, [left], 75) == AGAIN, "progress"
    shutil.rmtree(job / "attempts")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(2 * STORM))
    assert begin(job) == 0, "what nobody has recorded says nothing"


@pytest.mark.parametrize("limit", [{"max_starts": 2}, {"max_hours": 0.5}], ids=str)
def test_limits_hold_where_slurm_requeues_by_itself(
    job: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, Any]
) -> None:
    JobSpec("x", ((),), **limit).write(job)
    told: list[Path] = []
    monkeypatch.setattr(attempts, "_notify", told.append)
    for n in range(3):  # nodes are lost: no start lives to decide anything
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(n))
        assert begin(job) == (STOP if n == 2 else 0)
        begun = job / "attempts" / f"12-{n}" / "begin.json"
        begun.write_text(json.dumps({**json.loads(begun.read_text()), "time": 100.0}))
        (begun.parent / "rank-0.beat").write_text("3 1100.0 distill\n")
    assert told == [job], "nobody else tells that it is over"
    cause = ends(job, 2)["cause"]
    reached = "start 2 was the last of max_starts = 2"
    if "max_hours" in limit:
        reached = "its starts have taken 0.6 h together, of max_hours = 0.5"
    assert cause["kind"] == "limit"
    assert cause["sentence"] == f"it did not go on: {reached}; `bingo repair` sends it again"


def test_limits_of_the_site_file(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = [[STAGE, {"event": "checkpoint", "step": n + 1, "seconds": 0.1}, CRASH] for n in range(3)]
    JobSpec("x", ((),), max_starts=3).write(job)
    assert [attempt(job, monkeypatch, n, events, 70) for n, events in enumerate(saved)] == [AGAIN, AGAIN, STOP]
    assert "start 3 was the last of max_starts = 3" in ends(job, 2)["then"]
    JobSpec("x", ((),), max_hours=2.0).write(job)
    for n, hours in enumerate([1.5, 0.4, 0.2]):
        began = time.time() - hours * 3600
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(n))
        folder = job / "attempts" / f"12-{n}"
        (folder / "begin.json").write_text(json.dumps({"time": began}))
        (folder / "end.json").unlink()
        assert end(job, 70) == (STOP if n == 2 else AGAIN)
    assert "its starts have taken 2.1 h together, of max_hours = 2" in ends(job, 2)["then"]


def test_a_start_waits_for_storage_that_is_away(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until it is back; not for ever; not once Slurm ends the script."""
    looks: list[Path] = []

    def is_away(folder: Path) -> bool:
        looks.append(folder)
        return len(looks) < 4

    naps: list[float] = []
    monkeypatch.setattr(attempts, "_is_away", is_away)
    monkeypatch.setattr(time, "sleep", naps.append)
    assert attempt(job, monkeypatch, 0, [STAGE, CRASH], 70) == AGAIN
    assert (len(naps), looks) == (3, [job] * 4)
    assert capsys.readouterr().out.count("cannot be written now; the job starts again once it can") == 1
    monkeypatch.setattr(attempts, "_is_away", lambda folder: True)
    attempts.wait_for_storage([job], patience_s=0)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    attempts.wait_for_storage([job])


@pytest.mark.parametrize("kind", ["transient", "exception"])
def test_a_run_folder_that_is_not_mounted_is_waited_for(job: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What stands above it can be written, and would be: four starts without progress are over in a minute."""
    out, naps = job.parent / "mount" / "run", list[float]()

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            out.mkdir(parents=True)
            (out / "saved.json").touch()

    monkeypatch.setattr(time, "sleep", sleep)
    saved = {"event": "checkpoint", "step": 5, "seconds": 0.1, "key": "k", "out": str(out)}
    failed = {"event": "failed", "kind": kind, "error": "UserError: cannot write", "step": 5}
    assert attempt(job, monkeypatch, 0, [STAGE, saved, failed], 74) == AGAIN
    assert len(naps) == (3 if kind == "transient" else 0)


def test_an_input_that_is_not_mounted_is_waited_for(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, naps = job.parent / "data", list[float]()
    data.mkdir()

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        (data / "index.npz").touch()

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(attempts, "outs_of", lambda job: [job / "run"])
    known = {"path": str(data), "hash": "h", "by": "its index"}
    write_json(job / "sent.json", {"inputs": {str(job / "run"): {"data": known}}, "any_version": False})
    failed = {"event": "failed", "kind": "transient", "error": "TransientError: it is empty", "step": None}
    assert attempt(job, monkeypatch, 0, [STAGE, failed], 74) == AGAIN
    assert len(naps) == 1


def test_which_folders_are_away(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not attempts._is_away(job / "not" / "there")
    monkeypatch.setattr(os, "access", lambda path, mode: path != job)
    assert attempts._is_away(job / "not" / "there")


def test_a_job_marked_as_cancelled_does_not_start_again(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ended it: `scancel` may have failed, or come while it fell."""
    left = {"event": "left", "step": 7, "signal": "SIGUSR2"}
    for restart, (event, rc) in enumerate([(CRASH, 70), (left, 75)]):
        assert attempt(job, monkeypatch, restart, [STAGE, event], rc) == AGAIN
        (job / "cancelled").write_text('{"time": 1, "reason": "bingo cancel"}')
        assert end(job, rc) == STOP
        (job / "cancelled").unlink(missing_ok=restart == 0)
    (job / "cancelled").touch()
    assert ends(job, 1)["then"] == "it was cancelled, and does not start again"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert begin(job) == STOP
    assert (ends(job, 2)["decision"], ends(job, 2)["cause"]["kind"]) == (STOP, "cancelled")


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


def test_a_comment_that_slurm_does_not_take_breaks_nothing(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job / "attempts").write_text("a file where the folder should be")

    def hangs(*args: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("scontrol", 20)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert end(job, 74) == AGAIN


def test_the_helper_needs_no_torch() -> None:
    code = "import sys, bingo.launch.job.attempt; assert not {'torch', 'numpy', 'submitit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
