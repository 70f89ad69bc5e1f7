"""What every job of a submission does now, in plain words, from the scheduler and its files.

Truth, in this order: squeue about a job that waits or runs (a node failure, a preemption or a requeue ends nothing
while the job is there); the decision that the job wrote when it ended; squeue's memory and `sacct -D` about jobs that
ended; the files alone where Slurm gives no answer. A job that neither knows was cancelled before it could start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import read_object
from bingo.launch.cluster import reasons, slurm
from bingo.launch.cluster.slurm import RUNNING, WAITING, Row, Snapshot
from bingo.launch.job.attempt import FINISHED, STOP
from bingo.launch.job.spec import JobSpec
from bingo.launch.status import position
from bingo.launch.status.attempts import Attempt, hand_overs, read_attempts, starts_of
from bingo.launch.submit.submission import Sent, Submission
from bingo.progress import duration
from bingo.stages import Stage

GRACE_S = 5.0
"""After its submission a job may be missing in squeue for a moment."""
SILENCE_S = 120.0
DONE = ("done", "done before")
BROKEN = ("failed", "cancelled", "stuck", "never sent")


@dataclass(frozen=True)
class State:
    """A job, or one task of an array. state: done, done before, never sent, waiting, stuck (somebody must act),
    requeued (waits to start again), starting, running, ending, failed, cancelled or unknown.

    text: a sentence about it; since: in the queue, or running, or ended since, Unix seconds; cause: of a failure or of
    the requeue, as {kind, sentence, rank, node, step}.
    """

    job: str
    task: int | None
    state: str
    text: str
    slurm_id: str | None = None
    nodes: str = ""
    since: float | None = None
    attempts: int = 0
    stage: str | None = None
    step: int | None = None
    cause: Mapping[str, Any] | None = field(default=None)
    notes: tuple[str, ...] = ()
    """A sentence for each of its files that is damaged, but for those of earlier starts whose end is known."""


@dataclass(frozen=True)
class Unit:
    """All that is known about a job or one task of it, but for the scheduler's word of now."""

    spec: JobSpec
    folder: Path
    task: int | None
    stages: tuple[Stage, ...]
    sent: Sent | None
    done_before: bool
    attempts: Sequence[Attempt]
    broken: tuple[str, ...]
    """Words about those it needs that did not end well: `teacher, which failed`."""
    waits_for: tuple[str, ...]
    lost: bool = False
    """The record of what was sent is damaged: it may have been handed over although nothing says so."""

    @property
    def id(self) -> str | None:
        """As squeue shows it."""
        return None if self.sent is None else self.sent.slurm_id + ("" if self.task is None else f"_{self.task}")

    @property
    def last(self) -> Attempt | None:
        """The newest attempt under the id that counts now."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.slurm_id == self.id), None)

    def attempt(self, restart: int) -> Attempt | None:
        return next((a for a in self.attempts if (a.slurm_id, a.restart) == (self.id, restart)), None)

    def state(self, state: str, text: str, **facts: Any) -> State:
        notes = tuple(note for attempt in self.attempts for note in attempt.notes)
        known = {"slurm_id": self.id, "attempts": len(self.attempts), "notes": notes, **facts}
        return State(self.spec.name, self.task, state, text, **known)


def look(submission: Submission) -> Snapshot:
    """What the scheduler says about a submission, newer than its newest job; asked as its owner, whoever looks."""
    sent = [line.time for line in submission.sent()]
    began = min(sent, default=submission.facts["time"])
    return slurm.ask(began, max(sent, default=0.0), submission.folder.stat().st_uid)


def states(submission: Submission, snapshot: Snapshot, now: float) -> list[State]:
    """Every job's state (every task's of an array), in the chain's order."""
    found: dict[str, list[State]] = {}
    sent = submission.sent()
    lines_of = hand_overs(sent)
    handed, lost = {line.job for line in sent}, submission.lost() is not None
    for spec in submission.jobs:
        broken = tuple(f"{n}, which {why}" for n in spec.needs if (why := _why_broken(found.get(n, ()))))
        waits = tuple(n for n in spec.needs if any(state.state not in DONE for state in found.get(n, ())))
        found[spec.name], folder = [], submission.job_folder(spec.name)
        starts = starts_of(folder)
        for at, stages in enumerate(spec.tasks):
            lines = lines_of.get((spec.name, at), [])
            task = at if spec.array else None
            attempts = read_attempts(folder, lines, task, snapshot.past, starts, newest=True)
            # Of an array only the tasks that are not done are sent.
            before = spec.name in submission.facts["done"] or (spec.name in handed and not lost)
            newest = lines[-1] if lines else None
            unit = Unit(spec, folder, task, stages, newest, before, attempts, broken, waits, lost)
            found[spec.name].append(judge(unit, snapshot, now))
    return [state for each in found.values() for state in each]


