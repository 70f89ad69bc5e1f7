"""The logs of a chain: those of one job, and followed from start to start and job to job."""

import itertools
import os
import tracemalloc

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.status import logs
from bingo.launch.status.command import logs as logs_verb
from bingo.launch.submit.submission import Submission
from tests.support.two_chains import T

pytestmark = pytest.mark.quick


BATCH = "bingo: attempt 0 on c1\nsrun: lost\nbingo: attempt 1 on c1\nagain\n"


def test_logs_of_a_job(made: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    running = {"7": Row("7", "RUNNING", "", T, T, T + 75, restarts=1), "8": Row("8", "PENDING", "Dependency", T)}
    monkeypatch.setattr(slurm, "ask", lambda *a, **k: Snapshot(T + 120, T, running, {}))
    folder = made.job_folder("one")
    (folder / "7_batch.log").write_text(BATCH)
    (folder / "7_1_log.out").write_text("bingo: attempt 1 on c2\nhello\nhalf")
    assert logs_verb([str(made.root)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "one batch | bingo: attempt 0 on c1"
    assert out[-2:] == ["one rank 1 | hello", "one rank 1 | half"]
    assert logs_verb([str(made.root), "one", "--attempt", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["one batch | bingo: attempt 0 on c1", "one batch | srun: lost"]
    with pytest.raises(UserError, match="one has started 2 times: there is no start 3"):
        logs_verb([str(made.root), "one", "--attempt", "3"])
    assert logs_verb([str(made.root), "one", "--rank", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert logs_verb([str(made.root), "two"]) == 1
    assert capsys.readouterr().out == "two has printed nothing yet: waiting, it waits for one\n"
    with pytest.raises(UserError, match="no job 'tow' here; did you mean 'two'"):
        logs_verb([str(made.root), "tow"])


def test_follow(made: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From one start to the next and to the job behind it, until the chain ends."""
    queue = {"7": Row("7", "PENDING", "BeginTime", T + 60, T + 70, T + 70, restarts=2), "8": Row("8", "PENDING")}
    clock, asked = [0.0], []

    def ask(*args: object, **kwargs: object) -> Snapshot:
        asked.append(clock[0])
        return Snapshot(T + 120, T, queue, {})

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] == 2:
            write("one", "7_0_log.out", "third start\npart")
        elif clock[0] == 4:
            write("one", "7_0_log.out", " of a line\n")
            queue["7"] = Row("7", "COMPLETED", "", T, T, T + 130, T + 140, 2)
        elif clock[0] == 15:
            write("two", "8_batch.log", "second job\n")
        elif clock[0] == 25:
            queue["8"] = Row("8", "COMPLETED", "", T, T, T + 150, T + 160)

    def write(name: str, file: str, text: str) -> None:
        with open(made.job_folder(name) / file, "a") as log:
            log.write(text)

    monkeypatch.setattr(slurm, "ask", ask)
    monkeypatch.setattr(logs, "time", _Clock(clock, sleep))
    write("one", "7_batch.log", BATCH)
    assert logs_verb([str(made.root), "-f"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one rank 0 | third start", "one rank 0 | part of a line", "two batch | second job", "done: 2 done",
    ]  # fmt: skip
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(asked))


class _Clock:
    """Time that passes only while it is slept."""

    def __init__(self, now: list[float], sleep: object) -> None:
        self.now, self.sleep = now, sleep

    def monotonic(self) -> float:
        return self.now[0]

    def time(self) -> float:
        return T + 120 + self.now[0]


def test_an_interrupt_ends_quietly(made: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> Snapshot:
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "ask", interrupted)
    assert logs_verb([str(made.root), "-f"]) == 130


def test_a_large_log_costs_no_memory(made: Submission) -> None:
    """300 MB of it are a hole, and so one line without an end; a user's own line looks like one of a start."""
    path = made.job_folder("one") / "7_0_log.out"
    with open(path, "wb") as file:
        file.write(b"bingo: attempt 0 on c1\nbingo: attempt x\n")
        file.seek(300 << 20)
        file.write(b"\nbingo: attempt 1 on c1\n" + b"a line\n" * 50)
    tracemalloc.start()
    try:
        of = [list(map(len, logs.of_start(logs.Source(path, "one", "7"), ("7", start)))) for start in (0, 1)]
        source = logs.Source(path, "one", "7")
        logs.skip_to_tail(source, True)
        last = list(source.lines())
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert (len(of[0]), max(of[0]), len(of[1])) == (2 + 300, (1 << 20) + 6, 51)
    assert last == ["one | a line"] * 20
    with open(path, "ab") as file:
        file.write(b"half")
    assert list(source.lines()) == []
    with open(path, "ab") as file:
        file.write(b" a line\nand")
    assert list(source.lines()) == ["one | half a line"]
    assert list(source.rest()) == ["one | and"]


@pytest.mark.parametrize("kind", ["folder", "loop", "pipe"])
def test_a_log_that_is_no_file(made: Submission, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "ask", lambda *a, **k: Snapshot(T + 120, T, {}, {}))
    path = made.job_folder("one") / "7_0_log.out"
    {"folder": path.mkdir, "loop": lambda: path.symlink_to(path), "pipe": lambda: os.mkfifo(path)}[kind]()
    assert logs_verb([str(made.root), "one"]) == 0
