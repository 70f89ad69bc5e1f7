"""Submissions on a real Slurm: the snapshot runs, a broken chain is repaired, refusals, arrays that are cancelled."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bingo.config import BagsConfig
from bingo.launch.cluster.site import read_site
from bingo.launch.submit.graph import jobs_of
from bingo.launch.submit.send import submit
from bingo.launch.submit.snapshot import FOLDERS
from bingo.recipes import Group
from bingo.stages import Stage
from tests.cluster.command import bingo, ids, last, log, site
from tests.cluster.slurm import Cluster, wait_for
from tests.support.ranks import ROOT

pytestmark = pytest.mark.slurm
ONE = '[cpu]\npartition = "debug"\n'


def test_an_edited_checkout_does_not_reach_a_queued_job(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    held = site(tmp_path, "sbatch = {hold = true}\n")
    flags = ["--data", source, "--kind", "random", "--k", "1", "--out", tmp_path / "bags"]
    sent = bingo(cluster, "submit", "bags", "--cluster", held, "--", *flags, cwd=checkout)
    assert sent.returncode == 0, sent.stderr
    for name in ("bingo/__init__.py", "bingo/bags/stage.py", "launch/job/worker.py", "launch/job/attempt.py"):
        (checkout / name).write_text("raise SystemExit('the edited checkout was imported')\n")
    root = tmp_path / "bags.jobs"
    job = ids(root)["bags"]
    assert cluster.state(job) == "PENDING"
    refused = bingo(cluster, "submit", "bags", "--cluster", held, "--", *flags)
    assert refused.returncode == 2
    assert f"may still run: bags ({job}); see `bingo status {root}`, go on with `bingo repair {root}`" in refused.stderr
    cluster.run("scontrol", "release", job)
    cluster.wait_job(job, ["COMPLETED"])
    assert (tmp_path / "bags" / "bags.npz").exists(), log(root)
    assert json.loads((last(root).folder / "code.json").read_text())["source"] == str(checkout)


def test_a_broken_chain_is_repaired_without_running_good_stages_again(
    cluster: Cluster, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three jobs lacks an input from elsewhere; the third is cancelled by Slurm."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"

    def stage(name: str, compare: Path | None) -> Group:
        config = BagsConfig(data=source, out=root / name, kind="label" if compare else "random", k=1, compare=compare)
        return Group(name, (Stage(name, "bags", config),))

    first, own = stage("first", None), stage("own", elsewhere)
    both = Group("own", (*own.stages, *stage("copy", root / "first").stages))
    found = read_site(site(tmp_path))
    jobs = jobs_of([first, both, stage("third", root / "own")], found, min_nodes=None, preflight=False)
    assert [job.needs for job in jobs] == [(), ("first",), ("own",)]
    submit(root, jobs, found, {"recipe": "chain", "overrides": {"nodes": None, "ranks_per_node": None}})
    before = ids(root)
    cluster.wait_job(before["first"], ["COMPLETED"])
    cluster.wait_job(before["own"], ["FAILED"])
    cluster.wait_job(before["third"], ["CANCELLED"])
    assert "elsewhere does not exist" in log(root)
    made = (root / "first" / "stage.json").stat().st_mtime_ns
    shutil.copytree(root / "first", elsewhere)
    repaired = bingo(cluster, "repair", root)
    assert repaired.returncode == 0, repaired.stderr
    after = ids(root)
    assert after["first"] == before["first"]
    assert {line.split()[0]: line.split()[1] for line in repaired.stdout.splitlines()} == {
        "first": "done", "own": "sent", "third": "sent",
    }  # fmt: skip
    cluster.run("scontrol", "hold", after["third"])  # or it might end before the next call has asked Slurm
    again = bingo(cluster, "repair", root)
    assert "sent" not in again.stdout, "nothing is sent twice"
    assert f"goes on ({after['third']})" in again.stdout
    cluster.run("scontrol", "release", after["third"])
    cluster.wait_job(after["third"], ["COMPLETED"])
    assert [line.repair for line in last(root).sent()] == [0, 0, 0, 1, 1]
    assert (root / "first" / "stage.json").stat().st_mtime_ns == made
    assert bingo(cluster, "repair", root).stdout.count("done") == 3


def test_refusals_of_a_real_slurm(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    flags = ["--out", tmp_path / "root", "--", "--data", source, "--kind", "random", "--out", tmp_path / "bags"]
    for line, key in (
        ('partition = "nope"', "partition = 'nope' is not here; there are: debug, low, high"),
        ("nodes = 5", "nodes = 5 is more than the 2 that a job may have in debug"),
        ('constraint = "nope"', "sbatch refuses the job (Invalid feature specification): change the key constraint; "),
        ("sbatch = {frobnicate = 1}", "change the key sbatch.frobnicate"),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(f"{line}\n")
        refused = bingo(cluster, "submit", "bags", "--cluster", path, *flags)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
        assert key in refused.stderr
    away = bingo(cluster, "submit", "bags", "--cluster", site(tmp_path), *flags)
    assert away.returncode == 0, "a refused submission stands in nobody's way"
    assert bingo(cluster, "cancel", tmp_path / "root").returncode == 0


def test_a_refused_job_takes_the_sent_ones_back(cluster: Cluster, tmp_path: Path) -> None:
    path = site(tmp_path, 'constraint = "nope"\n')
    path.write_text(path.read_text() + '[cpu]\nconstraint = ""\nsbatch = {hold = true}\n')
    root = tmp_path / "digits"
    refused = bingo(cluster, "submit", "digits", "--cluster", path, "--out", root)
    assert refused.returncode == 2
    assert "change the key constraint; " in refused.stderr
    assert f"the jobs sent before it ({ids(root)['prepare']}) are cancelled" in refused.stderr
    wait_for(lambda: cluster.state(ids(root)["prepare"]) == "CANCELLED", 20, "the first job's end", 0.3)
    assert json.loads((last(root).folder / "refused").read_text())["job"] == "teacher"


def test_pending_tasks_of_an_array_are_cancelled_and_sent_again(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    root = tmp_path / "sweep"
    flags = ["--data", source, "--kind", "random", "--k", "1"]
    held = site(tmp_path, "sbatch = {hold = true}\n")
    words = ["sweep", "bags", "--set", "seed=0,1,2", "--limit", "2", "--cluster", held, "--out", root, "--", *flags]
    assert bingo(cluster, *words).returncode == 0
    first = ids(root)["sweep"]
    cluster.run("scancel", f"{first}_1")
    repaired = bingo(cluster, "repair", root)
    assert "1 of 3 tasks sent as" in repaired.stdout, repaired.stdout + repaired.stderr
    assert f"goes on ({first}_0, {first}_2)" in repaired.stdout
    cancelled = bingo(cluster, "cancel", root)
    assert cancelled.returncode == 0
    assert {line.split()[1] for line in cancelled.stdout.splitlines()[:2]} == {f"({first})", f"({ids(root)['sweep']})"}
    assert cluster.run("squeue", "-h", "-j", f"{first},{ids(root)['sweep']}", check=False).stdout.strip() == ""
    assert "nothing to cancel" in bingo(cluster, "cancel", root).stdout


def test_chains_of_a_sweep_take_turns_also_after_a_repair(cluster: Cluster, tmp_path: Path) -> None:
    root, held = tmp_path / "sweep", site(tmp_path, "sbatch = {hold = true}\n")
    words = ["sweep", "digits", "--set", "epochs=1,2", "--seeds", "1", "--limit", "1", "--cluster", held, "--out", root]
    sent = bingo(cluster, *words, "--partition", "low")
    assert sent.returncode == 0, sent.stderr

    def waits(first: str, second: str) -> bool:
        found = ids(root)
        needs = cluster.run("squeue", "-h", "-j", found[second], "-o", "%E %P").stdout
        assert needs.strip().endswith(" low")
        return f"afterany:{found[first]}(" in needs

    before = ids(root)
    assert waits("epochs-1 export", "epochs-2 teacher")
    assert not waits("epochs-1 prepare", "epochs-1 teacher")
    assert bingo(cluster, "cancel", root, "epochs-1 teacher").returncode == 0
    repaired = bingo(cluster, "repair", root)
    assert repaired.returncode == 0, repaired.stderr
    after = ids(root)
    assert after["epochs-1 prepare"] == before["epochs-1 prepare"], "it still waits"
    assert after["epochs-1 teacher"] != before["epochs-1 teacher"]
    assert waits("epochs-1 export", "epochs-2 seed 0")
    assert bingo(cluster, "cancel", root).returncode == 0


def test_a_job_that_a_killed_submit_did_not_record_is_found(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    flags = ["--out", root, "--", "--data", source, "--kind", "random", "--k", "1", "--out", tmp_path / "bags"]
    held = site(tmp_path, "sbatch = {hold = true}\n")
    assert bingo(cluster, "submit", "bags", "--cluster", held, *flags).returncode == 0
    job = ids(root)["bags"]
    os.truncate(last(root).folder / "jobs.jsonl", 20)  # as if it had been killed while it wrote
    refused = bingo(cluster, "submit", "bags", "--cluster", held, *flags)
    assert f"may still run: bags ({job})" in refused.stderr
    assert ids(root) == {"bags": job}
    assert f"bags ({job}) is cancelled" in bingo(cluster, "cancel", root).stdout
