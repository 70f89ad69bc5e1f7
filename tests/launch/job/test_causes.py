"""The root cause of an attempt, from what ranks recorded and from lines as Slurm 22.05, gloo and torch wrote them."""

from collections.abc import Sequence
from typing import Any

import pytest

from bingo.launch.job.causes import Beat, find_cause, read_lines

pytestmark = pytest.mark.quick

HOSTS = ("c1", "c2", "c3")
CLOSED = (
    "RuntimeError: [/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:147: "
    "Connection reset by peer. This is typically caused by a remote worker hanging or bugs in the application."
)
WAITED = (
    "RuntimeError: [/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] "
    "Timed out waiting 20000ms for recv operation to complete"
)
FULL = "TransientError: cannot write x.pt: No space left on device; free space or choose another folder"
NOTHING_WRITTEN = "rank 0: it could not write, not even a record of that: the disk is full, or its storage away"
CUT = "the ranks lost their connections between c1, c2 after step 34, and none of them had failed"
TERMINATING = "srun: launch/slurm: _step_signal: Terminating StepId=39.0"
REQUEUED = [
    "slurmstepd-c1: error: *** JOB 9 ON c1 CANCELLED AT 2026-11-24T11:57:49 DUE TO JOB REQUEUE ***",
    "srun: Job step aborted: Waiting up to 12 seconds for job step to finish.",
    "srun: got SIGCONT",
    "srun: forcing job termination",
    "srun: error: c2: task 1: Exited with exit code 75",
    "srun: launch/slurm: _step_signal: Terminating StepId=9.0",
    "srun: error: c1: task 0: Exited with exit code 75",
]


def ended(how: str) -> list[str]:
    """The lines of a requeue by hand, with another reason."""
    return [line.replace(" DUE TO JOB REQUEUE", how) for line in REQUEUED]


def failed(time: float, kind: str, error: str, step: int = 0) -> dict[str, Any]:
    return {"time": time, "event": "failed", "kind": kind, "error": error, "step": step, "stage": "distill"}


def left(step: int | None, signal: str = "SIGTERM") -> dict[str, Any]:
    return {"time": 5.0, "event": "left", "step": step, "signal": signal}


def ranks(*last: dict[str, Any] | None) -> dict[int, list[dict[str, Any]]]:
    """Events of ranks that started, and the last event of each."""
    return {
        rank: [{"time": 0.1, "event": "start", "host": HOSTS[rank], "pid": 7}, *([event] if event else [])]
        for rank, event in enumerate(last)
    }


def beats(*steps: int) -> dict[int, Beat]:
    return {rank: Beat(step, 4.0, "distill") for rank, step in enumerate(steps)}


