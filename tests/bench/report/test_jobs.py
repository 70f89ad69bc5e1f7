"""The ledger of a submission as a chart: phases that add up, causes, jobs that have not ended."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from bingo.bench.report import jobs
from bingo.bench.report.page import write_reports
from bingo.errors import UserError
from bingo.launch.status.history import ledger
from bingo.launch.submit.submission import Submission
from tests.support.page import Page
from tests.support.submissions import attempt, job, submission
from tests.support.two_chains import T, event

DONE = {"kind": "done", "sentence": "all its stages are done"}
HANG = {"kind": "hang", "sentence": "rank 1 (c2) hung at step 80", "rank": 1, "node": "c2", "step": 80}


@pytest.fixture
def made(tmp_path: Path) -> Submission:
    """A job that hung at step 80 (checkpoint at 50) and then ended well, one that runs, one that has not begun."""
    specs = [job(tmp_path, "teacher"), job(tmp_path, "array", tasks=2)]
    made = submission(tmp_path, specs, {"teacher": "8", "array": "9"}, T)
    first = [event(150, "stage", name="t"), event(160, "step", step=1)]
    first.append(event(200, "checkpoint", step=50, seconds=8.0))
    end = {"time": T + 270, "rc": 1, "decision": 75, "cause": HANG}
    begin = {"time": T + 130, "nodes": "c[1-2]"}
    attempt(made, "teacher", "8-0", begin=begin, end=end, events={0: first}, beat=f"80 {T + 258:.3f} t")
    second = [event(320, "stage", name="t"), event(325, "resumed", step=50)]
    second.append(event(400, "finished", name="t", skipped=False))
    end = {"time": T + 410, "rc": 0, "decision": 0, "cause": DONE}
    attempt(made, "teacher", "8-1", begin={"time": T + 310, "nodes": "c[1-2]"}, end=end, events={0: second})
    running = [event(460, "stage", name="s")]
    attempt(made, "array", "9_0-0", begin={"time": T + 450}, events={0: running}, beat=f"30 {T + 500:.3f} s")
    return made


def test_phases_add_up_to_the_whole_start(made: Submission) -> None:
    first, *_ = ledger(made, None, T + 1000)
    spans = jobs.spans_of(first)
    assert [span.kind for span in spans] == ["queued", "start-up", "checkpoints", "training", "steps done again"]
    assert all(a.end == pytest.approx(b.start) for a, b in itertools.pairwise(spans))
    assert (spans[0].start, spans[-1].end) == (T, T + 270)
    assert spans[-1].end - spans[-1].start == pytest.approx(first.lost_s) == pytest.approx((110 - 8) * 30 / 80, rel=0.1)


def test_a_start_without_an_end_reaches_to_its_last_sign(made: Submission) -> None:
    last = ledger(made, None, T + 10**6)[-1]
    assert jobs.entry_end(last) == pytest.approx(T + 500)
    assert jobs.bar_of("array [0]", [last], T, 60.0).text == "no end recorded"


def test_the_page_names_every_cause(made: Submission, tmp_path: Path) -> None:
    said = write_reports([made.folder], tmp_path / "page.html")
    assert said[0] == f"{made.folder}: 3 starts"
    page = Page((tmp_path / "page.html").read_text())
    causes = Counter(row[-1] for row in page.rows)
    assert causes["hang: rank 1 (c2) hung at step 80"] == 1
    assert causes["done: all its stages are done"] == 1
    assert causes["it goes on, or left no record of its end"] == 1
    assert "hang, done" in page.text
    assert "minutes since the first was handed over" in page.text
    assert write_reports([made.root], None)[-1] == f"report: {made.root / 'report.html'}"


def test_nothing_has_started(tmp_path: Path) -> None:
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, T)
    with pytest.raises(UserError, match="none of its jobs has started yet; look with `bingo status "):
        jobs.content(made.folder)


def test_units() -> None:
    assert [jobs.unit_of(seconds)[0] for seconds in (100, 1e3, 2e4, 1e6)] == ["seconds", "minutes", "hours", "days"]
