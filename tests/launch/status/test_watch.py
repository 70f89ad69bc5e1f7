"""`status --watch`: lines for changes, the page on a terminal, what stops it and what does not."""

import errno
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Snapshot
from bingo.launch.status.command import as_json, page
from bingo.launch.status.command import status as status_verb
from bingo.launch.status.states import State
from bingo.launch.status.summary import summary_of
from bingo.launch.status.watch import Objects, Report, Rounds, over, watch
from bingo.launch.submit.submission import Submission
from tests.support.ranks import ROOT
from tests.support.submissions import attempt, job, submission
from tests.support.two_chains import T

pytestmark = pytest.mark.quick
AWAY = "the controller of this cluster does not answer now (timed out)"


@pytest.fixture
def two(tmp_path: Path) -> Submission:
    return submission(tmp_path / "r", [job(tmp_path, "a"), job(tmp_path, "b", "a")], {"a": "7", "b": "8"}, T)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def never(report: Report) -> None:
    raise AssertionError("a page is shown where lines are")


def a_report(made: Submission, states: Sequence[str], texts: Sequence[str] = ("", ""), *problems: str) -> Report:
    found = [State(n, None, state, text) for n, state, text in zip("ab", states, texts, strict=True)]
    return made, Snapshot(T, queue=None if problems else {}, problems=problems), found, summary_of(found, made.root)


def test_a_line_for_each_change(two: Submission, capsys: pytest.CaptureFixture[str]) -> None:
    waits = "it waits for a"
    told = [
        a_report(two, ("running", "waiting"), ("step 3", waits)),
        a_report(two, ("running", "waiting"), ("step 9", waits)),
        a_report(two, ("running", "waiting"), ("step 12", waits), AWAY),
        a_report(two, ("done", "waiting"), ("finished", "it is the next; Slurm expects it about 12:00")),
        a_report(two, ("done", "waiting"), ("finished", "it is the next; Slurm expects it about 12:05")),
        a_report(two, ("done", "failed"), ("finished", "rank 1 said \x1b[2J")),
    ]
    rounds = Rounds(lambda: [two.root], lambda root: told.pop(0))
    assert watch(rounds, page, show=never) == 1
    assert told == [], "it ends with the last job"
    lines = [line.split(None, 1)[1] for line in capsys.readouterr().out.splitlines()]
    words = [" ".join(line.split()[:3]) for line in lines]
    assert words == [
        "a running step", "b waiting it", "running: 1 running,",
        "note: the controller",
        "a done finished", "b waiting it", "waiting: 1 done,", "no longer: the",
        "b failed rank", "failed: b: rank",
    ]  # fmt: skip
    assert lines[8].endswith("rank 1 said \\x1b[2J"), "a rank's words do not steer the terminal"


def test_lines_of_json(two: Submission) -> None:
    lines = Objects(as_json)
    first = a_report(two, ("running", "waiting"), ("step 3", ""))
    assert [json.loads(line)["state"] for line in lines([first], ())] == ["running"]
    assert list(lines([a_report(two, ("running", "waiting"), ("step 5", ""))], ())) == []
    (line,) = lines([a_report(two, ("running", "waiting"), ("step 5", ""))], ("cannot read it",))
    assert json.loads(line)["problems"] == ["cannot read it"]


@pytest.mark.parametrize("state", ["stuck", "unknown", "requeued", "ending", "waiting"])
def test_what_has_not_ended(two: Submission, state: str) -> None:
    assert not over([a_report(two, ("done", state))])
    assert over([a_report(two, ("done before", "cancelled"))])


def test_a_folder_that_cannot_be_read_for_a_while(two: Submission, tmp_path: Path) -> None:
    """The last report stands meanwhile, and an end that it shows is believed only once the folder is back."""
    hidden = tmp_path / "hidden"

    def look(root: Path) -> Report:
        if hidden.exists():
            raise OSError(errno.ESTALE, "Stale file handle", str(root))
        return a_report(two, ("done", "done"))

    rounds = Rounds(lambda: [two.root], look)
    hidden.touch()
    assert rounds.next() == [], "storage that comes back is waited for from the start"
    assert rounds.problems == (f"cannot read {two.root}: Stale file handle",)
    hidden.unlink()
    seen = []

    def lines(reports: Sequence[Report], problems: Sequence[str]) -> list[str]:
        seen.append(problems)
        hidden.unlink(missing_ok=True)
        return []

    assert len(rounds.next()) == 1
    hidden.touch()
    assert watch(rounds, page, show=never, lines=lines) == 0
    assert [len(problems) for problems in seen] == [1, 0]


def test_what_no_time_mends_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no submission"):
        status_verb([str(tmp_path), "--watch"])


def test_a_chain_that_vanishes_has_not_ended(two: Submission) -> None:
    found = [two.root]
    rounds = Rounds(lambda: found, lambda root: a_report(two, ("done", "running")))
    rounds.next()
    found.clear()
    assert len(rounds.next()) == 1


def test_interrupt(two: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.setattr(slurm, "ask", lambda *a: Snapshot(T, problems=(AWAY,)))
    assert status_verb([str(two.root), "--watch"]) == 130
    assert f"note: {AWAY}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "period"),
    [
        (["--watch", "ROOT"], 10),
        (["ROOT", "--watch"], 10),
        (["ROOT", "--watch", "3"], 3),
        (["--watch=3", "ROOT"], 3),
        (["--watch", "--json", "ROOT"], 10),
    ],
)
def test_the_period(two: Submission, words: list[str], period: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bingo.launch.status.command.watch", lambda rounds, page, every, **_: every)
    assert status_verb([word.replace("ROOT", str(two.root)) for word in words]) == period
    for wrong in ("0", "1.5"):
        with pytest.raises(UserError, match=f"--watch: '{wrong}' is not "):
            status_verb([str(two.root), "--watch", wrong])


def test_a_terminal_that_changes_its_size(two: Submission, tmp_path: Path) -> None:
    """The real command on a terminal, without a Slurm: the page is redrawn, and the end is left standing."""
    main, follower = pty.openpty()
    environment = {**os.environ, "PATH": "/nowhere", "TERM": "xterm", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "bingo", "status", str(two.root), "--watch", "1"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=follower, stderr=follower) as process:
        os.close(follower)
        assert "\x1b[?1049h" in _until(main, "no Slurm here"), "a screen of its own"
        ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 44, 0, 0))
        process.send_signal(signal.SIGWINCH)
        for name in ("7", "8"):
            end = {"time": T + 9, "rc": 0, "decision": 0, "then": "", "cause": {"kind": "done", "sentence": "finished"}}
            attempt(two, "a" if name == "7" else "b", f"{name}-0", begin={"time": T + 1, "nodes": "c1"}, end=end)
        assert "done: 2 done" in _until(main, "no Slurm here", "\x1b[?1049l", "done: 2 done")
        assert process.wait(60) == 0
    os.close(main)


def _until(descriptor: int, *wanted: str) -> str:
    """What the terminal shows until it has shown all of these, one after the other."""
    said, place = "", 0
    for text in wanted:
        while (found := said.find(text, place)) < 0:
            said += os.read(descriptor, 65536).decode(errors="replace")
        place = found + len(text)
    return said
