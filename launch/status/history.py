"""`bingo history`: the ledger of every start of every job, and what of its time was of use.

queued: from when all that it needs was done (without accounting: from the hand-over), or from a requeue, to the start.
start-up: until the first stage began or had resumed. Lost steps were done after the checkpoint from which the next
start went on, and so twice; lost time is their share of the training. Node and GPU hours: see `hours`.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bingo.errors import UserError, did_you_mean
from bingo.launch.cluster import slurm
from bingo.launch.cluster.reasons import clock
from bingo.launch.job.attempt import FINISHED
from bingo.launch.status.attempts import Attempt, hand_overs, read_attempts, some, starts_of
from bingo.launch.status.hours import (
    Hours,
    Sum,
    by_cause,
    gpus_per_node,
    hours_of,
    lost_parts,
    node_count,
    number,
    sum_of,
    told,
    told_by_cause,
)
from bingo.launch.status.states import look
from bingo.launch.submit.submission import Sent, Submission
from bingo.progress import duration
from bingo.train.lines import speed_words


@dataclass(frozen=True)
class Entry:
    """One start of a job (or task of an array); seconds, Unix times, steps of all its stages together.

    None: not known, or not over yet. cause: {kind, sentence, rank, node, step}; None while it runs.
    """

    job: str
    task: int | None
    attempt: int
    slurm_id: str
    nodes: str
    started: float | None
    ended: float | None
    queued_s: float | None
    startup_s: float | None
    training_s: float | None
    checkpoint_s: float
    steps: int
    steps_lost: int
    lost_s: float
    cause: Mapping[str, Any] | None
    hours: Hours
    notes: tuple[str, ...] = ()
    """A sentence for each of its files that is damaged."""
    images_per_second: float | None = None
    """Of its last training, up to its last checkpoint; evaluations do not count as time."""
    loader_wait: float | None = None
    """Share of that time that rank 0 waited for images."""


@dataclass(frozen=True)
class Total:
    """Sums over the starts of one job (or task); useful_s: training whose steps were kept, without checkpoints."""

    job: str
    task: int | None
    attempts: int
    queued_s: float
    startup_s: float
    useful_s: float
    checkpoint_s: float
    lost_s: float
    steps: int
    steps_lost: int
    hours: Sum


def ledger(submission: Submission, past: Mapping[str, Sequence[slurm.Row]] | None, now: float) -> list[Entry]:
    """Entries of all jobs in the chain's order, each job's oldest first."""
    found: list[Entry] = []
    lines_of = hand_overs(submission.sent())
    for spec in submission.jobs:
        folder = submission.job_folder(spec.name)
        starts, gpus = starts_of(folder), gpus_per_node(folder)
        for at in range(len(spec.tasks)):
            lines = lines_of.get((spec.name, at), [])
            task = at if spec.array else None
            attempts = read_attempts(folder, lines, task, past, starts)
            found += entries(spec.name, task, attempts, lines, now, gpus)
    return found


def entries(
    job: str, task: int | None, attempts: Sequence[Attempt], sent: Sequence[Sent], now: float, gpus: int = 0
) -> Iterator[Entry]:
    """One entry per attempt of a job or task. gpus: on each of its nodes."""
    for at, attempt in enumerate(attempts):
        later = attempts[at + 1 :]
        ended = attempt.ended or (_gone(attempt, later[0]) if later else None)
        first, until = _work_began(attempt), ended or attempt.last_sign or now
        done, lost = _steps(attempt, later) if ended else (_steps(attempt, later)[0], 0)
        saving = sum(e.get("seconds", 0.0) for e in attempt.main if e["event"] == "checkpoint")
        training = None if first is None else max(until - first - saving, 0.0)
        share = lost / done if done else 0.0
        yield Entry(
            job, task, at + 1, attempt.slurm_id, attempt.nodes, attempt.started, ended,
            _queued(attempt, attempts[:at], sent),
            None if first is None or attempt.started is None else max(first - attempt.started, 0.0),
            training, saving, done, lost, (training or 0.0) * share,
            attempt.cause() if ended else None,
            _hours(attempt, ended, now, gpus, first, saving, done, lost),
            attempt.notes, *_speed(attempt),
        )  # fmt: skip


def _hours(
    attempt: Attempt, ended: float | None, now: float, gpus: int, first: float | None, saving: float, done: int,
    lost: int,
) -> Hours:  # fmt: skip
    """first: when its work began; saving: seconds of checkpoints; done, lost: steps."""
    nodes = node_count(str(attempt.nodes))
    if attempt.started is None:
        return hours_of(nodes, gpus, 0.0, {})
    runs = attempt.row is not None and attempt.row.alive
    until = ended or (now if runs else attempt.last_sign) or attempt.started
    wall = max(until - attempt.started, 0.0)
    over = attempt.decision == FINISHED or (attempt.row is not None and attempt.row.state == "COMPLETED")
    if ended is None or over:
        return hours_of(nodes, gpus, wall, {})
    finished = any(e["event"] == "finished" and not e["skipped"] for e in attempt.main)
    startup = max((first or until) - attempt.started, 0.0)
    parts = lost_parts(
        wall,
        fruitless=first is None or not (finished or done > lost),
        startup_s=startup,
        idle_s=max(until - (attempt.last_sign or until), 0.0),
        training_s=max(wall - startup - saving, 0.0),
        share=lost / done if done else 0.0,
    )
    return hours_of(nodes, gpus, wall, parts)


def _speed(attempt: Attempt) -> tuple[float | None, float | None]:
    told = next((event for event in reversed(attempt.main) if event["event"] == "speed"), None)
    return (told["images_per_second"], told["loader_wait"]) if told else (None, None)


def _gone(attempt: Attempt, after: Attempt) -> float | None:
    """Its node went down with all of its files' writers: it ended after its last sign, before the next one began."""
    return attempt.last_sign or after.started


