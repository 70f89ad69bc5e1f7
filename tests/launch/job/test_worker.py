"""One rank of a job: its exit status and its record, after each kind of end; two ranks joined through loopback."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bingo.config import FeaturesConfig
from bingo.errors import TransientError, UserError
from bingo.launch.job.records import read_beats, read_events
from bingo.launch.job.worker import Recorder, classify
from bingo.stages import Stage
from tests.support.long_job import job, pretrain
from tests.support.ranks import finish, start_ranks, wait_for

# The worker, with a rank 1 that fails at its sixth step.
FAULTY = """
import os, sys
from pathlib import Path
from bingo.launch.job import worker
class Faulty(worker.Recorder):
    def beat(self, step):
        super().beat(step)
        if self.rank == 1 and step == 6:
            raise RuntimeError("no more")
worker.Recorder = Faulty
worker.main(Path(sys.argv[1]))
"""


def recorded(folder: Path) -> dict[int, list[dict[str, Any]]]:
    return read_events(folder / "attempts" / "local-0")


@pytest.mark.slow
def test_the_exception_of_one_rank(digits: Path, tmp_path: Path) -> None:
    folder = job(tmp_path, pretrain(digits, tmp_path))
    results = finish(start_ranks([folder], 2, ["-c", FAULTY]))
    assert [code for code, _ in results] == [70, 70], results
    ends = {rank: events[-1] for rank, events in recorded(folder).items()}
    assert (ends[1]["event"], ends[1]["kind"], ends[1]["error"]) == ("failed", "exception", "RuntimeError: no more")
    assert (ends[1]["step"], ends[1]["stage"]) == (6, "teacher one")
    assert "in beat" in ends[1]["traceback"]
    assert "in beat" in results[1][1], "the log of the rank has it too"
    assert (ends[0]["event"], ends[0]["kind"]) == ("failed", "peer"), ends[0]


@pytest.mark.slow
def test_asked_to_leave_and_run_again(digits: Path, tmp_path: Path) -> None:
    folder = job(tmp_path, pretrain(digits, tmp_path))
    ranks = start_ranks([folder], 2, ["-u", "-m", "bingo.launch.job.worker"])
    saved = tmp_path / "run" / "checkpoints"
    wait_for(lambda: saved.exists() and any(saved.glob("step-*.pt")), *ranks)
    os.kill(ranks[1].pid, signal.SIGUSR2)
    results = finish(ranks)
    assert [code for code, _ in results] == [75, 75], results
    events = recorded(folder)
    assert [e["event"] for e in events[1]] == ["start", "joined", "stage", "training", "step", "left"]
    step = events[0][-1]["step"]
    assert [e for e in events[0] if e["event"] == "checkpoint"][-1]["step"] == step == events[1][-1]["step"] > 0
    beats = read_beats(folder / "attempts" / "local-0")
    assert {(beat.stage, 0 < beat.step <= step) for beat in beats.values()} == {("teacher one", True)}


@pytest.mark.slow
def test_a_mistake_of_the_user(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no model")
    config = FeaturesConfig(data=digits / "train", model=tmp_path / "model.pt", out=tmp_path / "features")
    folder = job(tmp_path, Stage("features", "features", config))
    results = finish(start_ranks([folder], 2, ["-u", "-m", "bingo.launch.job.worker"]))
    assert 65 in [code for code, _ in results], results
    ends = [events[-1] for events in recorded(folder).values()]
    first = min((e for e in ends if e["event"] == "failed"), key=lambda e: e["time"])
    assert first["kind"] == "user"
    assert "Traceback" not in results[0][1]


def test_asked_before_it_has_started(tmp_path: Path) -> None:
    """Nothing is imported, joined or written any more."""
    code = (
        "import os, signal, sys; from pathlib import Path; from bingo.launch.job import worker;"
        "start = worker.Recorder.start;"
        "worker.Recorder.start = lambda self: (start(self), os.kill(os.getpid(), signal.SIGTERM));"
        "worker.main(Path(sys.argv[1]))"
    )
    config = FeaturesConfig(data=tmp_path / "none", model=tmp_path / "none.pt", out=tmp_path / "features")
    folder = job(tmp_path, Stage("features", "features", config))
    ((status, said),) = finish(start_ranks([folder], 1, ["-c", code]))
    assert status == 75, said
    assert recorded(folder)[0][-1]["signal"] == "SIGTERM"
    assert not (tmp_path / "features").exists()


def test_recording_never_fails_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path / "attempt", 0)
    recorder.event("stage", name="s")
    recorder.beat(1)
    recorder.beat(2)
    beat = tmp_path / "attempt" / "rank-0.beat"
    assert beat.read_text().split()[0] == "1", "at most once a second"
    size = beat.stat().st_size
    recorder._told = 0.0
    recorder.beat(1000)
    assert (beat.read_text().split()[0], beat.stat().st_size) == ("1000", size), "a full disk has room for it"
    nowhere = Recorder(Path("/dev/full/attempt"), 0)
    nowhere.event("start")
    nowhere.beat(1)
    full = Recorder(tmp_path, 3)
    (tmp_path / "rank-3.jsonl").symlink_to("/dev/full")
    full.event("start", host="c1")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (UserError("x"), 65, "user"),
        (TransientError("x"), 74, "transient"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [::1]:1: Connection reset by peer."), 70, "peer"),
        (RuntimeError("NCCL communicator was aborted on rank 1."), 70, "peer"),
        (type("DistStoreError", (RuntimeError,), {})("Timed out after 61 seconds waiting for clients."), 70, "peer"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 70, "exception"),
        (TimeoutError("a file server timed out"), 70, "exception"),
    ],
)
def test_kinds_of_failures(error: Exception, status: int, kind: str) -> None:
    assert classify(error) == (status, kind)


def test_a_job_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"name": "x"})[:-1])
    ((status, said),) = finish(start_ranks([tmp_path], 1, ["-m", "bingo.launch.job.worker"]))
    assert status == 65, said
    assert "is not valid JSON" in said
