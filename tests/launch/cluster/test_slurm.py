"""Asking Slurm: rows of every kind, one sentence per error, and never more than one query per 10 s."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import slurm

pytestmark = pytest.mark.quick

QUEUE = """\
CLUSTER: test
13|PENDING|BeginTime|1795521404|1795521410|1795521410|NONE|1||0|
15_0|RUNNING|None|1795521401|1795521402|1795521404|NONE|0|c[1-2]|0|
15_1|PENDING|JobArrayTaskLimit|1795521401|N/A|N/A|N/A|0||0|
19|PENDING|ReqNodeNotAvail, UnavailableNodes:c2|1795521495|1795521501|N/A|N/A|1||0|
2|FAILED|NonZeroExitCode|1795521293|1795521293|1795521294|1795521296|0|c2|768|
16|CANCELLED|None|1795521401|1795521401|1795521405|1795521446|0|c2|15|
"""
PAST = """\
19|NODE_FAIL|None|1795521447|1795521447|1795521448|1795521495|c2|0:0
19|PENDING|BeginTime|1795521495|1795521501|Unknown|Unknown|None assigned|0:0
16|CANCELLED by 0|None|1795521401|1795521401|1795521405|1795521446|c2|0:15
2|FAILED|None|1795521293|1795521293|1795521294|1795521296|c2|3:0
"""


def test_rows_of_squeue() -> None:
    rows = slurm.parse_queue(QUEUE)
    assert list(rows) == ["13", "15_0", "15_1", "19", "2", "16"]
    assert rows["13"] == slurm.Row(
        "13", "PENDING", "BeginTime", 1795521404, 1795521410, 1795521410, None, restarts=1
    )  # waits for the delay after a requeue
    assert (rows["15_0"].nodes, rows["15_0"].reason, rows["15_0"].end) == ("c[1-2]", "", None)
    assert (rows["15_1"].eligible, rows["15_1"].start) == (None, None)
    assert rows["19"].reason == "ReqNodeNotAvail, UnavailableNodes:c2"
    assert (rows["2"].exit_code, rows["2"].signal) == (3, 0)
    assert (rows["16"].exit_code, rows["16"].signal) == (0, 15)
    assert [row.alive for row in rows.values()] == [True, True, True, True, False, False]


def test_every_attempt_of_sacct_is_a_row() -> None:
    rows = slurm.parse_past(PAST)
    assert [(row.state, row.restarts, row.nodes) for row in rows["19"]] == [("NODE_FAIL", 0, "c2"), ("PENDING", 1, "")]
    assert rows["16"][0].state == "CANCELLED"
    assert rows["16"][0].signal == 15
    assert rows["2"][0].exit_code == 3


@pytest.mark.parametrize(
    ("command", "said", "sentence"),
    [
        ("sacct", "Slurm accounting storage is disabled", "this cluster keeps no accounting"),
        (
            "sacct",
            "sacct: error: Sending PersistInit msg: Connection refused\n"
            "sacct: error: Problem talking to the database: Connection refused",
            "the accounting of this cluster does not answer now (sacct: error: Problem talking",
        ),
        (
            "squeue",
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
            "the controller of this cluster does not answer now (slurm_load_jobs error: Unable to contact",
        ),
        (
            "sbatch",
            "sbatch: error: invalid partition specified: gpu\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            "`sbatch` failed: sbatch: error: invalid partition specified: gpu / sbatch: error: Batch job submission",
        ),
        ("squeue", "", "`squeue` failed: it printed no reason"),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(command: str, said: str, sentence: str) -> None:
    text = slurm.explain(command, said)
    assert text.startswith(sentence)
    assert "\n" not in text


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, **commands: str) -> Path:
    """Executables of these names, first on PATH, that count their runs in a file and run a line of shell."""
    folder.mkdir()
    for name, body in commands.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {folder}/runs\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return folder


def said(text: str) -> str:
    return f"cat <<'END'\n{text}END"


def runs(folder: Path) -> list[str]:
    return (folder / "runs").read_text().split() if (folder / "runs").exists() else []


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake(tmp_path / "bin", monkeypatch, squeue=said(QUEUE), sacct=said(PAST))


def test_many_processes_ask_once(scheduler: Path) -> None:
    """Twenty-four calls in eight processes at once, within the real interval: one squeue, one sacct."""
    program = "from bingo.launch.cluster import slurm\nfor i in range(3): print(len(slurm.ask(1e9 + i).queue))"
    began = time.time()
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert [p.communicate(timeout=900)[0] for p in processes] == ["6\n6\n6\n"] * 8
    windows = int((time.time() - began) // slurm.INTERVAL_S) + 1  # 1, unless this machine is very slow today
    assert 1 <= runs(scheduler).count("squeue") <= windows
    assert 1 <= runs(scheduler).count("sacct") <= windows


@pytest.mark.parametrize("cache", ["/dev/null", "/proc/nowhere"])
def test_without_a_cache_folder(scheduler: Path, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    """This process still asks once; where there is no home either, so too."""
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr(slurm, "_unwritten", {})
    assert [len(slurm.ask(1_000).queue or ()) for _ in range(3)] == [6] * 3
    assert runs(scheduler) == ["squeue", "sacct"]


class Clock:
    """In place of the module `time`: goes on a little when it is read, and jumps where somebody would sleep."""

    strftime, localtime = staticmethod(time.strftime), staticmethod(time.localtime)
    now = 1e6

    def time(self) -> float:
        self.now += 2**-10
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_newer_answer_waits(scheduler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that was submitted after the last query, and one from before its reach, wait for the next one."""
    clock = Clock()
    monkeypatch.setattr(slurm, "time", clock)
    first = slurm.ask(1_000)
    assert slurm.ask(1_001).time == first.time
    second = slurm.ask(1_000, newer=clock.time())
    assert second.time >= first.time + slurm.INTERVAL_S
    third = slurm.ask(500)
    assert third.time >= second.time + slurm.INTERVAL_S
    assert third.since == 500
    assert slurm.ask(1_000).since == 500, "a later start does not narrow what others have asked for"
    assert runs(scheduler) == ["squeue", "sacct"] * 3


