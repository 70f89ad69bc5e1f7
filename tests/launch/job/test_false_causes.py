"""What a batch log holds beside the cause: warnings, words of `setup`; and what a rank said that recorded nothing."""

from typing import Any

import pytest

from bingo.launch.job.causes import Beat, find_cause

pytestmark = pytest.mark.quick

TERMINATING = "srun: launch/slurm: _step_signal: Terminating StepId=39.0"


def started(rank: int, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"time": 0.1, "event": "start", "host": f"c{rank + 1}", "pid": 7}, *more]


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-c1: error: unable to open file /sys/fs/cgroup/slurm/tasks: No such file or directory",
        "srun: error: Unable to create step for job 12: Socket timed out on send/recv operation",
        "/tmp/job12/slurm_script: line 5: /etc/profile.d/x.sh: No such file or directory",
        "watcher: 3 GiB free, not out of memory yet",
        "watcher: no oom-kill event so far",
    ],
)
def test_words_that_have_nothing_to_do_with_it(line: str) -> None:
    """Warnings, and what a line of setup prints from the background, while all ranks were at work."""
    stage = {"time": 0.5, "event": "stage", "name": "distill"}
    left = {"time": 5.0, "event": "left", "step": 40, "signal": "SIGTERM"}
    events = {0: started(0, stage), 1: started(1, stage, left)}
    lines = [line, "srun: error: c1: task 0: Killed", TERMINATING, "srun: error: c2: task 1: Exited with exit code 75"]
    cause = find_cause(events, {rank: Beat(40, 4.0, "distill") for rank in events}, lines, rc=137)
    assert (cause.kind, cause.rank, cause.sentence) == ("killed", 0, "rank 0 on c1 was killed (SIGKILL) after step 40")


def test_a_rank_that_recorded_nothing_has_its_last_words() -> None:
    lines = ["srun: error: c2: task 1: Exited with exit code 1", TERMINATING, "srun: error: c1: task 0: Terminated"]
    said = {1: "ImportError: libcudart.so.12: cannot open shared object file"}
    cause = find_cause({0: started(0)}, {}, lines, rc=143, said=said)
    assert (cause.kind, cause.rank, cause.node) == ("exception", 1, "c2")
    assert cause.sentence == f"rank 1: it ended with status 1; {said[1]}"
