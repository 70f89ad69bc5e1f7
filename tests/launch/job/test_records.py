"""What ranks and batch scripts wrote, read back: whole, cut short, not there."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from bingo.launch.job.causes import find_cause
from bingo.launch.job.records import (
    MOST_LINE,
    attempt_lines,
    cause_of,
    lines_of,
    newest_saved,
    read_beats,
    read_events,
    read_records,
)

pytestmark = pytest.mark.quick
START = b'{"time": 1, "event": "start", "host": "c1", "pid": 1}\n'
PEER = (
    b'{"time": 9, "event": "failed", "kind": "peer", "error": "RuntimeError: Connection closed by peer", "step": 7}\n'
)
WRONG = (
    b'{"a": 1}', b"[]", b"7", b"null", b'"x"', b"\xff\xfe", b"\0" * 300, b"{" * 100_000, b"9" * 5_000,
    b'{"time": NaN, "event": "step", "step": 1}', b'{"time": 1e400, "event": "step", "step": 1}',
    b'{"time": -5, "event": "step", "step": 1}', b'{"time": true, "event": "step", "step": 1}',
    b'{"time": 5, "event": ["step"], "step": 1}', b'{"time": 5, "event": "step", "step": true}',
    b'{"time": 5, "event": "step", "step": -1}', b'{"time": 5, "event": "step", "step": 1.5}',
    b'{"time": 5, "event": "checkpoint", "step": 1, "seconds": "2"}', b'{"time": 5, "event": "left", "step": 1}',
    b'{"time": 5, "event": "checkpoint", "step": 1, "seconds": Infinity}', b'{"time": 5, "event": "start", "pid": 1}',
    b'{"time": 5, "event": "preflight", "slow": {"c1": 3}, "excluded": []}', b'{"time": 5, "event": "st',
    b'{"time": 5, "event": "step", "step": 1' + b"0" * 400 + b"}",
)  # fmt: skip


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


@pytest.mark.parametrize("at", range(len(WRONG)))
def test_a_line_that_is_none_of_ours_is_told_of(tmp_path: Path, at: int) -> None:
    path = tmp_path / "rank-0.jsonl"
    path.write_bytes(START + WRONG[at] + b"\n" + PEER)
    found = read_records(tmp_path)
    assert [e["event"] for e in found.events[0]] == ["start", "failed"]
    assert found.notes == (f"{path} has 1 damaged line",)
    assert (found.unread, found.lost) == ({0}, True)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "rank-0.jsonl").mkdir()
    (tmp_path / "rank-1.jsonl").symlink_to("rank-1.jsonl")
    os.mkfifo(tmp_path / "rank-2.jsonl")
    (tmp_path / "rank-3.jsonl").write_bytes(b"")
    (tmp_path / "rank-x.jsonl").write_bytes(START)
    (tmp_path / "rank-0.beat").mkdir()
    os.mkfifo(tmp_path / "rank-2.beat")
    for at, text in enumerate((b"\0" * 160, b"7 nan s", b"7 1e400 s", b"-7 5 s", b"7", b"\xff 5 s", b"7 5 \x1b[2J")):
        (tmp_path / f"rank-{at + 10}.beat").write_bytes(text)
    found = read_records(tmp_path)
    assert [note.removeprefix(f"{tmp_path}/") for note in found.notes] == [
        "rank-0.jsonl cannot be read: Is a directory",
        "rank-1.jsonl cannot be read: Too many levels of symbolic links",
        "rank-2.jsonl cannot be read: it is no file",
        "rank-3.jsonl is empty",
        *(f"rank-{n}.beat is damaged" for n in (0, 2, *range(10, 17))),
    ]
    assert (found.events, found.beats) == ({n: [] for n in range(4)}, {})
    assert read_records(tmp_path / "nothing").events == {}


@pytest.mark.parametrize("damaged", [b"\0" * 4096, START + b"\0" * 50, START + b'{"time": 2, "ev', b"", b"hello\n"])
def test_a_damaged_record_blames_nobody(tmp_path: Path, damaged: bytes) -> None:
    """The file of rank 1 went down with the power: it may have failed first, have left, or have hung."""
    folder = tmp_path / "attempts" / "7-0"
    folder.mkdir(parents=True)
    (folder / "rank-0.jsonl").write_bytes(START + PEER)
    (folder / "rank-1.jsonl").write_bytes(damaged)
    cause = cause_of(tmp_path, "7", 0, 70)
    assert (cause.kind, cause.rank) == ("peer only", 0)
    assert cause.sentence.endswith("; the record of rank 1 is damaged")
    (folder / "rank-0.jsonl").write_bytes(START + PEER.replace(b"Connection closed by peer", b"Timed out"))
    assert cause_of(tmp_path, "7", 0, 70).kind == "peer only", "not a hang of rank 1"
    (folder / "rank-1.jsonl").write_bytes(START)
    assert cause_of(tmp_path, "7", 0, 70).kind == "hang", "a whole file that says nothing is one of a rank that hung"
    (folder / "rank-0.jsonl").write_bytes(b"\0" * 99)
    assert cause_of(tmp_path, "7", 0, 70).sentence == "it ended with status 70; what its ranks recorded is damaged"


def test_a_large_log_costs_no_memory(tmp_path: Path) -> None:
    """300 MB, most of them a hole in the file and a line without an end."""
    log = tmp_path / "7_batch.log"
    with open(log, "wb") as file:
        file.write(b"bingo: attempt 0 on c1\n" + b"a line\n" * 10_000)
        file.seek(300 << 20)
        file.write(b"\nbingo: attempt 1 on c2\n" + b"x" * (3 * MOST_LINE) + b"\nlast\n")
    tracemalloc.start()
    try:
        first, second = attempt_lines(log, 0), attempt_lines(log, 1)
        assert sum(1 for _ in lines_of(log)) > 300
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert (first[:2], len(first)) == (["bingo: attempt 0 on c1", "a line"], 4_000)
    assert (second[0], second[-1], max(map(len, second))) == ("bingo: attempt 1 on c2", "last", 4096)


def test_marks_across_the_pieces_in_which_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "7_batch.log"
    for shift in range(-30, 4):
        log.write_bytes(b"y" * (MOST_LINE + shift) + b"\nbingo: attempt 3 on c1\nthere\nbingo: attempt 4 on c1\n")
        assert attempt_lines(log, 3) == ["bingo: attempt 3 on c1", "there"]
    assert json.dumps(attempt_lines(log, 3, "there")) == '["there"]'


def test_what_the_attempts_of_a_job_have_saved(tmp_path: Path) -> None:
    """The newest by time, of this training in this folder alone; lines that are none of ours count for nothing."""
    out = tmp_path / "run"

    def attempt(name: str, *saved: tuple[int, int, str, Path]) -> None:
        (tmp_path / "attempts" / name).mkdir(parents=True)
        lines = [
            json.dumps({"time": time, "event": "checkpoint", "step": step, "key": key, "out": str(place)})
            for time, step, key, place in saved
        ]
        lines += ['{"time": 99, "event": "checkpoint", "step": 900}', "\0" * 40, '{"time": 99, "event": "checkpoi']
        (tmp_path / "attempts" / name / "rank-0.jsonl").write_text("\n".join(lines))

    assert newest_saved(tmp_path / "attempts", "k", out) is None
    attempt("12-0", (10, 20, "k", out), (20, 30, "k", out))
    attempt("12-1", (30, 25, "k", out), (40, 80, "other", out), (50, 90, "k", tmp_path / "another"))
    (tmp_path / "attempts" / "12-2").mkdir()
    assert newest_saved(tmp_path / "attempts", "k", out) == 25
    assert newest_saved(tmp_path / "attempts", "none", out) is None


def test_the_last_words_of_a_rank_that_recorded_nothing(tmp_path: Path) -> None:
    """Of this start: the log of an earlier one says nothing of it."""
    attempt = tmp_path / "attempts" / "12-1"
    attempt.mkdir(parents=True)
    (attempt / "begin.json").write_text("{}")
    (tmp_path / "12_batch.log").write_text("bingo: attempt 1 on c1\nsrun: error: c1: task 0: Exited with exit code 1\n")
    log = tmp_path / "12_0_log.out"
    log.write_text("Traceback (most recent call last):\nModuleNotFoundError: No module named 'torch'\n\n")
    assert cause_of(tmp_path, "12", 1, 1).sentence.endswith("status 1; ModuleNotFoundError: No module named 'torch'")
    os.utime(log, (1.0, 1.0))
    assert cause_of(tmp_path, "12", 1, 1).sentence.endswith("status 1; nothing is recorded (is the disk full?)")
