"""The judge of `bingo status` itself: it lets the truth pass and nothing else."""

from typing import Any

import pytest

from tests.cluster.truth import AWAY, Seen, lies

pytestmark = pytest.mark.quick


def said(at: float, state: str, attempts: int = 1, whole: str = "running") -> Seen:
    job: dict[str, Any] = {"state": state, "text": "", "attempts": attempts}
    return Seen(at, status={"time": at, "state": whole, "problems": [], "jobs": [job]})


SLURM = [
    *(Seen(t, "PENDING") for t in (0.0, 1.0)),
    *(Seen(t, "RUNNING") for t in (2.0, 4.0, 6.0, 8.0)),
    *(Seen(t, "PENDING", 1) for t in (10.0, 12.0, 14.0)),
    *(Seen(t, "RUNNING", 1) for t in (16.0, 18.0, 20.0)),
    *(Seen(t, "COMPLETED", 1) for t in (22.0, 24.0, 30.0)),
]
END = said(30.0, "done", 2, "done")


def test_the_truth() -> None:
    told = [said(0.5, "waiting", 0, "waiting"), said(6.0, "running"), said(12.0, "requeued", 1, "waiting"), END]
    assert lies([*SLURM, *told]) == []
    assert lies([*SLURM, said(9.0, "ending"), said(9.0, "requeued", 1, "waiting"), END]) == [], (
        "at a change both may be"
    )


def test_lies() -> None:
    for told, wrong in (
        (said(6.0, "failed", 1, "failed"), "status says failed"),
        (said(6.0, "done", 1, "done"), "status says done"),
        (said(12.0, "running", 1), "where Slurm says PENDING"),
        (said(12.0, "cancelled", 1, "cancelled"), "status says cancelled"),
        (said(18.0, "requeued", 1, "waiting"), "where Slurm says RUNNING"),
        (said(6.0, "running", 3), "counts 3 attempts"),
        (Seen(6.0, status={"error": "exit 1"}), "status broke"),
    ):
        found = lies([*SLURM, told, END])
        assert found, told
        assert wrong in found[0]
    assert lies([*SLURM, said(30.0, "running", 2)])[-1] == "in the end status says running"
    assert lies(SLURM) == ["in the end status says never asked"]


def test_an_end_that_is_no_success() -> None:
    stopped = [look if look.state != "COMPLETED" else Seen(look.time, "FAILED", 1) for look in SLURM]
    assert lies([*stopped, said(6.0, "running"), said(30.0, "failed", 2, "failed")], "failed") == []
    assert lies([*stopped, said(18.0, "failed", 2, "failed"), said(30.0, "failed", 2, "failed")], "failed")
    assert lies([*stopped, END], "failed")[-1] == "in the end status says done"


def test_a_job_that_was_sent_again_has_started_before() -> None:
    once = [look for look in SLURM if not look.restarts]
    told = [said(0.5, "waiting", 3, "waiting"), said(6.0, "running", 4)]
    assert lies([*once, *told, Seen(9.0, "COMPLETED"), said(10.0, "done", 4, "done")], before=3) == []
    assert len(lies([*once, *told, Seen(9.0, "COMPLETED"), said(10.0, "done", 4, "done")])) == 3


def test_while_the_controller_is_away_the_suite_may_not_know() -> None:
    away = [Seen(look.time, AWAY, look.restarts) if 6 <= look.time <= 16 else look for look in SLURM]
    unknown = said(12.0, "unknown", 1, "unknown")
    assert unknown.status is not None
    unknown.status["problems"].append("squeue gives no answer")
    assert lies([*away, unknown, END]) == []
    assert len(lies([*SLURM, unknown, END])) == 3
    assert lies([*away, said(12.0, "failed", 1, "failed"), END]), "it has not failed"
