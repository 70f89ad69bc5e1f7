"""The verbs `status` and `history`, and the submission that they mean."""

import json
import time
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.status.command import history as history_verb
from bingo.launch.status.command import status as status_verb
from bingo.launch.status.command import submission_of
from bingo.launch.submit.submission import Submission
from tests.support.submissions import job, submission
from tests.support.two_chains import PAST, SENT, T, recorded

pytestmark = pytest.mark.quick


def test_the_verb(chain: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[float, float]] = []

    def ask(since: float, newer: float, uid: int) -> Snapshot:
        asked.append((since, newer))
        return recorded("failed")

    monkeypatch.setattr(slurm, "ask", ask)
    assert status_verb([str(chain.root), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["root", "submission", "time", "state", "verdict", "next", "problems", "jobs"]
    assert asked == [(SENT, SENT)]
    assert status_verb([str(chain.root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["fails", "failed"]
    assert lines[-1] == f"next: bingo logs {chain.root} fails   or   bingo repair {chain.root}"


def test_several_submissions(tmp_path: Path) -> None:
    first = submission(tmp_path, [job(tmp_path, "one")], {}, SENT)
    time.sleep(0.01)
    second = submission(tmp_path, [job(tmp_path, "one")], {}, SENT)
    assert submission_of(tmp_path).id == second.id
    assert submission_of(tmp_path, first.id).id == first.id
    with pytest.raises(UserError, match="holds no submission 'x'"):
        submission_of(tmp_path, "x")
    with pytest.raises(UserError, match="holds no submission"):
        submission_of(tmp_path / "one")


def test_history_verb(made: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(slurm, "ask", lambda *a, **k: Snapshot(T + 120, T, {}, PAST))
    assert history_verb([str(made.root), "one", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["root", "submission", "attempts", "totals", "hours", "lost_to"]
    assert [entry["steps_lost"] for entry in said["attempts"]] == [3, 0]
    assert history_verb([str(made.root), "two"]) == 0
    assert capsys.readouterr().out == "nothing has started yet\n"
    with pytest.raises(UserError, match="has no job 'tow'; did you mean 'two'"):
        history_verb([str(made.root), "tow"])


def test_history_of_all_submissions(
    made: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "ask", lambda *a, **k: Snapshot(T + 120, T, {}, PAST))
    later = submission(made.root, [job(made.root, "one")], {}, T + 300)
    assert history_verb([str(made.root), "--all", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["root", "submissions", "hours", "lost_to"]
    assert [each["submission"] for each in said["submissions"]] == [made.id, later.id]
    assert said["hours"] == said["submissions"][0]["hours"]
    assert history_verb([str(made.root), "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-4]) == (f"submission {made.id}", "nothing has started yet")
    assert lines[-3].startswith("used 0.047 node hours; lost ")
    with pytest.raises(UserError, match="leave one of them out"):
        history_verb([str(made.root), "--all", "--submission", made.id])


def test_an_older_submission_and_a_damaged_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of two submissions in one root has its own jobs; what to type next goes on with the one that was asked for.
    A chain that cannot be read keeps no other one from being told of."""
    root = tmp_path / "runs" / "a"
    old = submission(root, [job(root, "one")], {"one": "7"}, SENT)
    made = submission(root, [job(root, "one")], {"one": "8"}, SENT)
    (tmp_path / "runs" / "b" / "submissions" / "1" / "jobs").mkdir(parents=True)
    with open(made.folder / "jobs.jsonl", "ab") as file:
        file.write(b"\0" * 9)
    queue = {"7": Row("7", "RUNNING", "", SENT, SENT, SENT), "8": Row("8", "FAILED", exit_code=3)}
    monkeypatch.setattr(slurm, "ask", lambda *a, **k: Snapshot(T, SENT, queue, {}))
    monkeypatch.chdir(tmp_path)
    assert status_verb(["runs/a"]) == 1
    out = capsys.readouterr().out
    assert f"note: {made.folder.relative_to(tmp_path)}/jobs.jsonl has 1 damaged line: " in out
    assert out.endswith("next: bingo logs runs/a one   or   bingo repair runs/a\n")
    assert status_verb(["runs/a", "--submission", old.id]) == 0
    out = capsys.readouterr().out
    assert "starting" in out
    assert "note:" not in out
    assert out.endswith(f"next: bingo logs runs/a -f --submission {old.id}\n")
    assert status_verb([]) == 1
    told = capsys.readouterr()
    assert f"runs/a  submission {made.id}, as of " in told.out
    assert "runs/b/submissions/1/submission.json does not exist" in told.err
