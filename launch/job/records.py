"""What an attempt of a job left on disk: events and beats, lines in the batch log, why it ended.

A power cut leaves files of zeros, half lines, or nothing. What is sound counts; what is not is told of, and nobody is
blamed and nothing counted because of a record that is damaged.
"""

import contextlib
import json
import math
import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bingo.files import first_line, open_file
from bingo.launch.job.causes import Beat, Cause, find_cause
from bingo.launch.layout import rank_events

MOST_TIME = 1e11
MOST_STEP = 10**15
MOST_LINE = 1 << 20
"""Bytes of a line that are read at once; a longer one comes in pieces."""
MOST_EVENTS = 1 << 26
"""Bytes of a rank's events."""
MOST_LINES = 2_000
"""Lines of an attempt's log that are kept: as many of its beginning, and of its end."""
MARKER = "bingo: attempt "
"""What the batch script and every rank say first in every attempt, and then its number."""
RANK_FILE = re.compile(r"rank-(\d{1,9})\.(jsonl|beat)")
MARK = re.compile(rb"\n" + MARKER.encode() + rb"(\d{1,9}) ")
Rule = Callable[[Any], bool]


def is_time(value: Any) -> bool:
    """Whether it is a number of seconds since 1970 that a calendar can show."""
    return type(value) in (int, float) and 0 <= value < MOST_TIME


def is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_STEP


def is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_slow(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_names, value.values()))


FIELDS: dict[str, dict[str, Rule]] = {
    "stage": {"name": is_text},
    "finished": {"name": is_text, "skipped": lambda value: isinstance(value, bool)},
    "step": {"step": is_step},
    "checkpoint": {"step": is_step},
    "resumed": {"step": is_step},
    "training": {"step": is_step, "steps": is_step},
    "speed": {"images_per_second": is_amount, "loader_wait": is_amount},
    "left": {"signal": is_text},
    "failed": {"kind": is_text, "error": is_text},
    "start": {"pid": is_step, "host": is_text},
    "preflight": {"slow": _is_slow, "excluded": _is_names},
}
"""Event -> what is in each of this name."""


@dataclass(frozen=True)
class Records:
    """What the ranks of an attempt wrote: events and last signs of life by rank.

    unread: ranks whose files are not whole. lost: events were there and cannot be read, so that what the attempt did is
    not known. notes: a sentence for each file that is damaged.
    """

    events: dict[int, list[dict[str, Any]]]
    beats: dict[int, Beat]
    unread: frozenset[int] = frozenset()
    lost: bool = False
    notes: tuple[str, ...] = ()


MOST_LOGS = 64
"""Of ranks that never began: what one says the others say too."""


def cause_of(job: Path, slurm_id: str, restart: int, rc: int | None, state: str | None = None) -> Cause:
    """Why one attempt of the job in the folder `job` ended. state: sacct's, where nobody lived to see the status."""
    found = read_records(job / "attempts" / f"{slurm_id}-{restart}")
    logs = {rank: attempt_lines(job / f"{slurm_id}_{rank}_log.out", restart, "slurmstepd") for rank in found.events}
    lines = attempt_lines(job / f"{slurm_id}_batch.log", restart)
    if not found.events:
        lines += _last_words(job, slurm_id)
    said = _said_last(job, slurm_id, restart, found.events)
    return find_cause(found.events, found.beats, lines, rc=rc, state=state, logs=logs, unread=found.unread, said=said)


def _last_words(job: Path, slurm_id: str) -> list[str]:
    """What slurmstepd said last about ranks that did not come as far as to begin: a line without a marker before it."""
    found = []
    for log in sorted(job.glob(f"{slurm_id}_*_log.out"))[:MOST_LOGS]:
        with contextlib.suppress(OSError):
            lines = list(lines_of(log, max(0, log.stat().st_size - MOST_LINE)))
            found += [line.decode(errors="replace") for line in lines[-3:] if line.startswith(b"slurmstepd")]
    return found


def _said_last(job: Path, slurm_id: str, restart: int, known: Collection[int]) -> dict[int, str]:
    """The last line of each rank that recorded nothing, such as Python's about a module that its node does not find.

    All starts share the logs: one that was not written since this start began says nothing of it.
    """
    found = {}
    begin = job / "attempts" / f"{slurm_id}-{restart}" / "begin.json"
    with contextlib.suppress(OSError):
        since = begin.stat().st_mtime
        for log in sorted(job.glob(f"{slurm_id}_*_log.out"))[:MOST_LOGS]:
            rank, seen = log.name.removeprefix(f"{slurm_id}_").removesuffix("_log.out"), log.stat()
            if rank.isdecimal() and int(rank) not in known and seen.st_mtime >= since:
                lines = [line for line in lines_of(log, max(0, seen.st_size - MOST_LINE)) if line.strip()]
                found.update({int(rank): first_line(lines[-1].decode(errors="replace"))} if lines else {})
    return found


def read_records(folder: Path) -> Records:
    """All that the ranks of an attempt wrote into its folder."""
    events: dict[int, list[dict[str, Any]]] = {}
    beats: dict[int, Beat] = {}
    unread, lost, notes = set(), False, []
    files = _ranks(folder)
    for rank, path in files["jsonl"]:
        events[rank], wrong = _events(path)
        if wrong:
            unread.add(rank)
            lost = lost or wrong != EMPTY  # a full disk leaves empty files: then there was nothing
            notes.append(f"{path} {wrong}")
    for rank, path in files["beat"]:
        beat = _beat(path)
        if beat is None:
            unread.add(rank)
            notes.append(f"{path} is damaged")
        else:
            beats[rank] = beat
    return Records(events, beats, frozenset(unread), lost, tuple(notes))