def _why_broken(found: Sequence[State]) -> str | None:
    words = {"failed": "failed", "cancelled": "was cancelled", "stuck": "cannot start", "never sent": "was never sent"}
    return next((words[state.state] for state in found if state.state in BROKEN), None)


def judge(unit: Unit, snapshot: Snapshot, now: float) -> State:
    """The state of one job or task."""
    if unit.sent is None:
        return _not_sent(unit)
    row = (snapshot.queue or {}).get(unit.id or "")
    row = row and _caught_up(unit, row)
    if row is not None and row.state in WAITING:
        return _waits(unit, row, now)
    if row is not None and row.state in RUNNING:
        return _runs(unit, row, now)
    past = (snapshot.past or {}).get(unit.id or "", ())
    if unit.last is not None and unit.last.decision == FINISHED:
        return unit.state("done", "finished", nodes=unit.last.nodes, since=unit.last.ended)
    if row is not None:
        return _ended(unit, row)
    newest = past[-1] if past and (past[-1].submit or unit.sent.time) > unit.sent.time - 120 else None
    if newest is not None and not newest.alive and (snapshot.queue is not None or newest.state not in AGAIN):
        return _ended(unit, newest)
    return _gone(unit, snapshot, now) if snapshot.queue is not None else _unanswered(unit, newest, now)


def _caught_up(unit: Unit, row: Row) -> Row:
    """squeue's word may be 10 s old: a start that the files know of and squeue did not is newer than it."""
    last = unit.last
    if last is None or not last.begin or not row.alive or last.restart < row.restarts:
        return row
    if last.restart == row.restarts and row.state not in WAITING:
        return row
    return replace(row, state="RUNNING", restarts=last.restart, nodes=last.nodes, start=last.started)


AGAIN = ("NODE_FAIL", "PREEMPTED", "REQUEUED")
"""Ends after which Slurm may start a job again: final only once the job has left the queue."""


def _not_sent(unit: Unit) -> State:
    if unit.done_before:
        return unit.state("done before", "done before this submission")
    refused = _note(unit.folder.parent.parent / "refused")
    if refused.get("job") == unit.spec.name:
        return unit.state("failed", f"Slurm refused it: {refused['reason']}")
    if unit.lost:
        return unit.state("unknown", "whether it was handed to Slurm is not known: that record is damaged")
    return unit.state("never sent", f"not sent because {refused.get('job')} was refused" if refused else "never sent")


def _note(path: Path) -> dict[str, Any]:
    """A small file that may be absent."""
    try:
        return read_object(path, {"reason": str})
    except UserError:
        return {}


def _waits(unit: Unit, row: Row, now: float) -> State:
    why, stuck = reasons.waits(row, now)
    if row.reason.startswith("Dependency"):
        if stuck and unit.broken:
            why = f"it will never start: it needs {' and '.join(unit.broken)}"
        elif unit.waits_for and not stuck:
            why = f"it waits for {', '.join(unit.waits_for)}"
        elif unit.spec.lane and not stuck:
            why = "it waits for its turn: jobs before it have not ended"
    facts: dict[str, Any] = {"since": row.submit}
    if row.restarts:
        before = unit.attempt(row.restarts - 1)
        facts["cause"] = cause = before.cause() if before else None
        what = f"start {row.restarts} ended: {cause['sentence']}; " if cause else "it was requeued; "
        return unit.state("stuck" if stuck else "requeued", what + why, **facts)
    return unit.state("stuck" if stuck else "waiting", why, **facts)


def _runs(unit: Unit, row: Row, now: float) -> State:
    attempt = unit.attempt(row.restarts)
    facts: dict[str, Any] = {"nodes": row.nodes, "since": row.start}
    if row.state == "CONFIGURING":
        return unit.state("starting", "its nodes are made ready", **facts)
    if row.state in ("SUSPENDED", "STOPPED"):
        return unit.state("waiting", "Slurm has suspended it; it keeps its nodes and goes on later", **facts)
    if attempt is not None and (attempt.end or attempt.failed):
        cause = attempt.cause()
        return unit.state("ending", cause["sentence"] + _waiting_for_slurm(attempt), cause=cause, **facts)
    if row.state == "COMPLETING":
        return unit.state("ending", "Slurm cleans up behind it", **facts)
    if attempt is None or not attempt.events:
        return unit.state("starting", "its script runs; no rank has begun", **facts)
    text, stage, step = position.where(attempt, unit.stages)
    if attempt.last_sign is not None and now - attempt.last_sign > SILENCE_S:
        text += f"; no sign of life for {duration(now - attempt.last_sign)}"
    return unit.state("running" if stage else "starting", text, stage=stage, step=step, **facts)


