"""`bingo` as it is typed on the test cluster, and what it left: site file, jobs, logs."""

import subprocess
import sys
from pathlib import Path

from bingo.launch.submit.submission import Submission, newest
from tests.cluster.slurm import Cluster
from tests.support.ranks import ROOT


def site(tmp_path: Path, extra: str = "") -> Path:
    """The test cluster's site file with more lines; one rank per job is enough here."""
    path = tmp_path / "site.toml"
    text = (ROOT / "tests" / "cluster" / "site.toml").read_text().replace("nodes = 2", "nodes = 1")
    path.write_text(extra + text)
    return path


def bingo(cluster: Cluster, *words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bingo", *map(str, words)],
        cwd=cwd, env=cluster.environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def last(root: Path) -> Submission:
    found = newest(root)
    assert found is not None
    return found


def ids(root: Path) -> dict[str, str]:
    """Job -> its newest id."""
    return {line.job: line.slurm_id for line in last(root).sent()}


def log(root: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(root.rglob("*.log")) + sorted(root.rglob("*.out")))
