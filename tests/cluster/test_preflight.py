"""The pre-flight on a real Slurm: a slow or faulty node is left out, and the job ends well on the other one."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bingo.config import DemoDataConfig
from bingo.launch.cluster.site import read_site
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.script import render
from bingo.stages import Stage
from tests.cluster.slurm import Cluster
from tests.support.ranks import ROOT

pytestmark = pytest.mark.slurm

SLOW = """
import sys
from pathlib import Path
import torch
mm = torch.mm
torch.mm = lambda a, b: [mm(a, b) for _ in range(12)]
from bingo.launch.job import preflight
from bingo.launch.job import worker
worker.end(preflight.main(Path(sys.argv[1])))
"""


def python(folder: Path) -> Path:
    """An interpreter whose pre-flight is slow on c2."""
    (folder / "slow.py").write_text(SLOW)
    slow = f'exec {shlex.quote(sys.executable)} {shlex.quote(str(folder / "slow.py"))} "$4"'
    lines = ["#!/bin/sh", 'case "$SLURMD_NODENAME $3" in', f'"c2 bingo.launch.job.preflight") {slow} ;;', "esac"]
    path = folder / "python"
    path.write_text("\n".join([*lines, f'exec {shlex.quote(sys.executable)} "$@"', ""]))
    path.chmod(0o755)
    return path


SMI = """#!/bin/sh
[ "$SLURMD_NODENAME" = c2 ] && count=3 || count=0
case "$1" in --query-gpu=*) echo "00000000:18:00.0, $count, 5, No, Not Active, Not Active, Not Active" ;; esac
"""


def test_a_node_with_memory_errors_is_left_out(cluster: Cluster, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    log, first = preflown(cluster, tmp_path, sys.executable, setup=(f"export PATH={tmp_path}:$PATH",))
    why = "GPU 00000000:18:00.0: 3 uncorrected memory errors since the driver started"
    assert json.loads((first / "preflight.json").read_text())["slow"]["c2"][0] == why, log
    ended = json.loads((first / "end.json").read_text())
    assert f"(c2: {why}" in ended["cause"]["sentence"]


def test_a_slow_node_is_left_out(cluster: Cluster, tmp_path: Path) -> None:
    preflown(cluster, tmp_path, str(python(tmp_path)))


def preflown(cluster: Cluster, tmp_path: Path, interpreter: str, setup: tuple[str, ...] = ()) -> tuple[str, Path]:
    """A job whose pre-flight leaves c2 out, to its end: its log, and the folder of its first start."""
    job = tmp_path / "jobs" / "data"
    job.mkdir(parents=True)
    stage = Stage("data", "demo-data", DemoDataConfig(out=tmp_path / "digits"))
    spec = JobSpec("data", ((stage,),), parallel=True, nodes=2, min_nodes=1, preflight=True)
    spec.write(job)
    script = job / "script.sh"
    site = replace(read_site(ROOT / "tests" / "cluster" / "site.toml").jobs, setup=setup)
    script.write_text(render(site, spec, job, code=ROOT, python=interpreter))
    number = cluster.sbatch(script)
    cluster.wait_job(number, ["COMPLETED"], timeout=240)
    log = (job / f"{number}_batch.log").read_text()
    first, second = (job / "attempts" / f"{number}-{restart}" for restart in (0, 1))
    assert json.loads((first / "preflight.json").read_text())["excluded"] == ["c2"], log
    assert (first / "exclude").read_text() == "c2\n"
    ended = json.loads((first / "end.json").read_text())
    assert (ended["decision"], ended["cause"]["kind"], ended["cause"]["node"]) == (76, "slow node", "c2")
    assert not (second / "exclude").exists()
    assert json.loads((second / "begin.json").read_text())["nodes"] == "c1"
    assert [row["NodeList"] for row in cluster.attempts(number)] == ["c[1-2]", "c1"]
    assert (tmp_path / "digits" / "stage.json").exists()
    return log, first
