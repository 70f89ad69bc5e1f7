"""The chain as one object: one line about all of it, what to type next, and the rows of its table."""

import itertools
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bingo.launch.status.states import DONE, State
from bingo.paths import quoted
from bingo.progress import duration

ORDER = ("done", "done before", "running", "starting", "ending", "requeued", "waiting", "stuck", "unknown")


class Summary(NamedTuple):
    """state: failed, stuck, cancelled, done, unknown, running or waiting; next: commands that make sense now."""

    state: str
    line: str
    next: tuple[str, ...]

    @property
    def fine(self) -> bool:
        return self.state in ("done", "running", "waiting", "unknown")


def summary_of(states: Sequence[State], root: Path) -> Summary:
    """What became of the chain so far."""
    for look in (_failed, _stuck, _cancelled):
        if found := look(states, root):
            return found
    counts = Counter(state.state for state in states)
    told = ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
    if all(state.state in DONE for state in states):
        return Summary("done", f"done: {told}", ())
    if counts["unknown"] and not any(counts[name] for name in ("running", "starting", "ending")):
        return Summary("unknown", f"not known: {told}", ())
    if not any(counts[name] for name in ("running", "starting", "ending")):
        return Summary("waiting", f"waiting: {told}", ())
    return Summary("running", f"running: {told}", (f"bingo logs {quoted(root)} -f",))


def _failed(states: Sequence[State], root: Path) -> Summary | None:
    failed = [state for state in states if state.state == "failed"]
    if not failed:
        return None
    others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    line = f"failed: {name(failed[0])}: {failed[0].text}{others}{_rest(states)}"
    return Summary(
        "failed", line, (f"bingo logs {quoted(root)} {shlex.quote(failed[0].job)}", f"bingo repair {quoted(root)}")
    )


def _rest(states: Sequence[State]) -> str:
    gone = sum(state.state in ("cancelled", "stuck", "never sent") for state in states)
    going = sum(state.state in ("running", "starting", "ending", "requeued", "waiting") for state in states)
    return (f"; {gone} behind it will not run" if gone else "") + (f"; {going} go on" if going else "")


def _stuck(states: Sequence[State], root: Path) -> Summary | None:
    stuck = [state for state in states if state.state == "stuck"]
    if not stuck:
        return None
    return Summary("stuck", f"stuck: {name(stuck[0])}: {stuck[0].text}", (f"bingo repair {quoted(root)}",))


def _cancelled(states: Sequence[State], root: Path) -> Summary | None:
    lost = [state for state in states if state.state in ("cancelled", "never sent")]
    if not lost:
        return None
    names = ", ".join(dict.fromkeys(state.job for state in lost))
    return Summary(
        "cancelled", f"not complete: {names} will not run; {lost[0].text}", (f"bingo repair {quoted(root)}",)
    )


def name(state: State) -> str:
    return state.job if state.task is None else f"{state.job} [{state.task}]"


class TableRow(NamedTuple):
    """A row for people: tasks of an array that are in the same state for the same reason share one."""

    job: str
    state: str
    time: str
    nodes: str
    text: str


def table(states: Sequence[State], now: float) -> list[TableRow]:
    """The rows of the table, in the chain's order."""
    rows = []
    for _, same in itertools.groupby(states, lambda s: (s.job, s.state, s.text, s.nodes)):
        group = list(same)
        first, last = group[0], group[-1]
        label = name(first) if len(group) == 1 else f"{first.job} [{first.task}-{last.task}]"
        rows.append(TableRow(label, first.state, _time(first, now), first.nodes, _text(first)))
    return rows


def _time(state: State, now: float) -> str:
    if state.since is None:
        return ""
    long = duration(now - state.since)
    ended = state.state in ("done", "failed", "cancelled")
    return f"{long} ago" if ended else f"for {long}"


def _text(state: State) -> str:
    again = state.attempts > 1 and state.state in ("running", "starting", "ending", "done", "failed")
    return state.text + (f" (start {state.attempts})" if again else "")
