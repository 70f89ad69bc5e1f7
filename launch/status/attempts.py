"""The attempts of a job (or array task): what its ranks wrote, joined with what the accounting knows."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import read_object
from bingo.launch.cluster.reasons import clock, ended
from bingo.launch.cluster.slurm import Row
from bingo.launch.job.causes import Beat
from bingo.launch.job.records import cause_of, is_step, is_time, read_records, read_requeue
from bingo.launch.submit.submission import Sent


@dataclass(frozen=True)
class Attempt:
    """One start. folder: None where only the accounting knows of it; begin, end: {} where the files are absent.

    row: of sacct, None if there is none; events: by rank; notes: a sentence for each file that is damaged; requeue:
    (time, answer) of each try to hand the job back. Times in Unix seconds.
    """

    slurm_id: str
    restart: int
    folder: Path | None
    begin: Mapping[str, Any]
    end: Mapping[str, Any]
    events: Mapping[int, Sequence[Mapping[str, Any]]]
    beats: Mapping[int, Beat]
    row: Row | None = None
    notes: tuple[str, ...] = ()
    requeue: Sequence[tuple[float, str]] = ()

    @property
    def refused(self) -> str:
        """In words, that Slurm has not taken the job back yet; "" where it has, or was not asked to."""
        if not self.requeue or self.requeue[-1][1].startswith("accepted"):
            return ""
        since, count = clock(self.requeue[0][0], self.requeue[-1][0]), len(self.requeue)
        return f"tried {count} time{'s' * (count > 1)} since {since} ({self.requeue[-1][1]})"

    @property
    def asked_again(self) -> float:
        """When its script was last known to ask Slurm for another start; 0 once Slurm has said yes."""
        if self.requeue:
            return self.requeue[-1][0] if self.refused else 0.0
        return self.ended or 0.0

    @property
    def nodes(self) -> str:
        return self.begin.get("nodes") or (self.row.nodes if self.row else "") or ""

    @property
    def main(self) -> Sequence[Mapping[str, Any]]:
        """Events of rank 0, or of the first rank that wrote any."""
        return self.events[min(self.events)] if self.events else ()

    @property
    def started(self) -> float | None:
        return (self.row.start if self.row else None) or self.begin.get("time")

    @property
    def last_sign(self) -> float | None:
        """When something was last heard of it."""
        times = [beat.time for beat in self.beats.values()]
        times += [events[-1]["time"] for events in self.events.values() if events]
        return max(times, default=self.begin.get("time"))

    @property
    def ended(self) -> float | None:
        """Its end; for one that the accounting does not know and that left no record, the last sign of life."""
        if self.end:
            return self.end["time"]
        gone = self.row and self.row.state not in ("RUNNING", "PENDING", "COMPLETING")
        return self.row.end if self.row and gone else None

    @property
    def failed(self) -> bool:
        """A rank has said that it failed."""
        return any(event["event"] == "failed" for events in self.events.values() for event in events)

    @property
    def decision(self) -> int | None:
        return self.end.get("decision")

    @property
    def then(self) -> str:
        """What was decided at its end, to follow the cause's sentence."""
        return f"; {self.end['then']}" if self.end.get("then") else ""

    def cause(self) -> Mapping[str, Any]:
        """Why it ended: {kind, sentence, rank, node, step}; what it wrote itself, otherwise found from all there is."""
        if self.end.get("cause"):
            return self.end["cause"]
        state = self.row.state if self.row else None
        found: dict[str, Any] = {"kind": "unknown", "sentence": "", "rank": None, "node": None, "step": None}
        if self.folder is not None:
            found = cause_of(self.folder.parent.parent, self.slurm_id, self.restart, None, state).to_json()
        if found["kind"] == "node lost" and not (found["node"] or self.end) and (host := self.begin.get("host")):
            # The node that ran the batch script went down with everybody who could have said so.
            return {**found, "node": host, "sentence": f"node {host} was lost"}
        if self.row is not None and self.row.state == "FAILED" and self.row.signal and found["kind"] in UNCLEAR:
            # What slurmstepd then says of its job sounds like a `scancel`.
            how = "".join(found["sentence"].partition("; ")[1:])
            return {
                **found,
                "kind": "killed",
                "sentence": f"its batch script was killed by signal {self.row.signal}{how}",
            }
        if found["kind"] == "unknown":
            if self.row is not None and self.ended:
                return {**found, "sentence": ended(self.row)}
            if self.notes:
                return {**found, "sentence": "how it ended is not known: its records are damaged"}
            return {**found, "sentence": "it ended without a record: its node went down or it was killed"}
        return found


