"""`notify` of a site file: what is told, once, to which command, and that nothing hangs on it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.job.attempt import FINISHED, STOP, end, main
from bingo.launch.job.records import MARKER
from bingo.launch.status.command import status as status_verb
from bingo.launch.status.notify import TOLD, at_the_end, run
from bingo.launch.submit.submission import Submission
from tests.support.ranks import ROOT
from tests.support.submissions import attempt, job, submission
from tests.support.two_chains import T

pytestmark = pytest.mark.quick
NASTY = "$(touch hacked)`touch hacked`'; touch hacked; \"\n\x00\ud800é"
SAID = '"$BINGO_STATE" "$BINGO_JOB" "$BINGO_SENTENCE" "$BINGO_ROOT" "$BINGO_SUBMISSION"'
COMMAND = f'cat > said.json; printf "%s|%s|%s|%s|%s\\n" {SAID} >> told'


@pytest.fixture
def made(tmp_path: Path) -> Submission:
    """A chain of three in a folder with a name that a shell would take for a command; the first one is done."""
    root = tmp_path / "r $(touch hacked)"
    jobs = [job(root, "a"), job(root, "b", "a"), job(root, "c", "b")]
    made = submission(root, jobs, {"a": "7", "b": "8", "c": "9"}, T)
    (made.folder / "site.toml").write_text(f"notify = '''{COMMAND}'''\n")
    ends(made, "a", 0)
    return made


def ends(made: Submission, name: str, decision: int, sentence: str = "finished", slurm_id: str = "") -> Path:
    slurm_id = slurm_id or made.newest()[name, 0].slurm_id
    kind = "done" if decision == FINISHED else "exception"
    record = {"time": T + 9, "rc": 1, "decision": decision, "then": "", "cause": {"kind": kind, "sentence": sentence}}
    attempt(made, name, f"{slurm_id}-0", begin={"time": T + 1, "nodes": "c1"}, end=record)
    return made.job_folder(name)


def heard(made: Submission) -> list[str]:
    path = made.root / "told"
    return path.read_text().splitlines() if path.exists() else []


def test_the_end_of_the_last_job(made: Submission) -> None:
    assert at_the_end(ends(made, "b", 0)) is None, "c is still to come"
    assert at_the_end(ends(made, "c", 0)) == TOLD
    assert at_the_end(made.job_folder("b")) is None, "once"
    assert heard(made) == [f"done||done: 3 done|{made.root}|{made.id}"]
    record = json.loads((made.folder / "notified" / "done-0.json").read_text())
    assert (record["outcome"], record["sentence"]) == (TOLD, "done: 3 done")
    said = json.loads((made.root / "said.json").read_text())
    assert list(said) == ["state", "root", "submission", "job", "sentence", "next", "time"]
    assert not list(made.root.glob("hacked"))


def test_a_failure_and_what_will_not_run(made: Submission) -> None:
    """No name and no word of a rank is ever part of a command; a repair may fail anew."""
    assert at_the_end(ends(made, "b", STOP, f"rank 1 said {NASTY}")) == TOLD
    (line,) = heard(made)
    assert line.startswith("failed|b|failed: b: rank 1 said $(touch hacked)`touch hacked`'; touch hacked; \"\\n\\x00")
    assert "; 1 behind it will not run|" in line
    assert json.loads((made.root / "said.json").read_text())["next"][1].startswith("bingo repair ")
    assert not list(made.root.rglob("hacked"))
    assert at_the_end(made.job_folder("b")) is None
    made.record("b", "18", [0], 1)
    assert at_the_end(ends(made, "b", STOP, "again")) == TOLD
    assert len(heard(made)) == 2


def test_what_was_cancelled_or_starts_again_is_not_told(made: Submission) -> None:
    record = {
        "time": T + 9,
        "rc": 1,
        "decision": STOP,
        "then": "",
        "cause": {"kind": "cancelled", "sentence": "it was"},
    }
    attempt(made, "b", "8-0", begin={"time": T + 1, "nodes": "c1"}, end=record)
    assert at_the_end(made.job_folder("b")) is None
    assert at_the_end(ends(made, "b", 75, "asked to leave")) is None
    assert heard(made) == []
    assert not (made.folder / "notified").exists()


def test_a_job_of_an_array_tells_once(made: Submission, tmp_path: Path) -> None:
    array = submission(tmp_path / "s", [job(tmp_path, "sweep", tasks=3)], {"sweep": "12"}, T)
    (array.folder / "site.toml").write_text(f"notify = '''{COMMAND}'''\n")
    for task, decision in enumerate((STOP, FINISHED, STOP)):
        ends(array, "sweep", decision, "rank 0 failed", f"12_{task}")
        at_the_end(array.job_folder("sweep"))
    assert [line.split("|")[:2] for line in heard(array)] == [["failed", "sweep [0]"]]


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        ("exit 0", TOLD),
        ("yes | head -c 3000000; echo no such address >&2; exit 3", "it ended with status 3: no such address"),
        ("exit 4", "it ended with status 4: it printed nothing"),
        ("kill -TERM $$", "it was killed by signal 15: it printed nothing"),
        ("no-such-program", "it ended with status 127: "),
        ("sleep 1000 & sleep 1000", "the command took more than 1 s and was ended"),
        ("sleep 1000 & echo $! > child", TOLD),
    ],
)
def test_what_came_of_the_command(tmp_path: Path, command: str, outcome: str) -> None:
    """It never takes longer than its limit, even where what it started holds its output open."""
    began = time.monotonic()
    assert run(command, {"state": "done"}, tmp_path, 1).startswith(outcome)
    assert time.monotonic() - began < 300
    if (tmp_path / "child").exists():
        os.kill(int((tmp_path / "child").read_text()), 9)


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    assert run("true", {"state": "done"}, tmp_path / "gone").startswith("the command could not be started: ")
    assert run("true", {"state": "a\0b"}, tmp_path).startswith("the command could not be started: ")


def test_no_room_for_the_marker(made: Submission) -> None:
    """A full disk, or a folder of which the mode was changed: it is told all the same."""
    (made.folder / "notified").write_text("")
    assert at_the_end(ends(made, "b", STOP, "the disk is full")) == TOLD
    assert len(heard(made)) == 1


@pytest.mark.parametrize("command", ["exit 9", "sleep 1000", None])
def test_the_helper_of_a_job(
    made: Submission, command: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The decision about the job is the same whatever the command does; its log says what came of it."""
    monkeypatch.setattr("bingo.launch.job.attempt.NOTIFY_S", 5)
    if command is None:
        (made.folder / "site.toml").write_text("notify = [")
    else:
        (made.folder / "site.toml").write_text(f"notify = '{command}'\n")
    for name, value in {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "0", "SLURMD_NODENAME": "c1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    folder = made.job_folder("b")
    (folder / "8_batch.log").write_text(f"{MARKER}0 on c1\n")
    attempt(made, "b", "8-0", begin={"time": T + 1, "nodes": "c1"})
    assert end(folder, 65) == STOP
    if command != "sleep 1000":
        said = "it ended with status 9: it printed nothing" if command else "is not TOML"
        assert said in capfd.readouterr().out
    assert end(folder, 75) != STOP


def test_a_job_that_slurm_does_not_take_back(made: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was to start again, and the controller was away for too long."""
    folder = ends(made, "b", 75, "rank 1 was killed")
    assert at_the_end(folder) is None
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    assert main(["lost", str(folder)]) == 0, "as the batch script says it"
    (line,) = heard(made)
    assert line.startswith(
        "failed|b|failed: b: rank 1 was killed; Slurm did not take it back; 1 behind it will not run"
    )


def test_the_helper_needs_no_torch() -> None:
    code = "import sys, bingo.launch.status.notify; assert not {'torch', 'numpy', 'submitit'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_status_tells_what_no_job_can(
    made: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that is held never starts, so nobody runs who could say so."""
    held = {"8": Row("8", "PENDING", "JobHeldUser", T), "9": Row("9", "PENDING", "Dependency", T)}
    monkeypatch.setattr(slurm, "ask", lambda *a: Snapshot(T + 20, T, held, {}))
    assert status_verb([str(made.root)]) == 1
    assert heard(made) == [], "only on request"
    assert status_verb([str(made.root), "--notify"]) == 1
    assert status_verb([str(made.root), "--notify"]) == 1
    (line,) = heard(made)
    assert line.startswith("stuck|b|stuck: b: it is held; ")
    capsys.readouterr()
    (made.folder / "site.toml").write_text("notify = 'echo no mail here; exit 2'\n")
    (made.folder / "notified" / "stuck-0.json").unlink()
    assert status_verb([str(made.root), "--notify"]) == 1
    assert "note: notify: it ended with status 2: no mail here" in capsys.readouterr().out
    shutil.rmtree(made.folder / "notified")
    (made.folder / "notified").write_text("")
    (made.folder / "site.toml").write_text(f"notify = '''{COMMAND}'''\n")
    assert status_verb([str(made.root), "--notify"]) == 1
    assert "note: notify: nothing is told, since nobody could know it next time: " in capsys.readouterr().out
    assert len(heard(made)) == 1, "a watch would tell it every ten seconds"
    (made.folder / "notified").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: made.folder.stat().st_uid + 1)
        assert status_verb([str(made.root), "--notify"]) == 1
    assert "whose commands are not run for you" in capsys.readouterr().out
    assert len(heard(made)) == 1
    (made.folder / "site.toml").write_text("nodes = 1\n")
    with pytest.raises(UserError, match="has no notify; write one above its first table"):
        status_verb([str(made.root), "--notify"])
