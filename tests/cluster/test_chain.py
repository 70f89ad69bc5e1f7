"""The whole chain on two nodes of a real Slurm, undisturbed and with a node lost for good: weights of a local run."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.runs import same_weights, steps_of
from tests.cluster.slurm import Cluster, wait_for
from tests.support.ranks import bingo

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(3000)]
SITE = Path(__file__).with_name("site.toml")
SMALL = ["--seeds", 1, "--epochs", 1, "--device", "cpu"]


@pytest.fixture(scope="module")
def local(slurm_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain as two ranks on this machine, without Slurm."""
    root = tmp_path_factory.mktemp("local") / "digits"
    done = bingo("run", "digits", "--out", root, "--ranks", 2, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def command(cluster: Cluster, *words: object, check: bool = True) -> str:
    return cluster.run(sys.executable, "-m", "bingo", *words, check=check).stdout


def status(cluster: Cluster, root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command(cluster, "status", root, "--json", check=False))
    return found


def wait_until_done(cluster: Cluster, root: Path) -> dict[str, Any]:
    """Slurm is asked at most once per 10 s, so the end is known a little late."""
    wait_for(lambda: status(cluster, root)["state"] not in ("waiting", "running", "unknown"), 400, "the chain's end", 3)
    return status(cluster, root)


def assert_same_chain(root: Path, local: Path) -> None:
    """The same runs, each with the same weights bit for bit and every step once."""
    runs = sorted(path.parent.relative_to(local) for path in local.rglob("metrics.jsonl"))
    assert len(runs) == 5, "a teacher and four students"
    for run in runs:
        assert same_weights(root / run / "model.pt", local / run / "model.pt"), run
        steps = steps_of(root / run / "metrics.jsonl")
        assert steps == list(range(len(steps)))
        assert steps == steps_of(local / run / "metrics.jsonl")


def without_figures(page: Path) -> str:
    """The page's words: the report measures latencies and images per second anew."""
    return re.sub(r"[\d.,]+", "0", page.read_text())


@pytest.mark.sampled(1, group="chain")
def test_a_chain_on_two_nodes_ends_with_the_weights_of_a_local_run(
    cluster: Cluster, local: Path, tmp_path: Path
) -> None:
    root = tmp_path / "digits"
    command(cluster, "submit", "digits", "--cluster", SITE, "--out", root, *SMALL)
    end = wait_until_done(cluster, root)
    assert end["state"] == "done", end
    assert {job["state"] for job in end["jobs"]} == {"done"}
    assert_same_chain(root, local)
    assert json.loads((root / "teacher" / "stage.json").read_text())["ranks"] == 2
    assert end["jobs"][-1]["job"] == "report"
    again = command(cluster, "submit", "digits", "--cluster", SITE, "--out", root, *SMALL)
    assert "everything is done; nothing was sent" in again
    page = without_figures(root / "report.html")
    (root / "report.html").unlink()
    repaired = command(cluster, "repair", root)
    assert [line.split()[0] for line in repaired.splitlines() if " sent as " in line] == ["report"], repaired
    assert wait_until_done(cluster, root)["state"] == "done"
    assert without_figures(root / "report.html") == page


@pytest.mark.sampled(1, group="chain")
def test_a_node_is_lost_for_good_and_the_chain_ends_on_the_other_with_the_same_weights(
    cluster: Cluster, local: Path, tmp_path: Path
) -> None:
    root, metrics = tmp_path / "digits", tmp_path / "digits" / "teacher" / "metrics.jsonl"
    command(cluster, "submit", "digits", "--cluster", SITE, "--out", root, "--min-nodes", 1, *SMALL)
    wait_for(lambda: metrics.exists() and metrics.stat().st_size > 0, 120, "the teacher's first step", 0.02)
    cluster.kill_node("c2")
    try:
        end = wait_until_done(cluster, root)
        assert cluster.node_states()["c2"].startswith("down")
    finally:
        cluster.start_node("c2")
        cluster.wait_idle()
    assert end["state"] == "done", end
    teacher = next(job for job in end["jobs"] if job["job"] == "teacher")
    assert teacher["attempts"] >= 2
    assert teacher["nodes"] == "c1"
    assert_same_chain(root, local)
