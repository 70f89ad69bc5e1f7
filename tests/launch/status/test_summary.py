"""The chain as one object: its line, what to type next, the rows of its table."""

import shlex
from pathlib import Path

import pytest

from bingo.launch.status.states import State
from bingo.launch.status.summary import summary_of, table

pytestmark = pytest.mark.quick
ROOT = Path("runs/x")
DONE, RUNS, WAITS = State("a", None, "done", ""), State("b", None, "running", ""), State("c", None, "waiting", "")
FAILED = State("d e", None, "failed", "it broke")
STUCK, GONE = State("f", None, "stuck", "it is held"), State("g", 1, "cancelled", "by hand")
UNKNOWN = State("h", None, "unknown", "no answer")


@pytest.mark.parametrize(
    ("states", "state", "line"),
    [
        ([DONE, DONE], "done", "done: 2 done"),
        ([DONE, RUNS, WAITS, WAITS], "running", "running: 1 done, 1 running, 2 waiting"),
        ([DONE, WAITS], "waiting", "waiting: 1 done, 1 waiting"),
        ([WAITS, UNKNOWN], "unknown", "not known: 1 waiting, 1 unknown"),
        ([RUNS, UNKNOWN], "running", "running: 1 running, 1 unknown"),
        (
            [RUNS, FAILED, FAILED, GONE],
            "failed",
            "failed: d e: it broke (and 1 more); 1 behind it will not run; 1 go on",
        ),
        ([RUNS, GONE, STUCK], "stuck", "stuck: f: it is held"),
        ([DONE, GONE, GONE], "cancelled", "not complete: g will not run; by hand"),
    ],
)
def test_the_worst_that_happened_is_told(states: list[State], state: str, line: str) -> None:
    found = summary_of(states, ROOT)
    assert (found.state, found.line) == (state, line)
    assert found.fine is (state in ("done", "running", "waiting", "unknown"))


def test_what_to_type_next() -> None:
    assert summary_of([FAILED], ROOT).next == ("bingo logs runs/x 'd e'", "bingo repair runs/x")
    assert summary_of([RUNS], ROOT).next == ("bingo logs runs/x -f",)
    assert summary_of([DONE], ROOT).next == ()
    hostile = State("it's; $(id)", None, "failed", "")
    logs, repair = summary_of([hostile], Path("-a b/$HOME")).next
    assert shlex.split(logs) == ["bingo", "logs", "./-a b/$HOME", "it's; $(id)"]
    assert repair == "bingo repair './-a b/$HOME'"


def test_tasks_in_the_same_state_share_a_row() -> None:
    tasks = [State("arr", n, "running", "step 3", nodes="c1", since=40.0, attempts=1 + (n == 3)) for n in range(3)]
    last = State("arr", 3, "done", "", since=40.0, attempts=2)
    rows = table([*tasks, last], 100.0)
    assert [row.job for row in rows] == ["arr [0-2]", "arr [3]"]
    assert (rows[0].state, rows[0].nodes, rows[0].text) == ("running", "c1", "step 3")
    assert (rows[0].time[:4], rows[1].time[-4:], rows[1].text) == ("for ", " ago", " (start 2)")
