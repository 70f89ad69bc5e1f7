"""Chains as processes here: how they end, and what a user reads then."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.config import FeaturesConfig
from bingo.errors import UserError
from bingo.launch.job.records import read_events
from bingo.stages import Stage
from tests.support.long_job import job, pretrain
from tests.support.ranks import ROOT, wait_for

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
    wait_for(lambda: saved.exists() and any(saved.glob("step-*.pt")), process)
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


def test_without_submitit(tmp_path: Path) -> None:
    code = "import sys; sys.modules['submitit'] = None; from bingo.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "digits", "--out", tmp_path / "x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "submitit is needed to start jobs" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_failed_job_is_one_sentence(digits: Path, tmp_path: Path) -> None:
    """A user error of both ranks comes back as its sentence; a crash as the rank, the exception and the logs."""
    from bingo.launch import Chain, Job, run_chain
    from bingo.launch.local import last_exception

    (tmp_path / "model.pt").write_bytes(b"no model")
    config = FeaturesConfig(data=digits / "train", model=tmp_path / "model.pt", out=tmp_path / "features")
    chain = Chain(tmp_path, (Job((Stage("features", "features", config),), 2),))
    with pytest.raises(UserError, match=r"model.pt is a text file that begins with .no model., not a file"):
        run_chain(chain)
    assert not (tmp_path / "features" / "features.npy").exists()
    trace = (
        "Traceback (most recent call last):\n  File ...\nRuntimeError: gloo broke\n\nYou can check full logs at\n - x"
    )
    assert last_exception(trace) == "RuntimeError: gloo broke"
