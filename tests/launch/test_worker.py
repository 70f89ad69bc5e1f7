"""One rank of a job: its exit status and its record, after each kind of end; two ranks joined through loopback."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bingo.config import FeaturesConfig, PretrainConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.errors import TransientError, UserError
from bingo.launch.job.records import read_beats, read_events
from bingo.launch.job.spec import JobSpec
from bingo.launch.job.worker import Recorder, classify
from bingo.stages import Stage
from tests.support.ranks import ROOT, finish, start_ranks, wait_for

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


def pretrain(digits: Path, root: Path) -> Stage:
    config = PretrainConfig(
        data=digits / "train",
        out=root / "run",
        model="tiny-8",
        augment=Augmentation(size=16),
        contrast=Contrast(dim=16, hidden=32, queue=100),
        optim=Optimiser(batch=64, epochs=50),
        runtime=Runtime(device="cpu", threads=1, checkpoint_every=4, log_every=1),
    )
    return Stage("teacher one", "pretrain", config)


def job(root: Path, *stages: Stage) -> Path:
    JobSpec(name="job", tasks=(stages,), nodes=1, ranks_per_node=2, collective_timeout_s=60).write(root)
    return root


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
    wait_for(lambda: saved.exists() and any(saved.glob("step-*.pt")))
    os.kill(ranks[1].pid, signal.SIGUSR2)
    results = finish(ranks)
    assert [code for code, _ in results] == [75, 75], results
    events = recorded(folder)
    assert [e["event"] for e in events[1]] == ["start", "joined", "stage", "step", "left"]
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


# `bingo run` in small: a chain of one job, and the name of the exception that ends it.
CHAIN = """
import sys
from pathlib import Path
from bingo.launch import Chain, Job, run_chain
from bingo.launch.job.spec import JobSpec
root = Path(sys.argv[1])
try:
    run_chain(Chain(root, (Job(JobSpec.read(root).tasks[0], 2),)))
except BaseException as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def pending(pid: int) -> int:
    """Signals that wait for a process, as bits."""
    return int(re.findall(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[0], 16)


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_a_local_chain_ends_with_its_ranks(digits: Path, tmp_path: Path, hangs: bool) -> None:
    """Ctrl-C on a terminal lets ranks leave with a checkpoint; a second signal kills what does not react."""
    folder = job(tmp_path, pretrain(digits, tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", CHAIN, folder], stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    saved = tmp_path / "run" / "checkpoints"
    wait_for(lambda: saved.exists() and any(saved.glob("step-*.pt")))
    (logs,) = (tmp_path / "logs").iterdir()
    pids = {rank: events[0]["pid"] for rank, events in read_events(logs).items()}
    if hangs:
        os.kill(pids[1], signal.SIGSTOP)
        os.kill(process.pid, signal.SIGTERM)
        wait_for(lambda: not pending(process.pid))  # two that are pending at once count as one
        os.kill(process.pid, signal.SIGTERM)
    else:
        os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=900)
    assert not [pid for pid in pids.values() if alive(pid)]
    if hangs:
        assert said.startswith("Leaving: teacher one: "), said
    else:
        assert said.strip() == "KeyboardInterrupt:"
        assert {events[-1]["event"] for events in read_events(logs).values()} == {"left"}
