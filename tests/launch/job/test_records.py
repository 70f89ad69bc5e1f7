"""What ranks and batch scripts wrote, read back: whole, cut short, not there."""

from pathlib import Path

import pytest

from bingo.launch.job.causes import find_cause
from bingo.launch.job.records import attempt_lines, read_beats, read_events

pytestmark = pytest.mark.quick


def test_lines_of_one_attempt_and_a_line_cut_short(tmp_path: Path) -> None:
    log = tmp_path / "12_batch.log"
    log.write_text("module: loaded\nbingo: attempt 0 on c1\nold\nbingo: attempt 1 on c2\nnew\n")
    assert attempt_lines(log, 1) == ["bingo: attempt 1 on c2", "new"]
    assert attempt_lines(log, 0) == ["bingo: attempt 0 on c1", "old"]
    assert attempt_lines(log, 7) == []
    log.write_text("no attempt here\n")
    assert attempt_lines(log, 0) == attempt_lines(tmp_path / "nothing", 0) == []
    (tmp_path / "rank-0.jsonl").write_text('{"time": 1, "event": "start", "host": "c1", "pid": 1}\n{"time": 2, "ev')
    (tmp_path / "rank-0.beat").write_text("37 1795522677.970 distill knn 0      \n")
    (tmp_path / "rank-1.beat").write_text("")
    assert [e["event"] for e in read_events(tmp_path)[0]] == ["start"]
    (beat,) = read_beats(tmp_path).values()
    assert (beat.step, beat.stage) == (37, "distill knn 0")
    assert find_cause(read_events(tmp_path), read_beats(tmp_path), rc=1).kind == "unknown"
