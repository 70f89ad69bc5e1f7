"""The verbs `status` and `history`, and the submission that they mean."""

import json
import time
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Snapshot
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
    assert list(said) == ["root", "submission", "attempts", "totals"]
    assert [entry["steps_lost"] for entry in said["attempts"]] == [3, 0]
    assert history_verb([str(made.root), "two"]) == 0
    assert capsys.readouterr().out == "nothing has started yet\n"
    with pytest.raises(UserError, match="has no job 'tow'; did you mean 'two'"):
        history_verb([str(made.root), "tow"])
