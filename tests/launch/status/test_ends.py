"""What status and history say of a job that somebody ended: rows and logs as a real Slurm 22.05 left them."""

from pathlib import Path

import pytest

from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.status.history import ledger
from bingo.launch.status.states import State, states
from bingo.launch.submit.submission import Submission
from tests.support.submissions import attempt, job, submission

pytestmark = pytest.mark.quick
T = 1_795_522_000.0
LEFT = [
    {"time": T + 10, "event": "start", "host": "c1", "pid": 1},
    {"time": T + 20, "event": "stage", "name": "stage of one"},
    {"time": T + 40, "event": "left", "step": 45, "signal": "SIGTERM"},
]
LOG = """bingo: attempt 0 on c[1-2]
slurmstepd-c1: error: *** JOB 7 ON c1 CANCELLED AT 2026-11-29T13:39:22 ***
srun: error: c2: task 1: Exited with exit code 75
srun: error: c1: task 0: Exited with exit code 75
"""
CANCELLED = {"kind": "cancelled", "sentence": "the job was cancelled; ranks had not left yet"}
KILLED = Row("7", "FAILED", "JobLaunchFailure", T, T, T + 1, T + 41, 0, "c[1-2]", 0, 9)


@pytest.fixture
def made(tmp_path: Path) -> Submission:
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, T)
    attempt(made, "one", "7-0", begin={"time": T + 9, "host": "c1", "nodes": "c[1-2]"}, events={0: LEFT})
    (made.job_folder("one") / "7_batch.log").write_text(LOG)
    return made


def told(made: Submission, row: Row, past: bool = False) -> State:
    """By squeue's memory, or by the accounting alone."""
    snapshot = Snapshot(T + 60, T, {} if past else {"7": row}, {"7": (row,)} if past else None)
    return states(made, snapshot, T + 60)[0]


@pytest.mark.parametrize("past", [False, True])
def test_a_batch_shell_that_was_killed_alone(made: Submission, past: bool) -> None:
    """slurmstepd says "CANCELLED" of its job; nobody cancelled it, and nobody starts it again."""
    state = told(made, KILLED, past)
    assert state.cause is not None
    assert (state.state, state.cause["kind"]) == ("failed", "killed")
    assert state.text == "its batch script was killed by signal 9; ranks left after step 45"
    if past:
        assert ledger(made, {"7": (KILLED,)}, T + 60)[0].cause == state.cause


def test_a_rank_that_failed_before_the_batch_shell_was_killed(made: Submission) -> None:
    failed = {"time": T + 30, "event": "failed", "kind": "exception", "error": "ValueError: x", "step": 4}
    attempt(made, "one", "7-0", events={0: LEFT[:2], 1: [failed]})
    assert told(made, KILLED).text.startswith("rank 1 failed after step 4: ValueError: x")


def test_term_to_shell_and_ranks(made: Submission) -> None:
    """`scancel --full --signal=TERM`: Slurm calls it FAILED; it was to start again neither then nor before."""
    attempt(made, "one", "7-0", end={"time": T + 41, "rc": 137, "decision": 65, "then": "", "cause": CANCELLED})
    state = told(made, Row("7", "FAILED", "NonZeroExitCode", T, T, T + 1, T + 41, 0, "c[1-2]", 137))
    assert (state.state, state.text) == ("cancelled", CANCELLED["sentence"])


@pytest.mark.parametrize("kind", ["CANCELLED", "REQUEUED"])
def test_cancelled_after_a_requeue(made: Submission, kind: str) -> None:
    cause = {"kind": "left", "sentence": "asked to leave by SIGUSR2; ranks left after step 45"}
    attempt(made, "one", "7-0", end={"time": T + 41, "rc": 75, "decision": 75, "then": "x", "cause": cause})
    state = told(made, Row("7", kind, "", T, T, T + 1, T + 45, 0), past=True)
    assert (state.state, state.text) == ("cancelled", cause["sentence"] + "; it was cancelled before it started again")


def test_a_requeued_job_that_was_cancelled_while_it_waited(made: Submission) -> None:
    """The accounting gives its second row a time of start, and no nodes: there was no second start."""
    cause = {"kind": "requeued", "sentence": "the job was requeued by hand; ranks left after step 45"}
    attempt(made, "one", "7-0", end={"time": T + 41, "rc": 75, "decision": 75, "then": "x", "cause": cause})
    past = (
        Row("7", "REQUEUED", "", T, T, T + 1, T + 41, 0, "c[1-2]"),
        Row("7", "CANCELLED", "", T + 41, T + 48, T + 45, T + 45, 1),
    )
    queue = {"7": Row("7", "CANCELLED", "", T + 41, T + 48, T + 45, T + 45, 1)}
    for rows in (queue, {}):
        state = states(made, Snapshot(T + 60, T, rows, {"7": past}), T + 60)[0]
        assert (state.state, state.attempts) == ("cancelled", 1)
        assert state.text == cause["sentence"] + "; it was cancelled before it started again"
    assert len(ledger(made, {"7": past}, T + 60)) == 1


def test_a_plain_scancel(made: Submission) -> None:
    cause = {"kind": "cancelled", "sentence": "the job was cancelled; ranks left after step 45"}
    attempt(made, "one", "7-0", end={"time": T + 41, "rc": 75, "decision": 65, "then": "", "cause": cause})
    state = told(made, Row("7", "CANCELLED", "", T, T, T + 1, T + 41, 0, "c[1-2]"))
    assert (state.state, state.text) == ("cancelled", cause["sentence"])
