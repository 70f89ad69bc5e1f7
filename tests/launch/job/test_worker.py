"""One rank of a job: its exit status and its record, after each kind of end; two ranks joined through loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bingo.config import FeaturesConfig
from bingo.errors import TransientError, UserError
from bingo.files import hash_json, read_object, write_json
from bingo.launch.job.causes import find_cause
from bingo.launch.job.records import read_beats, read_events
from bingo.launch.job.spec import JobSpec, ReportOf
from bingo.launch.job.worker import Recorder, classify, in_words, read_job
from bingo.recipes import PAGE, RECIPE, reported
from bingo.stages import Stage
from tests.support.long_job import job, pretrain
from tests.support.ranks import finish, start_ranks, wait_for
from tests.support.recipe_folder import SCORES, WRITTEN, write_recipe

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


def test_earlier_attempts_know_what_was_saved(tmp_path: Path) -> None:
    """Those of the same job; folders beside the ranks of a chain that runs here are other jobs'."""
    for parent, found in (("attempts", 7), ("logs", None)):
        first = Recorder(tmp_path / parent / "12-0", 0)
        first.event("checkpoint", step=7, key="k", out=str(tmp_path / "run"))
        assert Recorder(tmp_path / parent / "12-1", 0).saved("k", tmp_path / "run") == found


def test_a_job_file_that_one_rank_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows nothing of the other ranks yet: theirs may be there."""
    with pytest.raises(UserError, match="does not exist") as alone:
        read_job(tmp_path)
    assert not isinstance(alone.value, TransientError)
    ranks = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TransientError, match="does not exist"):
        read_job(tmp_path)


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


def test_a_job_that_makes_a_report(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the recipe's paths begin
    root = write_recipe(tmp_path / WRITTEN, digits, SCORES)
    content = hash_json(read_object(root / RECIPE))
    folder = tmp_path / "job"
    JobSpec("report", ((),), report=ReportOf(root, content)).write(folder)
    assert not reported(root, content)
    ((status, said),) = finish(start_ranks([folder], 1, ["-m", "bingo.launch.job.worker"]))
    assert status == 0, said
    assert "report: " in said
    assert reported(root, content)
    assert [event["event"] for event in recorded(folder)[0]] == ["start", "stage", "done"]
    (root / PAGE).unlink()
    write_json(root / RECIPE, {"recipe": "another"})
    ((status, said),) = finish(start_ranks([folder], 1, ["-m", "bingo.launch.job.worker"]))
    assert status == 65, said
    assert "recipe.json is of another chain by now" in said
    assert not (root / PAGE).exists()


def test_a_job_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"name": "x"})[:-1])
    ((status, said),) = finish(start_ranks([tmp_path], 1, ["-m", "bingo.launch.job.worker"]))
    assert status == 65, said
    assert "is not valid JSON" in said


@pytest.mark.parametrize("said", ["[enforce fail at gloo/transport/tcp/device.cc:84] ifa != nullptr. Unable to find "
                                  "address for: ib0", "NCCL error: Bootstrap : no socket interface found"])  # fmt: skip
def test_an_interface_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """It is a setting, and no other rank's fault."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    error = in_words(RuntimeError(said))
    assert classify(error) == (65, "user")
    assert str(error).startswith("GLOO_SOCKET_IFNAME=ib0: there is no such network interface on ")
    assert "(there are: lo" in str(error)
    other = RuntimeError("Connection closed by peer")
    assert in_words(other) is other


def test_a_refusal_is_transient_once_the_job_has_worked(tmp_path: Path) -> None:
    """A wrong path is the user's; a mount that comes back read-only in the middle of a job is not."""
    error = UserError("cannot write /x: Read-only file system; have its file system mounted for writing again")
    wrong = UserError("no such file /x")
    first = Recorder(tmp_path / "attempts" / "7_1-0", 0)
    assert first.failed(error) == 65
    Recorder(tmp_path / "attempts" / "7_2-0", 1).event("step", step=1)  # another task's
    assert Recorder(tmp_path / "attempts" / "7_1-1", 0).failed(error) == 65
    Recorder(tmp_path / "attempts" / "7_1-1", 1).event("step", step=1)
    later = Recorder(tmp_path / "attempts" / "7_1-2", 0)
    assert (later.failed(error), later.failed(wrong)) == (74, 65)
    assert [e["kind"] for e in read_events(tmp_path / "attempts" / "7_1-2")[0]] == ["transient", "user"]
    unmounted = UserError("cannot write /x: No such file or directory; have its storage mounted")
    program = FileNotFoundError(2, "No such file or directory", "gcc")
    again, new = (Recorder(tmp_path / "attempts" / name, 0) for name in ("7_1-3", "8-0"))
    assert (again.failed(unmounted), new.failed(unmounted), again.failed(program)) == (74, 65, 70)
    assert classify(OSError(110, "Connection timed out")) == (74, "transient")


def test_a_worker_starts_without_a_warning(tmp_path: Path) -> None:
    """Nothing has imported it before Python runs it: every log of a rank began with a warning about that."""
    command = [sys.executable, "-W", "error", "-m", "bingo.launch.job.worker", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "job.json does not exist" in done.stderr, "Warning" in done.stderr) == (65, True, False)


@pytest.mark.parametrize("kind", ["exception", "transient"])
@pytest.mark.parametrize("said", ["MemoryError: ", "TransientError: cannot read a.pt: Cannot allocate memory"])
def test_memory_is_named_as_what_was_missing(kind: str, said: str) -> None:
    """And not storage."""
    failed = {"time": 1.0, "event": "failed", "kind": kind, "error": said, "step": 3}
    cause = find_cause({0: [failed]}, rc=70)
    assert (cause.kind, cause.rank) == ("out-of-memory", 0)
