"""The attempts of a job (or array task): what its ranks wrote, joined with what the accounting knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import read_object
from bingo.launch.cluster.reasons import ended
from bingo.launch.cluster.slurm import Row
from bingo.launch.job.causes import Beat
from bingo.launch.job.records import cause_of, is_time, read_beats, read_events
from bingo.launch.submit.submission import Sent


@dataclass(frozen=True)
class Attempt:
    """One start. folder: None where only the accounting knows of it; begin, end: {} where the files are absent.

    row: of sacct, None if there is none; events: by rank. Times in Unix seconds.
    """

    slurm_id: str
    restart: int
    folder: Path | None
    begin: Mapping[str, Any]
    end: Mapping[str, Any]
    events: Mapping[int, Sequence[Mapping[str, Any]]]
    beats: Mapping[int, Beat]
    row: Row | None = None

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
        found = {"kind": "unknown", "sentence": "", "rank": None, "node": None, "step": None}
        if self.folder is not None:
            found = cause_of(self.folder.parent.parent, self.slurm_id, self.restart, None, state).to_json()
        if found["kind"] == "node lost" and not (found["node"] or self.end) and (host := self.begin.get("host")):
            # The node that ran the batch script went down with everybody who could have said so.
            return {**found, "node": host, "sentence": f"node {host} was lost"}
        if found["kind"] == "unknown":
            if self.row is not None and self.ended:
                return {**found, "sentence": ended(self.row)}
            return {**found, "sentence": "it ended without a record: its node went down or it was killed"}
        return found


def read_attempts(
    folder: Path, sent: Sequence[Sent], task: int | None, past: Mapping[str, Sequence[Row]] | None
) -> list[Attempt]:
    """Attempts of the job in `folder` under all the ids it was sent as, oldest first; task: of an array, else None."""
    found: list[Attempt] = []
    for line in sent:
        job = line.slurm_id if task is None else f"{line.slurm_id}_{task}"
        # Ids start again when a cluster's database is made anew: an older row is another job's.
        rows = [row for row in (past or {}).get(job, ()) if row.submit is None or row.submit > line.time - 120]
        started = {row.restarts: row for row in rows if row.start is not None}
        numbers = {int(path.name.rpartition("-")[2]) for path in (folder / "attempts").glob(f"{job}-*")}
        found += [
            _read(folder / "attempts" / f"{job}-{n}", job, n, started.get(n)) for n in sorted(numbers | {*started})
        ]
    return found


def _read(folder: Path, job: str, restart: int, row: Row | None) -> Attempt:
    begin, end = (_json(folder / f"{name}.json") for name in ("begin", "end"))
    if not _is_end(end):
        end = {}
    if not folder.exists():
        return Attempt(job, restart, None, begin, end, {}, {}, row)
    return Attempt(job, restart, folder, begin, end, read_events(folder), read_beats(folder), row)


def _json(path: Path) -> dict[str, Any]:
    try:
        record = read_object(path)
    except UserError:  # not there, or half written on a full disk
        return {}
    return record if is_time(record.get("time")) else {}


def _is_end(record: Mapping[str, Any]) -> bool:
    """Whether a record of an end says why and what was decided."""
    cause, words = record.get("cause") or {"kind": "", "sentence": ""}, str | None
    whole = isinstance(cause, dict) and all(isinstance(cause.get(name), str) for name in ("kind", "sentence"))
    return whole and isinstance(record.get("decision"), int) and isinstance(record.get("then"), words)
