"""What users leave to the suite on a real Slurm: it tells of a chain's end, watches it to its end, and clears up."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bingo.config import BagsConfig
from bingo.launch.cluster.site import read_site
from bingo.launch.status.prune import strangers
from bingo.launch.submit.graph import jobs_of
from bingo.launch.submit.send import submit
from bingo.launch.submit.submission import Submission
from bingo.recipes import Group
from bingo.stages import Stage
from tests.cluster.slurm import Cluster, wait_for
from tests.support.submissions import job, submission

pytestmark = pytest.mark.slurm
ONE = '[cpu]\npartition = "debug"\n'


def bingo(cluster: Cluster, *words: object) -> subprocess.CompletedProcess[str]:
    return cluster.run(sys.executable, "-m", "bingo", *words, check=False)


def sent(cluster: Cluster, root: Path, source: Path, monkeypatch: pytest.MonkeyPatch, site: str) -> Submission:
    """A chain of three; the second job lacks an input, and the third needs it."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])

    def stage(name: str, compare: Path | None) -> Group:
        config = BagsConfig(data=source, out=root / name, kind="label" if compare else "random", k=1, compare=compare)
        return Group(name, (Stage(name, "bags", config),))

    groups = [stage("first", None), stage("own", root.parent / "elsewhere"), stage("third", root / "own")]
    path = root.parent / "site.toml"
    path.write_text(site + ONE)
    found = read_site(path)
    jobs = jobs_of(groups, found, min_nodes=None, preflight=False)
    made = submit(root, jobs, found, {"recipe": "chain", "overrides": {"nodes": None, "ranks_per_node": None}})
    assert made is not None
    return made


def test_a_chain_is_watched_told_of_and_repaired(
    cluster: Cluster, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, told = tmp_path / "root", tmp_path / "told"
    notify = f"notify = '''echo \"$BINGO_STATE|$BINGO_JOB|$BINGO_SENTENCE\" >> {told}'''\n"
    made = sent(cluster, root, source, monkeypatch, notify)
    watched = bingo(cluster, "status", root, "--watch", "1")
    assert watched.returncode == 1, watched.stdout + watched.stderr
    lines = [line.split(None, 1)[1] for line in watched.stdout.splitlines()]
    states = [line.split()[1] for line in lines if line.startswith("own ")]
    assert states[-1] == "failed", lines
    assert [line for line in lines if line.startswith("failed: own: ")], lines
    wait_for(told.exists, 60, "the notification", 0.5)
    (line,) = told.read_text().splitlines()
    assert line.startswith("failed|own|failed: own: "), line
    assert "; 1 behind it will not run" in line
    assert "elsewhere does not exist" in line
    subprocess.run(["cp", "-r", root / "first", tmp_path / "elsewhere"], check=True)
    assert bingo(cluster, "repair", root).returncode == 0
    watched = bingo(cluster, "status", root, "--watch", "1", "--json")
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert json.loads(watched.stdout.splitlines()[-1])["state"] == "done"
    wait_for(lambda: len(told.read_text().splitlines()) == 2, 60, "the second notification", 0.5)
    assert told.read_text().splitlines()[1] == "done||done: 3 done"
    assert bingo(cluster, "status", root, "--notify").returncode == 0
    assert len(told.read_text().splitlines()) == 2, "once each"
    hours = json.loads(bingo(cluster, "history", root, "--json").stdout)
    assert hours["hours"]["starts"] == 4
    assert [each["kind"] for each in hours["lost_to"]] == ["user"]
    assert list(strangers(made.folder)) == [], "prune knows all that a real submission holds"


def test_a_job_that_is_held_is_told_of(
    cluster: Cluster, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an older submission stays as long as its job is in the queue."""
    root, told = tmp_path / "root", tmp_path / "told"
    notify = f"notify = '''echo \"$BINGO_STATE $BINGO_JOB\" >> {told}'''\nsbatch = {{hold = true}}\n"
    made = sent(cluster, root, source, monkeypatch, notify)
    assert bingo(cluster, "status", root, "--notify").returncode == 1
    assert told.read_text() == "stuck first\n"
    time.sleep(1)
    later = submission(root, [job(root, "more")], {}, time.time())
    kept = bingo(cluster, "prune", root, "--yes")
    assert kept.returncode == 0, kept.stderr
    assert "stays: its jobs may still run: first (" in kept.stdout
    cluster.run("scancel", *(line.slurm_id for line in made.sent()))
    wait_for(lambda: all(cluster.state(line.slurm_id) == "CANCELLED" for line in made.sent()), 60, "their end", 0.5)
    time.sleep(11)  # what Slurm said may be ten seconds old
    shown = bingo(cluster, "prune", root)
    assert f"{made.folder}  " in shown.stdout
    assert "would go" in shown.stdout
    assert made.folder.exists()
    assert bingo(cluster, "prune", root, "--yes").returncode == 0
    assert not made.folder.exists()
    assert bingo(cluster, "status", root).stdout.startswith(f"{root}  submission {later.id}")


def test_a_watch_outlives_the_controller(
    cluster: Cluster, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that Slurm is away and that it is back, and ends with the chain."""
    root, shown = tmp_path / "root", tmp_path / "shown"
    made = sent(cluster, root, source, monkeypatch, "sbatch = {hold = true}\n")
    words = cluster.command(sys.executable, "-m", "bingo", "status", root, "--watch", "1")
    with shown.open("w") as file, subprocess.Popen(words, env=cluster.environment, stdout=file) as watching:
        wait_for(lambda: "stuck: first: it is held" in shown.read_text(), 120, "the first look", 0.5)
        cluster.stop_controller()
        try:
            wait_for(lambda: "  note: " in shown.read_text(), 240, "that the controller is away", 0.5)
        finally:
            cluster.start_controller()
        wait_for(lambda: "  no longer: " in shown.read_text(), 240, "that the controller is back", 0.5)
        cluster.run("scancel", *(line.slurm_id for line in made.sent()))
        assert watching.wait(240) == 1, shown.read_text()
    assert shown.read_text().splitlines()[-1].split("  ", 1)[1].startswith("not complete: ")
