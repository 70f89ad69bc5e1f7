"""The ledger of attempts: where time went, which steps were lost, why each start ended; and the logs across starts."""

import itertools
import json
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import slurm
from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.status import logs
from bingo.launch.status.command import history as history_verb
from bingo.launch.status.command import logs as logs_verb
from bingo.launch.status.history import ledger, lines, totals
from bingo.launch.submit.submission import Submission
from tests.support.submissions import attempt, job, submission

pytestmark = pytest.mark.quick

T = 1_795_522_000.0
PAST = {
    "7": (
        Row("7", "NODE_FAIL", "", T, T, T + 10, T + 60, 0, "c[1-2]"),
        Row("7", "RUNNING", "", T + 60, T + 70, T + 75, None, 1, "c[1-2]"),
    )
}


def event(after: float, kind: str, **facts: object) -> dict[str, object]:
    return {"time": T + after, "event": kind, **facts}


@pytest.fixture
def made(tmp_path: Path) -> Submission:
    """A job whose node went down at step 13 (checkpoints at 5 and 10), which then went on and left at step 20."""
    made = submission(tmp_path, [job(tmp_path, "one"), job(tmp_path, "two", "one")], {"one": "7", "two": "8"}, T)
    first = [
        event(12, "start", host="c1", pid=1), event(18, "stage", name="stage of one"), event(20, "step", step=1),
        event(30, "checkpoint", step=5, seconds=2.0), event(40, "checkpoint", step=10, seconds=3.0),
    ]  # fmt: skip
    begin = {"time": T + 11, "host": "c1", "nodes": "c[1-2]", "restart": 0}
    attempt(made, "one", "7-0", begin=begin, events={0: first}, beat=f"13 {T + 50:.3f} stage of one")
    second = [
        event(78, "start", host="c1", pid=1), event(80, "stage", name="stage of one"),
        event(82, "resumed", step=10), event(85, "step", step=11), event(105, "checkpoint", step=20, seconds=4.0),
        event(105, "left", step=20, signal="SIGUSR2"),
    ]  # fmt: skip
    end = {"time": T + 110, "rc": 75, "decision": 75, "cause": {"kind": "left", "sentence": "asked to leave"}}
    attempt(made, "one", "7-1", begin={"time": T + 76, "nodes": "c[1-2]"}, end=end, events={0: second})
    return made


def test_lost_steps_and_time(made: Submission) -> None:
    first, second = ledger(made, PAST, T + 200)
    assert (first.attempt, first.queued_s, first.startup_s, first.ended) == (1, 10, 10, T + 60)
    assert (first.steps, first.steps_lost, first.checkpoint_s) == (13, 3, 5.0)
    assert first.training_s == 60 - 20 - 5
    assert first.lost_s == pytest.approx(35 * 3 / 13)
    assert first.cause is not None
    assert (first.cause["kind"], first.cause["node"]) == ("node lost", "c1"), "the batch script's, which left no end"
    assert (second.queued_s, second.startup_s, second.training_s) == (15, 10, 110 - 85 - 4)
    assert (second.steps, second.steps_lost) == (10, 0)
    assert second.cause == {"kind": "left", "sentence": "asked to leave"}
    total = totals([first, second])[0]
    assert (total.attempts, total.queued_s, total.steps - total.steps_lost) == (2, 25, 20)
    assert total.useful_s == pytest.approx(35 * 10 / 13 + 21)


def test_without_accounting(made: Submission) -> None:
    """The end of a start that left no record is its last sign of life; the queue is timed from what jobs wrote."""
    first, second = ledger(made, None, T + 200)
    assert (first.ended, first.queued_s, first.steps_lost) == (T + 50, 11, 3)
    assert second.queued_s == 76 - 50
    text = list(lines([first, second], T + 200))
    assert text[0] == "one"
    assert "13 steps, 3 of them lost" in text[1]
    assert text[-1].startswith("  in all 2 starts: queued 37 s, ")
    assert text[-1].endswith("lost 6 s (3 of 23 steps)")


def test_a_start_that_never_resumed_loses_nothing_more(made: Submission) -> None:
    """The second start ended while it read the checkpoint: the third one tells where the first one's work went on."""
    folder = made.job_folder("one") / "attempts"
    (folder / "7-1").rename(folder / "7-2")
    attempt(made, "one", "7-1", begin={"time": T + 70}, events={0: [event(71, "stage", name="stage of one")]})
    assert [(entry.steps, entry.steps_lost) for entry in ledger(made, None, T + 200)] == [(13, 3), (0, 0), (10, 0)]


def test_history_verb(made: Submission, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(slurm, "ask", lambda *a, **k: Snapshot(T + 120, T, {}, PAST))
    assert history_verb([str(made.root), "one", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["root", "submission", "attempts", "totals"]
    assert [entry["steps_lost"] for entry in said["attempts"]] == [3, 0]
    assert history_verb([str(made.root), "two"]) == 0
    assert capsys.readouterr().out == "nothing has started yet\n"
    with pytest.raises(UserError, match="has no job 'tow'; did you mean 'two'"):
        history_verb([str(made.root), "tow"])


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
