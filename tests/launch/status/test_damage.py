"""Every file of a submission damaged in every way, read through the verbs: a sentence or a note, never a traceback."""

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.files import write_json
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.job.attempt import STOP, end
from bingo.launch.submit.submission import Submission
from tests.support.damage import flips, truncations
from tests.support.two_chains import T

ATTEMPT = "jobs/one/attempts/7-1"
FILES = (
    "jobs.jsonl", "submission.json", "refused", "jobs/one/cancelled", "jobs/one/7_batch.log",
    *(f"{ATTEMPT}/{name}" for name in ("begin.json", "end.json", "rank-0.jsonl", "rank-0.beat", "preflight.json")),
    f"{ATTEMPT}/requeue",
)  # fmt: skip
FOREIGN = (b"", b"null", b"[]", b"7", b'{"a": 1}', b'"x"', b"\0" * 4096, b"\xff\xfe\n", b"{" * 50_000)


def damages(data: bytes) -> Iterator[bytes]:
    """Foreign content; zeros from each tenth on; numbers that are none; one flip in five; truncations."""
    yield from FOREIGN
    yield from (data[: len(data) * i // 10] + bytes(len(data) - len(data) * i // 10) for i in range(10))
    for number, other in itertools.product((b"7", b"0", b"75", b"1795522"), (b"NaN", b"1e400", b"-3", b"true", b"{}")):
        yield data.replace(b" " + number, b" " + other)
    yield from (damaged for _, damaged in itertools.islice(flips(data), 0, None, 5))
    yield from (damaged for _, damaged in truncations(data))


@pytest.fixture
def full(made: Submission) -> Submission:
    """Both jobs and what each may have left; job one waits to start again."""
    folder = made.folder
    write_json(folder / "refused", {"time": T, "job": "two", "reason": "no such partition"})
    write_json(folder / "jobs/one/cancelled", {"time": T, "reason": "bingo cancel"})
    write_json(folder / ATTEMPT / "preflight.json", {"time": T, "slow": {}, "excluded": []})
    (folder / ATTEMPT / "requeue").write_text(f"{T + 110} Unable to contact slurm controller\n{T + 112} accepted\n")
    (folder / ATTEMPT / "rank-0.beat").write_text(f"20 {T + 105:.3f} stage of one\n")
    (folder / "jobs/one/7_batch.log").write_text("bingo: attempt 0 on c1\nx\nbingo: attempt 1 on c1\ny\n")
    return made


def damaged_ways(path: Path) -> Iterator[Callable[[], None]]:
    yield from ((lambda data=data: path.write_bytes(data) and None) for data in damages(path.read_bytes()))  # type: ignore[misc]
    yield from (path.mkdir, lambda: path.symlink_to(path), lambda: os.mkfifo(path), lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_status_history_and_logs(
    full: Submission, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A verb ends with 0, 1, or 2 and one sentence that names the file."""
    waits = {"7": Row("7", "PENDING", "BeginTime", T, T, restarts=2), "8": Row("8", "PENDING", "Dependency", T)}
    past = {"7": (Row("7", "NODE_FAIL", "", T, T, T + 10, T + 60, 0, "c[1-2]"),)}
    said = [Snapshot(T + 120, T, queue, past) for queue in (waits, {}, None)]
    said = [*said[:2], Snapshot(T + 120, T, None, None, ("squeue gives no answer",))]
    path = full.folder / name
    whole, tried = path.read_bytes(), 0
    for damage, snapshot in zip(damaged_ways(path), itertools.cycle(said)):
        monkeypatch.setattr(slurm, "ask", lambda *a, said=snapshot, **k: said)
        path.unlink()
        damage()
        for verb in (["status"], ["status", "--json"], ["history"], ["logs"]):
            status = main([verb[0], str(full.root), *verb[1:]])
            told = capsys.readouterr()
            assert status in (0, 1) or (status == 2 and told.err.count("\n") == 1 and path.name in told.err), told.err
            if verb[1:] and status < 2:
                json.loads(told.out)
        tried += 1
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
    assert tried > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(ATTEMPT)])
def test_the_end_of_an_attempt(full: Submission, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies there, the next start's end is decided, and no damage stops a job for lack of progress."""
    for key, value in {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    path, job = full.folder / name, full.folder / "jobs/one"
    (job / "cancelled").unlink()
    line = {"time": time.time(), "event": "start", "host": "c1", "pid": 1}
    (job / "attempts" / "7-2").mkdir()
    (job / "attempts" / "7-2" / "rank-0.jsonl").write_text(json.dumps(line) + "\n")
    whole = path.read_bytes()
    for damaged in damages(whole):
        path.write_bytes(damaged)
        assert end(job, 137) != STOP
