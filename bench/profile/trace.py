"""A trace read back: its events, and arithmetic of the intervals that they cover."""

import gzip
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bingo.errors import UserError

Interval = tuple[float, float]
REMEDY = "profile again, or give another run"


class Event(NamedTuple):
    """Something that took time: microseconds; kind: kineto's category; id: joins a launch and its kernel."""

    name: str
    kind: str
    start: float
    end: float
    thread: Any
    id: int


def read_trace(path: Path) -> list[Event]:
    """The events of a trace with a duration, in order of their start. `UserError` for what is no trace."""
    try:
        opened = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115
        with opened as file:
            events = json.loads(file.read())["traceEvents"]
        found = [_event(event) for event in events if event.get("ph") == "X" and "dur" in event]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; {REMEDY}") from error
    except (EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged, or no trace of torch.profiler; {REMEDY}") from None
    return sorted(found, key=lambda event: (event.start, -event.end))


def _event(event: dict[str, Any]) -> Event:
    start, long = float(event["ts"]), float(event["dur"])
    joins = event.get("args", {}).get("correlation", -1)
    return Event(str(event["name"]), str(event.get("cat", "")), start, start + long, event.get("tid"), int(joins))


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time in intervals that do not touch, in order."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def length(intervals: Sequence[Interval]) -> float:
    return sum(end - start for start, end in intervals)


def outside(intervals: Iterable[Interval], others: Iterable[Interval]) -> float:
    """How much of the time of some intervals no other one covers."""
    these, those = union(intervals), union(others)
    return length(union([*these, *those])) - length(those)


def clipped(intervals: Iterable[Interval], others: Sequence[Interval]) -> list[Interval]:
    """What of some intervals lies in others."""
    pairs = [(max(a, c), min(b, d)) for a, b in intervals for c, d in others]
    return [(start, end) for start, end in pairs if start < end]


def self_times(events: Sequence[Event]) -> list[tuple[Event, float]]:
    """Each event and its time without those inside it, on the same thread."""
    times = [event.end - event.start for event in events]
    open_at: dict[Any, list[int]] = {}
    for at, event in enumerate(events):
        stack = open_at.setdefault(event.thread, [])
        while stack and events[stack[-1]].end <= event.start:
            stack.pop()
        if stack:
            times[stack[-1]] -= event.end - event.start
        stack.append(at)
    return list(zip(events, times, strict=True))
