"""On a real Slurm: an input that changes while a job waits, two roots and one folder, other work in a folder."""

import subprocess
from pathlib import Path

import pytest

from bingo.identity import read_record
from tests.cluster.command import bingo, ids, log, site
from tests.cluster.slurm import Cluster

pytestmark = pytest.mark.slurm


def submit(
    cluster: Cluster, tmp_path: Path, root: str, seed: int, *flags: str, hold: bool = False
) -> subprocess.CompletedProcess[str]:
    """`bingo submit bags` of tmp_path/source into tmp_path/bags."""
    where = site(tmp_path, "sbatch = {hold = true}\n" if hold else "")
    words = [
        "submit",
        "bags",
        "--cluster",
        where,
        "--out",
        tmp_path / root,
        *flags,
        "--",
        "--data",
        tmp_path / "source",
    ]
    return bingo(cluster, *words, "--kind", "random", "--k", "1", "--seed", seed, "--out", tmp_path / "bags")


def test_an_input_that_changes_while_a_job_waits(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    """It stops in words; a repair takes the input as it is now."""
    root = tmp_path / "root"
    assert submit(cluster, tmp_path, "root", 0, hold=True).returncode == 0
    (source / "class0" / "0.png").touch()
    cluster.run("scontrol", "release", ids(root)["bags"])
    cluster.wait_job(ids(root)["bags"], ["FAILED"])
    assert f"--data: {source} has another content than when the job was sent" in bingo(cluster, "status", root).stdout
    assert not (tmp_path / "bags" / "bags.npz").exists()
    repaired = bingo(cluster, "repair", root)
    assert repaired.returncode == 0, repaired.stderr
    cluster.run("scontrol", "release", ids(root)["bags"])
    cluster.wait_job(ids(root)["bags"], ["COMPLETED"])
    assert (tmp_path / "bags" / "bags.npz").exists(), log(root)


def test_two_roots_and_one_folder(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    """While the first waits the second is refused; a waiting job does not take what others have finished meanwhile."""
    assert submit(cluster, tmp_path, "r1", 0, hold=True).returncode == 0
    job = ids(tmp_path / "r1")["bags"]
    for flags in ((), ("--replace",)):
        refused = submit(cluster, tmp_path, "r2", 1, *flags)
        assert refused.returncode == 2
        assert f"{tmp_path / 'bags'} belongs to the job bags ({job}) of {tmp_path / 'r1'}" in refused.stderr
    assert not (tmp_path / "r2").exists()
    flags = ["--data", source, "--kind", "random", "--k", "1", "--seed", 7, "--out", tmp_path / "bags"]
    assert bingo(cluster, "bags", *flags).returncode == 0, "a verb of one's own is free to"
    cluster.run("scontrol", "release", job)
    cluster.wait_job(job, ["FAILED"])
    assert (
        "bags holds bags made with seed=7, not 0; choose another --out"
        in bingo(cluster, "status", tmp_path / "r1").stdout
    )
    assert read_record(tmp_path / "bags")["settings"]["seed"] == 7


def test_other_work_is_refused_or_moved_aside(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    assert submit(cluster, tmp_path, "root", 0).returncode == 0
    cluster.wait_job(ids(tmp_path / "root")["bags"], ["COMPLETED"])
    (tmp_path / "bags" / "notes.txt").write_text("mine")
    refused = submit(cluster, tmp_path, "root", 1)
    assert refused.returncode == 2
    assert "bags holds bags made with seed=0, not 1; choose another --out" in refused.stderr
    replaced = submit(cluster, tmp_path, "root", 1, "--replace")
    assert replaced.returncode == 0, replaced.stderr
    (aside,) = tmp_path.glob("bags.replaced-*")
    assert f"{tmp_path / 'bags'}: what was there is in {aside}" in replaced.stdout
    cluster.wait_job(ids(tmp_path / "root")["bags"], ["COMPLETED"])
    seeds = {folder: read_record(folder)["settings"]["seed"] for folder in (aside, tmp_path / "bags")}
    assert seeds == {aside: 0, tmp_path / "bags": 1}
    assert (tmp_path / "bags" / "notes.txt").read_text() == "mine"
