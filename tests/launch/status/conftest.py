"""Shared by the tests of status, history and logs: two chains."""

from pathlib import Path

import pytest

from bingo.launch.submit.submission import Submission
from tests.support.submissions import attempt, job, submission
from tests.support.two_chains import IDS, SENT, T, event


@pytest.fixture
def chain(tmp_path: Path) -> Submission:
    jobs = [job(tmp_path, name) for name in ("big", "fails")]
    jobs += [job(tmp_path, "tail", "fails"), job(tmp_path, "never", "fails"), job(tmp_path, "arr", tasks=4)]
    jobs += [job(tmp_path, name) for name in ("self", "hold", "nf", "victim")]
    return submission(tmp_path, jobs, IDS | {"victim": "44"}, SENT)


@pytest.fixture
def made(tmp_path: Path) -> Submission:
    """A job whose node went down at step 13 (checkpoints at 5 and 10), which then went on and left at step 20."""
    made = submission(tmp_path, [job(tmp_path, "one"), job(tmp_path, "two", "one")], {"one": "7", "two": "8"}, T)
    first = [
        event(12, "start", host="c1", pid=1), event(18, "stage", name="stage of one"), event(20, "step", step=1),
        event(30, "checkpoint", step=5, seconds=2.0), event(40, "checkpoint", step=10, seconds=3.0),
    ]  # fmt: skip
    begin = {"time": T + 11, "host": "c1", "nodes": "c[1-2]", "restart": 0}
    attempt(made, "one", "7-0", begin=begin, events={0: first}, beat=f"13 {T + 50:.3f} stage of one")
    second = [
        event(78, "start", host="c1", pid=1), event(80, "stage", name="stage of one"),
        event(82, "resumed", step=10), event(85, "step", step=11), event(105, "checkpoint", step=20, seconds=4.0),
        event(105, "left", step=20, signal="SIGUSR2"),
    ]  # fmt: skip
    end = {"time": T + 110, "rc": 75, "decision": 75, "cause": {"kind": "left", "sentence": "asked to leave"}}
    attempt(made, "one", "7-1", begin={"time": T + 76, "nodes": "c[1-2]"}, end=end, events={0: second})
    return made
