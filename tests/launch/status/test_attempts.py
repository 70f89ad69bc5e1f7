"""Attempts of a job: what ranks wrote, joined with what the accounting knows."""

from pathlib import Path

import pytest

from bingo.launch.cluster.slurm import Row
from bingo.launch.job.records import read_records
from bingo.launch.status.attempts import read_attempts
from tests.support.submissions import attempt, job, submission

pytestmark = pytest.mark.quick
T = 1_795_522_000.0


def test_records_and_rows_of_one_start_are_joined(tmp_path: Path) -> None:
    """The first start is in both, the second in the accounting alone, the third has written its records alone."""
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, T)
    started = {"time": T + 12, "event": "start", "host": "c1", "pid": 1}
    attempt(made, "one", "7-0", begin={"time": T + 11, "nodes": "c[1-2]"}, events={0: [started]})
    attempt(made, "one", "7-2", begin={"time": T + 90}, end={"time": T + 95, "decision": 75, "then": "it starts again"})
    rows = (
        Row("7", "NODE_FAIL", "", T, T, T + 10, T + 60, 0, "c[1-2]"),
        Row("7", "TIMEOUT", "", T + 60, T + 70, T + 75, T + 80, 1, "c3"),
    )
    first, second, third = read_attempts(made.job_folder("one"), made.sent(), None, {"7": rows})
    assert [found.restart for found in (first, second, third)] == [0, 1, 2]
    assert (first.started, first.last_sign, first.ended, first.nodes) == (T + 10, T + 12, T + 60, "c[1-2]")
    assert (second.folder, second.nodes, second.last_sign, second.main) == (None, "c3", None, ())
    assert (third.started, third.ended, third.decision, third.then) == (T + 90, T + 95, 75, "; it starts again")


def test_rows_of_an_older_job_with_the_same_id_are_left_out(tmp_path: Path) -> None:
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, T)
    older = Row("7", "COMPLETED", "", T - 9_000, T - 9_000, T - 8_000, T - 7_000)
    assert read_attempts(made.job_folder("one"), made.sent(), None, {"7": (older,)}) == []


def test_only_the_tasks_own_starts(tmp_path: Path) -> None:
    made = submission(tmp_path, [job(tmp_path, "many", tasks=2)], {"many": "7"}, T)
    for folder in ("7_0-0", "7_1-0", "7_1-1"):
        attempt(made, "many", folder, begin={"time": T})
    assert [a.restart for a in read_attempts(made.job_folder("many"), made.sent(), 1, None)] == [0, 1]


def test_of_earlier_starts_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is known; a job of many starts is then as quick to look at as one of two."""
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, T)
    made.record("one", "9", [0], 1)
    cause = {"kind": "killed", "sentence": "rank 1 was killed", "rank": 1, "node": "c1", "step": 9}
    end = {"time": T + 95, "decision": 75, "then": "it starts again", "cause": cause}
    started = {"time": T + 12, "event": "start", "host": "c1", "pid": 1}
    for folder, known in (("7-0", end), ("7-1", None), ("9-0", end), ("9-1", end)):
        attempt(made, "one", folder, begin={"time": T + 11}, end=known, events={0: [started]})
    (made.job_folder("one") / "attempts" / "7-1" / "rank-0.beat").write_bytes(bytes(160))
    read, whole = [], read_records
    monkeypatch.setattr(
        "bingo.launch.status.attempts.read_records", lambda folder: read.append(folder.name) or whole(folder)
    )
    found = read_attempts(made.job_folder("one"), made.sent(), None, None, newest=True)
    assert read == ["7-1", "9-1"]
    all_of_it = read_attempts(made.job_folder("one"), made.sent(), None, None)
    assert read[2:] == ["7-0", "7-1", "9-0", "9-1"]
    assert [a.restart for a in found] == [0, 1, 0, 1]
    assert [(a.cause(), a.ended, a.decision, a.notes) for a in found] == [
        (a.cause(), a.ended, a.decision, a.notes) for a in all_of_it
    ]
    assert [len(a.notes) for a in found] == [0, 1, 0, 0]