def read_events(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Events by rank; a line that is damaged, or that a full disk cut short, is left out."""
    return {rank: _events(path)[0] for rank, path in _ranks(folder)["jsonl"]}


def read_beats(folder: Path) -> dict[int, Beat]:
    """Last signs of life by rank."""
    return {rank: beat for rank, path in _ranks(folder)["beat"] if (beat := _beat(path))}


EMPTY = "is empty"


def _events(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The sound events of a rank, and what is wrong with its file, or ""."""
    found: list[dict[str, Any]] = []
    damaged = 0
    try:
        for line in lines_of(path, 0, MOST_EVENTS):
            event = _event(line)
            damaged += event is None
            found += [event] if event else []
        large = path.stat().st_size > MOST_EVENTS
    except OSError as error:
        return found, f"cannot be read: {error.strerror or error}"
    if large:
        return found, f"is larger than {MOST_EVENTS >> 20} MiB: only its beginning is read"
    if damaged:
        return found, f"has {damaged} damaged line{'s' * (damaged > 1)}"
    return found, "" if found else EMPTY


def _event(line: bytes) -> dict[str, Any] | None:
    """One event, or None where it is none of ours: each has what every event of its name has."""
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not (isinstance(event, dict) and is_text(event.get("event")) and is_time(event.get("time"))):
        return None
    step = event.setdefault("step", None)
    whole = (step is None or is_step(step)) and is_time(event.get("seconds", 0))
    for name, rule in FIELDS.get(event["event"], {}).items():
        whole = whole and rule(event.get(name))
    return event if whole else None


def _beat(path: Path) -> Beat | None:
    with contextlib.suppress(ValueError, OSError):
        step, when, *stage = next(lines_of(path, 0, MOST_LINE), b"").decode().strip().split(" ", 2)
        beat = Beat(int(step), float(when), *(stage or [""]))
        return beat if is_step(beat.step) and is_time(beat.time) and beat.stage.isprintable() else None
    return None


def read_requeue(folder: Path) -> list[tuple[float, str]]:
    """(Unix time, answer) of each try of the batch script to have its job requeued."""
    lines: list[bytes] = []
    with contextlib.suppress(OSError):
        lines += lines_of(folder / "requeue", 0, MOST_LINE)
    found = [re.fullmatch(r"([0-9]{1,11}) (.+)", line.decode(errors="replace")) for line in lines]
    return [(float(match[1]), match[2].strip()) for match in found if match]


def _ranks(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Ranks and their files in an attempt's folder, in order, by kind of file."""
    found: dict[str, list[tuple[int, Path]]] = {"jsonl": [], "beat": []}
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if match := RANK_FILE.fullmatch(name):
                found[match[2]].append((int(match[1]), folder / name))
    return {kind: sorted(ranks) for kind, ranks in found.items()}


def lines_of(path: Path, start: int = 0, most: int | None = None) -> Iterator[bytes]:
    """The lines of a file without their ends, read as they are asked for, in at most `most` bytes from byte `start` on.

    A line of more than `MOST_LINE` bytes comes in pieces. Raises `OSError`.
    """
    with open_file(path) as file:
        file.seek(start)
        while line := file.readline(MOST_LINE if most is None else min(MOST_LINE, most)):
            most = None if most is None else most - len(line)
            yield line.removesuffix(b"\n")


def attempt_lines(log: Path, restart: int, only: str = "") -> list[str]:
    """The lines of one attempt in a log that all attempts of a job share: those that hold `only`.

    However large the log is, at most `MOST_LINES` of the beginning and as many of the end are kept, each cut at 4 KiB.
    """
    head: list[str] = []
    tail: deque[str] = deque(maxlen=MOST_LINES)
    with contextlib.suppress(OSError):
        start, stop = _span(log, restart)
        for line in lines_of(log, start, stop - start):
            if only.encode() in line:
                text = line[:4096].decode(errors="replace").rstrip("\r")
                (head if len(head) < MOST_LINES else tail).append(text)
    return [*head, *tail]


def _span(log: Path, restart: int) -> tuple[int, int]:
    """Where the lines of an attempt begin and end, as bytes of the log; the same twice where there are none."""
    with open_file(log) as file:
        start = None
        for place, number in _marks(file):
            if start is not None:
                return start, place
            start = place if number == restart else None
        end = file.tell()
    return (end, end) if start is None else (start, end)


def _marks(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """(Place, number) of every line that begins an attempt."""
    base, kept = -1, b"\n"
    while chunk := file.read(MOST_LINE):
        data, end = kept + chunk, 0
        for match in MARK.finditer(data):
            yield base + match.start() + 1, int(match[1])
            end = match.end()
        kept = data[max(end, len(data) - 64) :]  # the next may begin here
        base += len(data) - len(kept)


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


def newest_saved(attempts: Path, key: str, out: Path) -> int | None:
    """The step of the checkpoint that a job's attempts wrote last, of the training with this key in the folder `out`.

    Events of earlier releases do not say of which training they are: they count for none.
    """
    try:
        folders = list(attempts.iterdir())
    except OSError:
        return None
    place = str(out.absolute())
    saved = [
        (e["time"], e["step"])
        for folder in folders
        for e in _events(rank_events(folder, 0))[0]
        if e["event"] == "checkpoint" and (e.get("key"), e.get("out")) == (key, place)
    ]
    return max(saved)[1] if saved else None
