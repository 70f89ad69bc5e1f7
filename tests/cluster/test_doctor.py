"""`bingo doctor --cluster` on a real Slurm: what it says follows the settings, and what happens follows from that."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.slurm import Cluster, wait_for

pytestmark = pytest.mark.slurm

LISTENER = """
import signal, sys, time
seen = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda n, _: seen.append(n))
open(sys.argv[1], "a").write("up\\n")
while not seen:
    time.sleep(0.05)
open(sys.argv[1], "a").write(signal.Signals(seen[0]).name + "\\n")
"""


@pytest.fixture
def restored(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whose settings are as before after the test."""
    before = vars(cluster.settings).copy()
    yield cluster
    cluster.reconfigure(**before)


def examine(cluster: Cluster, tmp_path: Path, text: str) -> tuple[int, dict[str, Any]]:
    site = tmp_path / "site.toml"
    site.write_text(text)
    done = cluster.run(sys.executable, "-m", "bingo", "doctor", "--cluster", site, "--json", check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def finding(found: dict[str, Any], topic: str) -> dict[str, Any]:
    return next(f for f in [*found["jobs"]["jobs"], *found["findings"]] if f["topic"] == topic)


def first_signal(cluster: Cluster, tmp_path: Path, name: str) -> str:
    """The first signal that a rank in `low` hears when it is preempted."""
    program, heard = tmp_path / "listen.py", tmp_path / name
    program.write_text(LISTENER)
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\nsrun {sys.executable} {program} {heard}\n")
    flags = ["-p", "low", "-N", 1, "-w", "c1", "--signal=USR2@60", "-t", 10, "--no-requeue", "-o", "/dev/null"]
    job = cluster.sbatch(*flags, script)
    wait_for(lambda: heard.exists() and "up" in heard.read_text(), 60, "the rank")
    cluster.preempt(["c1"], seconds=1)
    wait_for(lambda: heard.read_text().count("\n") > 1, 60, "a signal", 0.2)
    cluster.run("scancel", job)
    return heard.read_text().split()[1]


def test_preemption_as_told(restored: Cluster, tmp_path: Path) -> None:
    cluster, site = restored, 'partition = "low"\nsignal_delay_s = 60\ntime_min = 30\n'
    for told, changes in {"SIGTERM": {"user_signal": False}, "USR2": {"user_signal": True}}.items():
        cluster.reconfigure(grace_s=30, **changes)
        status, found = examine(cluster, tmp_path, site)
        preemption = finding(found, "preemption")
        assert (status, preemption["answer"]) == (0, "yes")
        assert f"every rank gets {told} at once and has 30 s" in preemption["says"]
        assert first_signal(cluster, tmp_path, told) in (told, f"SIG{told}")
    cluster.reconfigure(grace_s=0, user_signal=False)
    short = finding(examine(cluster, tmp_path, site)[1], "preemption")
    assert short["answer"] == "partly"
    assert f"less than {cluster.settings.kill_wait_s} s" in short["says"]
    assert short["ask"] == "PartitionName=low GraceTime=20"


def test_a_site_that_does_not_fit(cluster: Cluster, tmp_path: Path) -> None:
    status, found = examine(cluster, tmp_path, 'partition = "debug"\nnodes = 9\n')
    assert status == 1
    assert "9 nodes" in finding(found, "site keys")["says"]
    assert finding(found, "accounting")["answer"] == "yes"
    assert re.search(r"some time after \d+ s", finding(found, "node loss")["says"])