def _work_began(attempt: Attempt) -> float | None:
    """The first step of the first stage was done; of a stage without steps, it began."""
    events = [e for e in attempt.main if e["event"] in ("stage", "step")]
    if not events:
        return None
    return events[1]["time"] if len(events) > 1 and events[1]["event"] == "step" else events[0]["time"]


def _queued(attempt: Attempt, before: Sequence[Attempt], sent: Sequence[Sent]) -> float | None:
    since = None
    if attempt.row is not None:  # eligible: what it needs is done; a requeue's delay counts as queue
        since = attempt.row.submit if attempt.restart else attempt.row.eligible or attempt.row.submit
    if since is None:
        same = [other.ended or other.last_sign for other in before if other.slurm_id == attempt.slurm_id]
        base = attempt.slurm_id.split("_")[0]
        since = same[-1] if same else next((line.time for line in sent if line.slurm_id == base), None)
    return None if since is None or attempt.started is None else max(attempt.started - since, 0.0)


def _steps(attempt: Attempt, later: Sequence[Attempt]) -> tuple[int, int]:
    """Steps done, and those of them that were, or will have to be, done again."""
    done = lost = 0
    for stage, (start, saved, reached, finished) in _stages(attempt).items():
        done += reached - start
        if not finished:
            # A start that ended before it had resumed says nothing about where the stage went on.
            went_on = (_stages(other).get(stage, (0, 0, 0, False)) for other in later)
            again = next((begun for begun, _, until, over in went_on if until or over), saved)
            lost += max(reached - max(again, start), 0)
    return done, lost


def _stages(attempt: Attempt) -> dict[str, tuple[int, int, int, bool]]:
    """Stage -> its steps when it began or resumed, at its last checkpoint, at the last sign of life; is it finished?"""
    found: dict[str, tuple[int, int, int, bool]] = {}
    name = None
    for event in attempt.main:
        if event["event"] == "stage":
            name = event["name"]
            found[name] = (0, 0, 0, False)
        elif name is not None:
            start, saved, reached, finished = found[name]
            step = event.get("step") or 0
            if event["event"] == "resumed":
                found[name] = (step, step, step, False)
            elif event["event"] == "checkpoint":
                found[name] = (start, step, max(reached, step), False)
            elif event["event"] in ("left", "failed"):
                found[name] = (start, saved, max(reached, step), False)
            elif event["event"] == "finished":
                found[name] = (start, saved, reached, True)
    beat = attempt.beats.get(0)
    if beat is not None and beat.stage in found:
        start, saved, reached, finished = found[beat.stage]
        found[beat.stage] = (start, saved, max(reached, beat.step), finished)
    return found


def totals(found: Sequence[Entry]) -> list[Total]:
    """One total per job or task that has started."""
    groups: dict[tuple[str, int | None], list[Entry]] = {}
    for entry in found:
        groups.setdefault((entry.job, entry.task), []).append(entry)
    return [
        Total(
            job, task, len(each),
            sum(e.queued_s or 0.0 for e in each),
            sum(e.startup_s or 0.0 for e in each),
            sum((e.training_s or 0.0) - e.lost_s for e in each),
            sum(e.checkpoint_s for e in each),
            sum(e.lost_s for e in each),
            sum(e.steps for e in each),
            sum(e.steps_lost for e in each),
            sum_of(e.hours for e in each),
        )
        for (job, task), each in groups.items()
    ]  # fmt: skip