def _waiting_for_slurm(attempt: Attempt) -> str:
    """What follows the cause of an attempt whose script is still there."""
    return f"; its requeue waits for the controller: {attempt.refused}" if attempt.refused else attempt.then


def _never_taken_back(last: Attempt | None) -> str:
    if last is None or not last.refused:
        return ""
    return f"; Slurm never took it back: {last.refused}; `bingo repair` sends it again"


def _ended(unit: Unit, row: Row) -> State:
    """Slurm knows its end."""
    facts: dict[str, Any] = {"nodes": row.nodes, "since": row.end}
    if row.state == "COMPLETED":
        return unit.state("done", "finished", **facts)
    last = unit.last
    if last is None and row.state == "CANCELLED":
        return _cancelled(unit, **facts)
    if last is not None and last.row is None and last.restart == row.restarts:
        last = replace(last, row=row)
    cause = last.cause() if last else {"kind": "unknown", "sentence": reasons.ended(row)}
    if row.state in ("CANCELLED", "REQUEUED") or cause["kind"] == "cancelled":
        again = row.state == "REQUEUED" or (last is not None and last.decision not in (None, STOP))
        before = "; it was cancelled before it started again" if again and cause["kind"] != "cancelled" else ""
        sentence = "it was cancelled" if cause["kind"] == "unknown" else cause["sentence"]
        return unit.state("cancelled", sentence + before, cause=cause, **facts)
    more = _never_taken_back(last) or (
        "; Slurm did not start it again" if row.state in AGAIN else last.then if last and last.decision == STOP else ""
    )
    return unit.state("failed", cause["sentence"] + more, cause=cause, **facts)


def _gone(unit: Unit, snapshot: Snapshot, now: float) -> State:
    """squeue does not know it any more (and accounting nothing of its end)."""
    last = unit.last
    assert unit.sent is not None
    if last is None:
        if snapshot.time - unit.sent.time < GRACE_S:
            return unit.state("waiting", "it was handed to Slurm just now", since=unit.sent.time)
        return _cancelled(unit)
    cause = last.cause()
    facts: dict[str, Any] = {"nodes": last.nodes, "since": last.ended or last.last_sign, "cause": cause}
    if last.decision is not None:
        if last.decision == STOP and cause["kind"] != "cancelled":
            return unit.state("failed", cause["sentence"] + last.then, **facts)
        if last.refused:
            return unit.state("failed", cause["sentence"] + _never_taken_back(last), **facts)
        then = "" if last.decision == STOP else "; it was cancelled before it started again"
        return unit.state("cancelled", cause["sentence"] + then, **facts)
    if last.last_sign is not None and now - last.last_sign < 6 * GRACE_S:
        return unit.state("ending", "it has left the queue; how it ended is not recorded yet", **facts)
    return unit.state("failed", cause["sentence"], **facts)


def _cancelled(unit: Unit, **facts: Any) -> State:
    """It never began."""
    if reason := _note(unit.folder / "cancelled").get("reason"):
        return unit.state("cancelled", f"cancelled: {reason}", **facts)
    if unit.broken:
        return unit.state("cancelled", f"cancelled because it needs {' and '.join(unit.broken)}", **facts)
    return unit.state("cancelled", "it was cancelled while it waited", **facts)


def _unanswered(unit: Unit, row: Row | None, now: float) -> State:
    """Slurm gives no answer: what the files say, and no more."""
    last = unit.last
    if last is None:
        known = "the accounting says that it waits" if row else "it may wait or run"
        return unit.state("unknown", f"{known}; squeue gives no answer")
    facts: dict[str, Any] = {"nodes": last.nodes, "since": last.ended or last.started}
    if last.decision is not None or last.failed:
        cause = last.cause()
        if last.decision not in (None, STOP, FINISHED) and now - last.asked_again < SILENCE_S:
            return unit.state("ending", cause["sentence"] + _waiting_for_slurm(last), cause=cause, **facts)
        if last.decision == STOP:
            return unit.state("cancelled" if cause["kind"] == "cancelled" else "failed", cause["sentence"], cause=cause)
        return unit.state(
            "unknown", f"{cause['sentence']}; squeue gives no answer what came then", cause=cause, **facts
        )
    text, stage, step = position.where(last, unit.stages)
    silent = now - (last.last_sign or 0)
    if silent > SILENCE_S:
        text = f"last heard of {duration(silent)} ago: {text}; squeue gives no answer"
        return unit.state("unknown", text, stage=stage, step=step, **facts)
    return unit.state("running" if stage else "starting", text, stage=stage, step=step, **facts)