def test_a_clock_ahead_is_no_reason_to_wait_for_ever(scheduler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "INTERVAL_S", 0.2)
    assert slurm.ask(1_000, newer=time.time() + 3600).queue


def test_failures_are_remembered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    down = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    none = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
    folder = fake(tmp_path / "bin", monkeypatch, squeue=down, sacct=none)
    for _ in range(5):
        answer = slurm.ask(1_000)
    assert (answer.queue, answer.past) == (None, None)
    assert [problem.split(" (")[0] for problem in answer.problems] == [
        "the controller of this cluster does not answer now",
        "this cluster keeps no accounting",
    ]
    assert runs(folder) == ["squeue", "sacct"]


def test_no_slurm_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match=r"^no Slurm here \(sbatch is not on PATH\); go to a login node"):
        slurm.run(["sbatch", "x"])
    assert len(slurm.ask(1_000).problems) == 1


def test_the_shell_does_not_change_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = 'test -z "$SQUEUE_FORMAT$SACCT_FORMAT" && test "$SLURM_TIME_FORMAT" = %s'
    fake(tmp_path / "bin", monkeypatch, squeue=body, sacct=body)
    for name in ("SQUEUE_FORMAT", "SACCT_FORMAT"):
        monkeypatch.setenv(name, "%i")
    assert slurm.ask(os.getpid()).problems == ()


def test_a_silent_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bin", monkeypatch, squeue="exec sleep 60")
    with pytest.raises(UserError, match="`squeue` gave no answer in 0 s"):
        slurm.run(["squeue"], timeout=0.3)