TABLE = [
    (
        "the exception of rank 1, not what it does to rank 0, which is seen earlier",
        ranks(failed(4.0, "peer", CLOSED, 37), failed(4.1, "exception", "KeyError: 'x'", 37)),
        ["srun: error: c1: task 0: Exited with exit code 70", TERMINATING],
        70,
        ("exception", 1, "c2", "rank 1 on c2 failed after step 37: KeyError: 'x'"),
    ),
    (
        "a killed rank says nothing; srun does",
        ranks(failed(4.0, "peer", CLOSED, 48), None),
        ["srun: error: c2: task 1: Killed", TERMINATING, "srun: error: c1: task 0: Exited with exit code 70"],
        137,
        ("killed", 1, "c2", "rank 1 on c2 was killed (SIGKILL) after step 48"),
    ),
    (
        "whom srun killed because of another is not to blame",
        ranks(None, failed(3.0, "exception", "ValueError: y", 3)),
        [
            "srun: error: c2: task 1: Exited with exit code 70",
            TERMINATING,
            "srun: error: c1: task 0: Killed",
            "srun: Force Terminated StepId=15.0",
        ],
        137,
        ("exception", 1, "c2", "rank 1 on c2 failed after step 3: ValueError: y"),
    ),
    (
        "without srun's lines a rank that ended without a word is to blame",
        ranks(failed(4.0, "peer", CLOSED, 48), None),
        [],
        None,
        ("killed", 1, "c2", "rank 1 on c2 ended without a word (killed?) after step 48"),
    ),
    (
        "a crash of the interpreter",
        ranks(None, failed(4.0, "peer", CLOSED, 48)),
        ["srun: error: c1: task 0: Segmentation fault (core dumped)", TERMINATING],
        139,
        ("killed", 0, "c1", "rank 0 on c1 was killed (SIGSEGV) after step 48"),
    ),
    (
        "the hung rank wakes when srun ends it and then misses the others",
        ranks(failed(24.0, "peer", WAITED, 34), failed(24.2, "peer", CLOSED, 34)),
        ["srun: error: c1: task 0: Exited with exit code 70", TERMINATING],
        70,
        ("hang", 1, "c2", "rank 1 on c2 hung after step 34: rank 0 waited for it in vain"),
    ),
    (
        "of three ranks the one that had to be killed hung",
        ranks(failed(24.0, "peer", WAITED, 48), None, failed(24.1, "peer", WAITED, 48)),
        [
            "srun: error: c1: task 0: Exited with exit code 70",
            TERMINATING,
            "srun: error: c3: task 2: Exited with exit code 70",
            "srun: error: c2: task 1: Killed",
        ],
        137,
        ("hang", 1, "c2", "rank 1 on c2 hung after step 48: rank 0 waited for it in vain"),
    ),
    (
        "a node that is gone: srun waits for its rank and gives up",
        ranks(failed(4.0, "peer", CLOSED, 34), None),
        [
            "srun: error: c1: task 0: Exited with exit code 70",
            TERMINATING,
            "srun: First task exited 20s ago",
            "srun: StepId=49.0 task 1: running",
            "srun: StepId=49.0 task 0: exited abnormally",
            TERMINATING,
            "srun: Job step aborted: Waiting up to 12 seconds for job step to finish.",
            "srun: error: Timed out waiting for job step to complete",
        ],
        70,
        ("node lost", 1, "c2", "rank 1 on c2 was lost with its node after step 48"),
    ),
    (
        "memory",
        ranks(failed(4.0, "peer", CLOSED, 48), None),
        [
            "slurmstepd: error: Detected 1 oom_kill event in StepId=39.0. Some of the step tasks have been OOM Killed.",
            "srun: error: c2: task 1: Out Of Memory",
            TERMINATING,
        ],
        137,
        ("out-of-memory", 1, "c2", "rank 1 on c2 ran out of memory and was killed after step 48"),
    ),
    (
        "a full disk",
        ranks(failed(3.0, "transient", FULL, 21), failed(4.0, "peer", CLOSED, 22)),
        ["srun: error: c1: task 0: Exited with exit code 74", TERMINATING],
        74,
        ("disk full", 0, "c1", f"rank 0 on c1 stopped after step 21: {FULL.split(': ', 1)[1]}"),
    ),
    (
        "a disk so full that nothing is recorded",
        {},
        ["srun: error: c1: task 0: Exited with exit code 74", TERMINATING],
        74,
        ("disk full", 0, "c1", NOTHING_WRITTEN),
    ),
    (
        "the same, read later: the script itself has requeued the job",
        {},
        [
            "srun: error: c1: task 0: Exited with exit code 74",
            TERMINATING,
            f"bingo: {NOTHING_WRITTEN}; it starts again",
            "slurmstepd-c1: error: *** JOB 111 ON c1 CANCELLED AT 2026-11-24T13:38:39 DUE TO JOB REQUEUE ***",
        ],
        None,
        ("disk full", 0, "c1", NOTHING_WRITTEN),
    ),
    (
        "a mistake of the user on all ranks",
        ranks(failed(1.0, "user", "UserError: no such file x"), failed(1.1, "user", "UserError: no such file x")),
        ["srun: error: c1: task 0: Exited with exit code 65", TERMINATING],
        65,
        ("user", 0, "c1", "no such file x"),
    ),
    (
        "left together when asked to",
        ranks(left(265, "SIGUSR2"), left(265, "SIGUSR2")),
        ["srun: error: c2: task 1: Exited with exit code 75", TERMINATING],
        75,
        ("left", None, None, "asked to leave by SIGUSR2; ranks left after step 265"),
    ),
    (
        "asked before Python could hear it",
        ranks(None, None),
        ["srun: error: c2: task 1: User defined signal 2", TERMINATING, "srun: error: c1: task 0: Killed"],
        140,
        ("left", 1, "c2", "rank 1 on c2 left before it had started"),
    ),
    (
        "requeued by hand",
        ranks(left(60), left(60)),
        REQUEUED,
        75,
        ("requeued", None, None, "the job was requeued by hand; ranks left after step 60"),
    ),
    (
        "preempted, and nobody could leave",
        ranks(None, None),
        ended(" DUE TO PREEMPTION")[:4],
        143,
        ("preempted", None, None, "Slurm preempted the job; ranks had not left yet"),
    ),
    (
        "the time limit",
        ranks(None, None),
        ended(" DUE TO TIME LIMIT")[:4],
        143,
        ("time limit", None, None, "the time limit was reached; ranks had not left yet"),
    ),
    (
        "scancel",
        ranks(left(77), left(77)),
        ended(""),
        75,
        ("cancelled", None, None, "the job was cancelled; ranks left after step 77"),
    ),
    (
        "an exception is the cause even of a job that is cancelled while it falls",
        ranks(failed(4.0, "exception", "KeyError: 'x'", 37), None),
        ["srun: error: c1: task 0: Exited with exit code 70", TERMINATING, *ended("")[:4]],
        143,
        ("exception", 0, "c1", "rank 0 on c1 failed after step 37: KeyError: 'x'"),
    ),
    (
        "srun's SIGTERM after the failure of another is nobody's wish",
        ranks(failed(4.0, "peer", CLOSED), {**left(None), "time": 4.5}),
        [
            "srun: error: c1: task 0: Exited with exit code 70",
            TERMINATING,
            "srun: error: c2: task 1: Exited with exit code 75",
        ],
        75,
        ("peer only", 0, "c1", f"rank 0 on c1 lost its connection to the others ({CLOSED[:200]})"),
    ),
    (
        "and no rank that it killed during its imports wished for anything",
        ranks(failed(4.0, "peer", CLOSED), None),
        ["srun: error: c2: task 1: Terminated", TERMINATING],
        143,
        ("killed", 1, "c2", "rank 1 on c2 ended without a word (killed?) after step 48"),
    ),
    (
        "asked first, and then missed by the others",
        ranks({**left(None), "time": 4.0}, failed(4.5, "peer", CLOSED)),
        [],
        75,
        ("left", None, None, "asked to leave by SIGTERM; ranks left before any step"),
    ),
    (
        "a network cut: all waited, and none hung",
        ranks(failed(24.0, "peer", WAITED, 34), failed(24.2, "peer", WAITED, 34)),
        ["srun: error: c1: task 0: Exited with exit code 70", TERMINATING],
        70,
        (
            "network",
            None,
            None,
            f"{CUT} ({WAITED[:200]})",
        ),
    ),
    (
        "connections that were cut on both sides",
        ranks(failed(24.0, "peer", CLOSED, 34), failed(24.2, "peer", CLOSED, 34)),
        [],
        70,
        (
            "network",
            None,
            None,
            f"{CUT} ({CLOSED[:200]})",
        ),
    ),
    (
        "a port that another program has",
        ranks(
            failed(
                1.0, "transient", "TransientError: RANK=0 cannot listen on MASTER_PORT=15360: address already in use"
            ),
            None,
        ),
        [],
        74,
        ("machine", 0, "c1", "rank 0 on c1 stopped: RANK=0 cannot listen on MASTER_PORT=15360: address already in use"),
    ),
    (
        "an interpreter that is not there, as slurmstepd says it",
        {},
        [
            "slurmstepd-c2: error: execve(): /opt/python: No such file or directory",
            "srun: error: c2: task 1: Exited with exit code 2",
        ],
        2,
        ("machine", None, None, "the interpreter /opt/python cannot be started on c2: No such file or directory"),
    ),
    (
        "the same, as the shell says it of its helper",
        {},
        ["/var/spool/slurmd/job00012/slurm_script: line 31: /opt/python: No such file or directory"],
        None,
        ("machine", None, None, "the interpreter /opt/python cannot be started: No such file or directory"),
    ),
    (
        "ranks had an interpreter, and the script's helper after them had none",
        ranks(failed(4.0, "peer", CLOSED, 48), None),
        [
            "srun: error: c2: task 1: Killed",
            TERMINATING,
            "/var/spool/slurmd/job00012/slurm_script: line 31: /opt/python: No such file or directory",
            "bingo: its helper ended with status 127; it starts again",
            "slurmstepd-c1: error: *** JOB 9 ON c1 CANCELLED AT 2026-11-24T11:57:49 DUE TO JOB REQUEUE ***",
        ],
        None,
        ("killed", 1, "c2", "rank 1 on c2 was killed (SIGKILL) after step 48"),
    ),
    (
        "no controller that gives a step",
        {},
        ["srun: error: Unable to create step for job 12: Unable to contact slurm controller (connect failure)"],
        1,
        (
            "controller",
            None,
            None,
            "Slurm's controller started no ranks: Unable to contact slurm controller (connect failure)",
        ),
    ),
    (
        "a log that Slurm cannot open",
        {},
        [
            "slurmstepd-c1: error: Could not open stdout file /r/12_0_log.out: Read-only file system",
            "srun: error: c1: task 0: Exited with exit code 1",
        ],
        1,
        (
            "storage",
            None,
            None,
            "Slurm cannot write a log: Could not open stdout file /r/12_0_log.out: Read-only file system",
        ),
    ),
    (
        "a line of setup that failed, where nothing else explains the end",
        ranks(failed(1.0, "exception", "ModuleNotFoundError: No module named 'torch'"), None),
        ["bingo: a line of setup failed: module load x (status 1)"],
        70,
        (
            "exception",
            0,
            "c1",
            "rank 0 on c1 failed: ModuleNotFoundError: No module named 'torch'; before it a line of "
            "setup had failed: module load x (status 1)",
        ),
    ),
    ("finished", ranks(None, None), [], 0, ("done", None, None, "finished")),
    (
        "nothing known",
        {},
        [],
        1,
        ("unknown", None, None, "it ended with status 1; nothing is recorded (is the disk full?)"),
    ),
]


