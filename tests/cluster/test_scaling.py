"""`bingo bench scaling` on a real Slurm: killed and gone on with, ended by Ctrl-C, too many nodes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.bench.record import read_result
from bingo.launch.submit.submission import submissions
from tests.cluster.command import bingo, ids, last, site
from tests.cluster.slurm import Cluster, wait_for
from tests.support.ranks import ROOT
from tests.support.scaling import FEW, TINY

pytestmark = pytest.mark.slurm


def words(site_file: Path, out: Path, nodes: str = "1,2") -> list[str]:
    where = ["--cluster", str(site_file), "--nodes", nodes, "--mode", "weak", "--out", str(out)]
    return ["bench", "scaling", *where, *TINY, *FEW]


def start(cluster: Cluster, command: list[str]) -> subprocess.Popen[str]:
    """A program that hears Ctrl-C: what a shell has started in its background ignores it, and so do its children."""
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "bingo", *command],
        cwd=ROOT, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_nodes_are_measured_once_also_after_a_kill(cluster: Cluster, tmp_path: Path) -> None:
    """The command is killed while its jobs run; the same one waits for them, sends nothing, and shows both."""
    out = tmp_path / "scaling"
    command = words(site(tmp_path), out)
    killed = start(cluster, command)
    wait_for((out / "scaling.json").exists, 120, "the first job's samples", 0.1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    sent = ids(out)
    assert len(sent) == 2
    done = bingo(cluster, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 nodes x 1" in done.stdout
    assert "2 nodes x 1" in done.stdout
    result = read_result(out / "scaling.json", "scaling")
    assert not result["partial"]
    assert [point["hosts"] for point in result["detail"]["points"]] == [[["c1"]], [["c1", "c2"]]]
    rows = {row["case"].split(", ")[1]: row for row in result["rows"] if row["clock"] == "cpu"}
    assert len(rows["2 nodes x 1 ranks"]["processes"]) == 2, "a list for each rank"
    again = bingo(cluster, *command)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert (len(submissions(out)), ids(out)) == (1, sent), "nothing was sent again"
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == {
        "points", "scaling.json", "scaling.svg", "settings.json", "submissions",
    }  # fmt: skip


def test_ctrl_c_leaves_no_jobs(cluster: Cluster, tmp_path: Path) -> None:
    """While they wait in the queue; the same command then sends them anew."""
    out = tmp_path / "scaling"
    held = site(tmp_path, "sbatch = {hold = true}\n")
    waits = start(cluster, words(held, out))
    wait_for(lambda: bool(submissions(out)) and len(last(out).sent()) == 2, 300, "two jobs in the queue", 0.1)
    first = ids(out)
    waits.send_signal(signal.SIGINT)
    _, told = waits.communicate(timeout=300)
    assert waits.returncode == 130, told
    assert all(f"({job}) is cancelled" in told for job in first.values())
    assert cluster.run("squeue", "-h", "-j", ",".join(first.values()), check=False).stdout.strip() == ""


def test_more_nodes_than_there_are(cluster: Cluster, tmp_path: Path) -> None:
    refused = bingo(cluster, *words(site(tmp_path), tmp_path / "scaling", "1,5"))
    assert refused.returncode == 2
    assert "--nodes 5 is more than the 2 that a job may have in debug" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "scaling").exists()
