"""What an attempt of a job left on disk: events and beats, lines in the batch log, why it ended."""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from bingo.launch.job.causes import Beat, Cause, find_cause

MOST_TIME = 1e11
FIELDS: dict[str, dict[str, type]] = {
    "stage": {"name": str},
    "finished": {"name": str, "skipped": bool},
    "checkpoint": {"step": int},
    "resumed": {"step": int},
    "training": {"step": int, "steps": int},
    "failed": {"kind": str, "error": str},
    "start": {"pid": int},
}
"""Event -> what is in each of this name."""
MARKER = "bingo: attempt "
"""What the batch script and every rank say first in every attempt, and then its number."""


def cause_of(job: Path, slurm_id: str, restart: int, rc: int | None, state: str | None = None) -> Cause:
    """Why one attempt of the job in the folder `job` ended. state: sacct's, where nobody lived to see the status."""
    folder = job / "attempts" / f"{slurm_id}-{restart}"
    events = read_events(folder)
    logs = {
        rank: [line for line in attempt_lines(job / f"{slurm_id}_{rank}_log.out", restart) if "slurmstepd" in line]
        for rank in events
    }
    lines = attempt_lines(job / f"{slurm_id}_batch.log", restart)
    return find_cause(events, read_beats(folder), lines, rc=rc, state=state, logs=logs)


def read_events(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Events by rank; a line that a full disk cut short is left out."""
    return {rank: list(_events(path)) for rank, path in _ranks(folder, "jsonl")}


def _events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and _is_event(event):
                yield event


def _is_event(event: Mapping[str, Any]) -> bool:
    """Whether it has what every event of its name has."""
    name, time = event.get("event"), event.get("time")
    wanted = FIELDS.get(name, {}) if isinstance(name, str) else {"event": str}
    whole = all(isinstance(event.get(field), kind) for field, kind in wanted.items())
    return whole and is_time(time) and isinstance(event.get("step"), int | None)


def is_time(value: Any) -> bool:
    """Whether it is a number of seconds since 1970 that a calendar can show."""
    return isinstance(value, int | float) and 0 <= value < MOST_TIME


def read_beats(folder: Path) -> dict[int, Beat]:
    """Last signs of life by rank."""
    beats = {}
    for rank, path in _ranks(folder, "beat"):
        with contextlib.suppress(ValueError, OSError):  # empty, or damaged
            step, when, *stage = path.read_text(errors="replace").strip().split(" ", 2)
            if is_time(float(when)):
                beats[rank] = Beat(int(step), float(when), *stage)
    return beats


def _ranks(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    found = [(re.fullmatch(r"rank-(\d+)", path.stem), path) for path in folder.glob(f"rank-*.{suffix}")]
    return sorted((int(match[1]), path) for match, path in found if match)


def attempt_lines(log: Path, restart: int) -> list[str]:
    """The lines of one attempt in a log that all attempts of a job share."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return []
    starts = [i for i, line in enumerate(lines) if line.startswith(MARKER)]
    for start, stop in pairwise([*starts, len(lines)]):
        if lines[start].startswith(f"{MARKER}{restart} "):
            return lines[start:stop]
    return []


def milestones(events: Mapping[int, list[dict[str, Any]]]) -> set[tuple[str, int]]:
    """What an attempt brought to disk: stages it finished, checkpoints it wrote."""
    reached = set()
    for rank in events.values():
        stage = ""
        for e in rank:
            if e["event"] == "stage":
                stage = e["name"]
            elif e["event"] == "finished" and not e["skipped"]:
                reached.add((e["name"], -1))
            elif e["event"] == "checkpoint":
                reached.add((stage, e["step"]))
    return reached