@pytest.mark.parametrize(("events", "lines", "rc", "expected"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_cause(events: Any, lines: Sequence[str], rc: int | None, expected: tuple[Any, ...]) -> None:
    steps = [e[-1].get("step") or 48 for e in events.values()]
    cause = find_cause(events, beats(*steps), lines, rc=rc)
    assert (cause.kind, cause.rank, cause.node, cause.sentence) == expected


def test_a_node_that_took_the_batch_script_along() -> None:
    """No status and no lines: only Slurm's records know."""
    assert find_cause(ranks(None, None), beats(5, 5), state="NODE_FAIL").kind == "node lost"


def test_ranks_of_one_line() -> None:
    told = read_lines(["srun: error: n1: tasks 0,2-4: Killed", TERMINATING, "srun: error: n2: task 1: Killed"])
    assert [end.rank for end in told.exits] == [0, 2, 3, 4]


def test_slurm_kills_the_step_on_all_nodes_when_memory_runs_out_on_one() -> None:
    """Lines with JobAcctGatherParams=OverMemoryKill: only the rank's own log says whose memory it was."""
    lines = [
        "slurmstepd-c1: error: Exceeded job memory limit",
        "srun: Job step aborted: Waiting up to 12 seconds for job step to finish.",
        "srun: error: c1: task 0: Killed",
        "srun: launch/slurm: _step_signal: Terminating StepId=47.0",
        "srun: error: c2: task 1: Killed",
    ]
    said = "slurmstepd-c2: error: StepId=47.0 exceeded memory limit (617455616 > 346030080), being killed"
    cause = find_cause(ranks(None, None), beats(5, 5), lines, rc=137, logs={0: [], 1: [said]})
    assert cause.sentence == "rank 1 on c2 ran out of memory and was killed after step 5"
