"""Whether `bingo status` told the truth, judged by what Slurm itself said between the suite's question and its answer.

Slurm is asked at most once per 10 s, while files are read for every answer: an answer may rest on both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NEAR_S = 1.5
"""The test looks a few times a second: what Slurm said so close before or after may be what the suite was told."""
AWAY = "AWAY"
"""In place of a state: the test has stopped Slurm's controller. The suite may say so, and that it does not know."""
ALLOWED = {
    "PENDING": {"waiting", "requeued"},
    "CONFIGURING": {"starting"},
    "RUNNING": {"starting", "running", "ending"},
    "COMPLETING": {"starting", "running", "ending"},
    "COMPLETED": {"done"},
    "FAILED": {"failed"},
    AWAY: {"waiting", "requeued", "starting", "running", "ending", "unknown"},
}
ALIVE = {"waiting", "running"}


@dataclass(frozen=True)
class Seen:
    """At a unix time: what Slurm said (state, restarts), or what `bingo status --json` said (status)."""

    time: float
    state: str = ""
    restarts: int = 0
    status: dict[str, Any] | None = None


def lies(seen: Sequence[Seen], end: str = "done", before: int = 0) -> list[str]:
    """Every false statement about a job that ends as it shall (`done` or `failed`), each once.

    before: how often it had started before it was sent again.
    """
    found = [lie for look in seen if look.status is not None for lie in lies_of(look, seen, before)]
    last = next((look.status for look in reversed(seen) if look.status is not None), {"state": "never asked"})
    if last.get("state") != end:
        found.append(f"in the end status says {last.get('state')}")
    return list(dict.fromkeys(found))


def lies_of(answer: Seen, seen: Sequence[Seen], before: int = 0) -> list[str]:
    """What is false in one answer: what Slurm said at no time between the suite's question to it and the answer."""
    status = answer.status or {}
    if "jobs" not in status:
        return [f"status broke: {status}"]
    first, last = status["time"] - NEAR_S, answer.time + NEAR_S
    slurm = [look for look in seen if look.state]
    near = [look for look in slurm if first <= look.time <= last]
    near += [look for look in slurm if look.time < first][-1:] + [look for look in slurm if look.time > last][:1]
    states, restarts = {look.state for look in near}, {look.restarts for look in near}
    allowed = set().union(*(ALLOWED.get(state, set()) for state in states))
    found = [f"status has a problem: {problem}" for problem in status["problems"] if AWAY not in states]
    for job in status["jobs"]:
        said = f"status says {job['state']} ({job['text']})"
        if job["state"] not in allowed:
            found.append(f"{said} where Slurm says {', '.join(sorted(states))}")
        if job["state"] == "waiting" and restarts == {0} and job["attempts"] > before:
            found.append(f"{said} about a job that has begun")
        if job["state"] == "requeued" and restarts == {0}:
            found.append(f"{said} about a job that never started again")
        if not min(restarts) <= job["attempts"] - before <= max(restarts) + 1:
            found.append(f"status counts {job['attempts']} attempts after {sorted(restarts)} restarts")
    whole = ALIVE | ({"unknown"} if AWAY in states else set()) | ({"done", "failed"} & allowed)
    if status["state"] not in whole:
        found.append(f"status says {status['state']} of the whole where Slurm says {', '.join(sorted(states))}")
    return found