def show_history(chosen: Sequence[Submission], job: str | None, as_json: bool) -> int:
    """Print the ledger of submissions, oldest first, or of one job of them; where there is no accounting it says so."""
    names = list(dict.fromkeys(spec.name for submission in chosen for spec in submission.jobs))
    if job is not None and job not in names:
        raise UserError(f"{chosen[0].root} has no job {job!r}; {did_you_mean(job, names)}")
    parts: list[tuple[Submission, list[Entry]]] = []
    problems: dict[str, None] = {}
    for submission in chosen:
        snapshot = look(submission)
        found = [entry for entry in ledger(submission, snapshot.past, time.time()) if job in (None, entry.job)]
        parts.append((submission, found))
        problems |= dict.fromkeys(snapshot.problems)
    if as_json:
        values = [{"submission": made.id, **as_object(found)} for made, found in parts]
        whole = values[0] if len(values) == 1 else {"submissions": values, **_sums([e for _, f in parts for e in f])}
        print(json.dumps({"root": str(chosen[0].root), **whole}, indent=2))
        return 0
    for made, found in parts:
        if len(parts) > 1:
            print(f"submission {made.id}")
        for line in lines(found, time.time()):
            print(line)
    for line in account([entry for _, found in parts for entry in found]):
        print(line)
    for problem in (*problems, *some(note for _, found in parts for entry in found for note in entry.notes)):
        print(f"note: {problem}")
    return 0


def as_object(found: Sequence[Entry]) -> dict[str, Any]:
    """Stable keys: more may come, none of these goes."""
    return {"attempts": [asdict(e) for e in found], "totals": [asdict(t) for t in totals(found)], **_sums(found)}


def _sums(found: Sequence[Entry]) -> dict[str, Any]:
    return {"hours": asdict(sum_of(e.hours for e in found)), "lost_to": [asdict(each) for each in _lost_to(found)]}


def _lost_to(found: Sequence[Entry]) -> list[Sum]:
    return by_cause([(entry.cause["kind"], entry.hours) for entry in found if entry.cause])


def account(found: Sequence[Entry]) -> Iterator[str]:
    """Hours of all starts that are shown, and which cause took how many of them."""
    if found:
        yield f"used {told(sum_of(entry.hours for entry in found))}"
    for line in told_by_cause(_lost_to(found)):
        yield f"  {line}"


def lines(found: Sequence[Entry], now: float) -> Iterator[str]:
    """The ledger for people: a line per start, its cause below it, a total per job."""
    if not found:
        yield "nothing has started yet"
    for total in totals(found):
        yield total.job if total.task is None else f"{total.job} [{total.task}]"
        for e in found:
            if (e.job, e.task) == (total.job, total.task):
                yield f"  start {e.attempt} ({e.slurm_id}) on {e.nodes or '?'}: {_spent(e, now)}"
                yield f"    {e.cause['sentence'] if e.cause else 'it goes on'}"
        parts = (f"queued {duration(total.queued_s)}", f"start-up {duration(total.startup_s)}",
                 f"useful {duration(total.useful_s)}", f"checkpoints {duration(total.checkpoint_s)}",
                 f"lost {duration(total.lost_s)} ({total.steps_lost} of {total.steps} steps)")  # fmt: skip
        yield f"  in all {total.attempts} start{'s' * (total.attempts > 1)}: {', '.join(parts)}; {told(total.hours)}"


def _spent(entry: Entry, now: float) -> str:
    times = (("queued", entry.queued_s), ("start-up", entry.startup_s), ("training", entry.training_s))
    known = [f"{name} {duration(value)}" for name, value in times if value is not None]
    known += [f"checkpoints {duration(entry.checkpoint_s)}"] if entry.checkpoint_s else []
    known.append(f"{entry.steps} steps" + (f", {entry.steps_lost} of them lost" if entry.steps_lost else ""))
    known += speed_words(asdict(entry))
    known += [f"{number(entry.hours.node_hours)} node hours"] if entry.hours.node_hours else []
    began = f"{clock(entry.started, now)}, " if entry.started else ""
    return began + ", ".join(known)
