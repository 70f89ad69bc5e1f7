"""A disk that is really full, in the middle of a run: one sentence, and the same command goes on once there is room."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.ranks import ROOT, bingo
from tests.support.short_run import EPOCHS, PER_EPOCH, assert_same, command, steps, weights

# Mounts a small disk at the first argument and runs the verb twice in it: the disk is filled in the third epoch, just
# before `victim` is written, and emptied after the sentence. Then the run is copied out: the disk ends with its
# namespace.
PROGRAM = """
import json, shutil, subprocess, sys
from pathlib import Path
disk, victim, copy, *words = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
ballast = Path(disk) / "ballast"

def fill():
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            print("full:", error.strerror)

from bingo.train import metrics
from bingo.train import checkpoint as train
from bingo.cli import main
from bingo.errors import TransientError

saves, writes = train.save_checkpoint, metrics.Metrics.write

def save(folder, step, state):
    if victim == "checkpoint" and step > 36 and not ballast.exists():
        fill()
    saves(folder, step, state)

def write(self, *lines):
    room = 4096 - self.path.stat().st_size % 4096  # in the file's last page: it is full where this ends
    if victim == "metrics" and lines and lines[0]["step"] > 16 and len(json.dumps(lines[0])) >= room:
        fill()
    writes(self, *lines)

train.save_checkpoint, metrics.Metrics.write = save, write
print("status", main(words))
tail = (Path(disk) / "run" / "metrics.jsonl").read_bytes()
print("half a line" if tail[-1:] != b"\\n" else "whole lines")
train.save_checkpoint, metrics.Metrics.write = saves, writes
ballast.unlink()
print("status", main(words))
shutil.copytree(Path(disk) / "run", copy)
"""


def may_mount() -> bool:
    """Whether this process may mount a disk that nobody else sees."""
    if os.geteuid() or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode == 0


@pytest.fixture(scope="module")
def whole(digits: Path, teacher: Path, bags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert bingo(*command(digits, teacher, bags, out)).returncode == 0
    return out


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="mounting a small disk needs root and unshare")
@pytest.mark.parametrize("victim", ["checkpoint", "metrics"])
def test_the_same_command_goes_on_to_the_same_weights(
    victim: str, whole: Path, digits: Path, teacher: Path, bags: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    words = command(digits, teacher, bags, disk / "run")
    child = ["unshare", "-m", sys.executable, "-c", PROGRAM, disk, victim, tmp_path / "copy", *words]
    done = subprocess.run(list(map(str, child)), cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    name = "step-0000000042.pt" if victim == "checkpoint" else "metrics.jsonl"
    assert [line for line in said if line.startswith("status")] == ["status 2", "status 0"], done.stderr
    assert "full: No space left on device" in said
    assert f"{name}: No space left on device" in done.stderr
    assert ("half a line" in said) == (victim == "metrics")
    run = tmp_path / "copy"
    assert steps(run) == list(range(EPOCHS * PER_EPOCH))
    assert_same(weights(run), weights(whole))
    assert (run / "checkpoints" / "step-0000000064.pt").exists()
    assert torch.load(run / "checkpoints" / "step-0000000064.pt", weights_only=True)["step"] == 64