MOST_NOTES = 10
UNCLEAR = ("unknown", "cancelled", "left", "peer only")
"""Causes that the end of the batch script itself may be behind."""
Starts = Mapping[str, Sequence[int]]
"""Id of a job or task -> the numbers of its starts that have a folder."""


def starts_of(folder: Path) -> Starts:
    """All starts of the job in `folder`, of an array those of all its tasks."""
    found: dict[str, list[int]] = {}
    place = folder / "attempts"
    for name in os.listdir(place) if place.is_dir() else ():
        if match := re.fullmatch(r"(\d+(?:_\d+)?)-(\d{1,9})", name):
            found.setdefault(match[1], []).append(int(match[2]))
    return found


def some(notes: Iterable[str]) -> list[str]:
    """The first `MOST_NOTES` of these sentences, and how many more there are."""
    found = list(dict.fromkeys(notes))
    more = len(found) - MOST_NOTES
    return found if more <= 0 else [*found[:MOST_NOTES], f"{more} more files are damaged; --json names all"]


def hand_overs(sent: Sequence[Sent]) -> dict[tuple[str, int], list[Sent]]:
    """(Job, task) -> all hand-overs that cover it, oldest first."""
    found: dict[tuple[str, int], list[Sent]] = {}
    for line in sent:
        for task in line.tasks:
            found.setdefault((line.job, task), []).append(line)
    return found


def read_attempts(
    folder: Path,
    sent: Sequence[Sent],
    task: int | None,
    past: Mapping[str, Sequence[Row]] | None,
    starts: Starts | None = None,
    *,
    newest: bool = False,
) -> list[Attempt]:
    """Attempts of the job in `folder` under all the ids it was sent as, oldest first; task: of an array, else None.

    starts: what `starts_of` gives, where many tasks of one folder are read. newest: only that one is wanted whole; of
    those before it that say how they ended, nothing else is read.
    """
    starts = starts_of(folder) if starts is None else starts
    found: list[Attempt] = []
    for line in sent:
        job = line.slurm_id if task is None else f"{line.slurm_id}_{task}"
        # Ids start again when a cluster's database is made anew: an older row is another job's.
        rows = [row for row in (past or {}).get(job, ()) if row.submit is None or row.submit > line.time - 120]
        # One that is cancelled while it waits gets a time of start too, and no nodes.
        started = {row.restarts: row for row in rows if row.start and (row.nodes or row.state != "CANCELLED")}
        numbers = {*starts.get(job, ()), *started}
        for n in sorted(numbers):
            older = newest and (line is not sent[-1] or n < max(numbers))
            found.append(_read(folder / "attempts" / f"{job}-{n}", job, n, started.get(n), older))
    return found


def _read(folder: Path, job: str, restart: int, row: Row | None, end_only: bool) -> Attempt:
    """end_only: no more than the record of its end, if that is there and sound."""
    end, wrong_end = _json(folder / "end.json", _is_end)
    if end_only and end.get("cause"):
        return Attempt(job, restart, folder, {}, end, {}, {}, row)
    if not folder.is_dir():
        return Attempt(job, restart, None, {}, {}, {}, {}, row)
    found = read_records(folder)
    begin, wrong_begin = _json(folder / "begin.json", _is_begin)
    notes = (*wrong_begin, *wrong_end, *found.notes)
    return Attempt(job, restart, folder, begin, end, found.events, found.beats, row, notes, read_requeue(folder))


def _json(path: Path, whole: Callable[[Mapping[str, Any]], bool]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A record and no note; {} and a note where it is damaged, {} alone where it is not there."""
    if not os.path.lexists(path):
        return {}, ()
    try:
        record = read_object(path, remedy="")
    except UserError as error:
        return {}, (str(error).rstrip("; "),)
    return (record, ()) if is_time(record.get("time")) and whole(record) else ({}, (f"{path} is damaged",))


def _is_begin(record: Mapping[str, Any]) -> bool:
    return all(isinstance(record.get(name), str | None) for name in ("nodes", "host"))


def _is_end(record: Mapping[str, Any]) -> bool:
    """Whether a record of an end says why and what was decided."""
    cause = record.get("cause") or {"kind": "", "sentence": ""}
    whole = isinstance(cause, dict) and all(isinstance(cause.get(name), str) for name in ("kind", "sentence"))
    whole = whole and all(cause.get(name) is None or is_step(cause[name]) for name in ("rank", "step"))
    whole = whole and isinstance(cause.get("node"), str | None)
    return whole and type(record.get("decision")) is int and isinstance(record.get("then"), str | None)
