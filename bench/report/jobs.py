"""Jobs of a submission as a part of a report: when each start waited, started, trained, and why it ended.

Read from the files that the jobs left: no scheduler is asked, so a start whose node went down with all of its writers
ends at its last sign of life.
"""

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from bingo.bench.report.charts import COLOURS, Bar, Chart, Span, timeline
from bingo.errors import UserError
from bingo.paths import quoted
from bingo.progress import duration

PHASES = {"queued": "#b9bec7", "start-up": COLOURS[1], "training": COLOURS[0], "checkpoints": COLOURS[5],
          "steps done again": COLOURS[3], "ended before work": COLOURS[7]}  # fmt: skip
"""Phase of a start -> its colour."""
WELL = "done"
"""Kind of the cause of a start that finished its job."""
MOST_ROWS = 30


class Start(TypedDict):
    """A row of the table: text, and whether it ended well."""

    job: str
    number: int
    nodes: str
    began: str
    spent: str
    steps: str
    cause: str
    well: bool


class Jobs(TypedDict):
    """Everything the template shows. left_out: jobs that are not drawn."""

    chart: Chart | None
    starts: list[Start]
    left_out: int
    notes: list[str]


def is_submission(folder: Path) -> bool:
    return (folder / "submission.json").exists() and (folder / "jobs").is_dir()


def submissions_of(root: Path) -> list[Path]:
    """The folders of all submissions below a root, oldest first."""
    return _launch("submit.submission").submissions(root)[::-1]


def _launch(name: str) -> Any:
    """By name: jobs and measurements do not know each other."""
    return importlib.import_module(f"bingo.launch.{name}")


def content(folder: Path) -> Jobs:
    """Everything the template shows of one submission.

    `UserError`: its records cannot be read, or none of its jobs has started.
    """
    made, now = _launch("submit.submission").read(folder), time.time()
    found = _launch("status.history").ledger(made, None, now)
    if not found:
        raise UserError(f"{folder}: none of its jobs has started yet; look with `bingo status {quoted(made.root)}`")
    began = [entry.started - (entry.queued_s or 0.0) for entry in found if entry.started is not None]
    zero = min(began, default=now)
    rows: dict[str, list[Any]] = {}
    for entry in found:
        name = entry.job if entry.task is None else f"{entry.job} [{entry.task}]"
        rows.setdefault(name, []).append(entry)
    unit, per = unit_of(max((entry_end(entry) for entry in found), default=zero) - zero)
    bars = [bar_of(name, entries, zero, per) for name, entries in rows.items()][:MOST_ROWS]
    words = "; ".join(f"{bar.name}: {bar.text}" for bar in bars)
    title = f"jobs of {made.root.name}, {time.strftime('%d.%m.%Y %H:%M', time.localtime(zero))}"
    label = f"{unit} since the first was handed over"
    return {
        "chart": timeline(title, bars, PHASES, f"Jobs over time. {words}", label=label) if began else None,
        "starts": [start_of(name, entry) for name, entries in rows.items() for entry in entries],
        "left_out": len(rows) - len(bars),
        "notes": list(dict.fromkeys(note for entry in found for note in entry.notes)),
    }


def unit_of(seconds: float) -> tuple[str, float]:
    """A unit in which so much time is a number that people can read, and its seconds."""
    for name, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds > 3 * size:
            return name, size
    return "seconds", 1.0


def entry_end(entry: Any) -> float:
    """Its end; of a start that runs, or whose end is not recorded, the last that was heard of it."""
    if entry.ended is not None:
        return float(entry.ended)
    return float((entry.started or 0.0) + (entry.startup_s or 0.0) + (entry.training_s or 0.0) + entry.checkpoint_s)


def bar_of(name: str, entries: Sequence[Any], zero: float, per: float) -> Bar:
    """All starts of a job, in units of `per` seconds since `zero`; a mark where one ended and not well."""
    spans = [
        Span((span.start - zero) / per, (span.end - zero) / per, span.kind)
        for entry in entries
        if entry.started is not None
        for span in spans_of(entry)
    ]
    bad = [entry for entry in entries if entry.cause is not None and entry.cause["kind"] != WELL]
    marks = [((entry.ended - zero) / per, entry.cause["kind"]) for entry in bad if entry.ended is not None]
    kinds = list(dict.fromkeys(entry.cause["kind"] for entry in bad))
    last = entries[-1].cause
    state = "no end recorded" if last is None else "done" if last["kind"] == WELL else "ended"
    return Bar(name, spans, marks, ", ".join([*kinds, state]) if kinds != [state] else state)


def spans_of(entry: Any) -> list[Span]:
    """The phases of one start, in Unix seconds; steps that are done again lie at the end of its training."""
    at, end = entry.started, entry_end(entry)
    spans = [Span(at - entry.queued_s, at, "queued")] if entry.queued_s else []
    if entry.startup_s is None:
        return [*spans, Span(at, max(end, at), "start-up" if entry.cause is None else "ended before work")]
    first = min(at + entry.startup_s, end)
    saved = min(first + entry.checkpoint_s, end)
    lost = min(entry.lost_s, end - saved)
    phases = [("start-up", at, first), ("checkpoints", first, saved), ("training", saved, end - lost)]
    phases.append(("steps done again", end - lost, end))
    return [*spans, *(Span(start, stop, kind) for kind, start, stop in phases if stop > start)]


def start_of(name: str, entry: Any) -> Start:
    """A row of the table."""
    times = (("queued", entry.queued_s), ("start-up", entry.startup_s), ("training", entry.training_s))
    cause, open_end = entry.cause, "it goes on, or left no record of its end"
    return {
        "job": name,
        "number": entry.attempt,
        "nodes": entry.nodes or "?",
        "began": "" if entry.started is None else time.strftime("%d.%m. %H:%M:%S", time.localtime(entry.started)),
        "spent": ", ".join(f"{what} {duration(value)}" for what, value in times if value is not None),
        "steps": f"{entry.steps:,}" + (f", {entry.steps_lost:,} of them again" if entry.steps_lost else ""),
        "cause": open_end if cause is None else f"{cause['kind']}: {cause['sentence']}",
        "well": cause is None or cause["kind"] == WELL,
    }
