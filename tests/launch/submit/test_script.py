"""The batch script: its parameters, and what it does with the decision, run by bash with an srun and a scontrol that
only write down what they are told."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bingo.launch.cluster.site import Container, Site
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.script import render
from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick

SITE = Site(partition="gpu", nodes=4, gpus_per_node=8, mem_gb=1.5, env={"NCCL_SOCKET_IFNAME": "eth0"}, exclude="bad1")
SPEC = JobSpec(name="distill knn", tasks=((),), nodes=4, min_nodes=4, ranks_per_node=8)


def parameters(text: str) -> dict[str, str]:
    words = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def test_parameters(tmp_path: Path) -> None:
    text = render(SITE, SPEC, tmp_path, code=tmp_path / "code", python="python3")
    assert parameters(text) == {
        "cpus-per-task": "1",
        "exclude": "bad1",
        "gpus-per-node": "8",
        "job-name": "distill-knn",
        "kill-on-invalid-dep": "yes",
        "mem": "1536M",
        "nodes": "4",
        "ntasks-per-node": "8",
        "open-mode": "append",
        "output": f"{tmp_path}/%j_batch.log",
        "partition": "gpu",
        "requeue": "",
        "signal": "USR2@180",
        "time": "1440",
    }
    assert "export NCCL_SOCKET_IFNAME=eth0\n" in text
    assert f"export PYTHONPATH={tmp_path}/code" in text


def test_arrays_elastic_jobs_and_containers(tmp_path: Path) -> None:
    box = Container("/images/x.sqsh", ("/data:/data", "/runs:/runs"), "/work dir")
    site = dataclasses.replace(SITE, container=box, sbatch={"comment": "two words", "nice": 10}, gres="gpu:h100:8")
    spec = dataclasses.replace(SPEC, tasks=((), (), ()), array=True, limit=2, min_nodes=2, preflight=True)
    text = render(site, spec, tmp_path, code=tmp_path, python="python3")
    found = parameters(text)
    assert (found["array"], found["nodes"], found["output"]) == ("0-2%2", "2-4", f"{tmp_path}/%A_%a_batch.log")
    assert (found["comment"], found["nice"], found["gres"]) == ("'two words'", "10", "gpu:h100:8")
    inside = (
        "--container-image=/images/x.sqsh --container-mounts=/data:/data,/runs:/runs '--container-workdir=/work dir'"
    )
    # the helper, the check before the start and the ranks; scontrol stays outside
    assert text.count(inside) == 3
    assert all("srun" not in line for line in text.splitlines() if "scontrol" in line)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.fixture
def shellcheck() -> list[str]:
    """The linter's command; skipped where it is missing, but not where CI wants it."""
    if shutil.which("shellcheck") is None:
        reason = "needs shellcheck: apt-get install shellcheck"
        if os.environ.get("BINGO_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return ["shellcheck", "--norc"]


@pytest.mark.parametrize("name", ["wait.sh", "teardown.sh"])
def test_shellcheck_accepts_the_shell_files(shellcheck: list[str], name: str) -> None:
    done = subprocess.run([*shellcheck, ROOT / "launch" / "submit" / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("more", [{}, {"preflight": True, "min_nodes": 2}, {"array": True}], ids=str)
def test_shellcheck_accepts_the_whole_script(shellcheck: list[str], tmp_path: Path, more: dict[str, Any]) -> None:
    """The files' variables are set by the lines around them, and no placeholder is left."""
    text = render(SITE, dataclasses.replace(SPEC, **more), tmp_path, code=tmp_path, python="python3")
    # SC2140 takes the end of one quoted word and the start of the next for a mistake.
    command = [*shellcheck, "--severity=warning", "--exclude=SC2140", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"EXCLUDE|ATTEMPTS|\bLOG\b", text)


def play(
    tmp_path: Path, spec: JobSpec, *, status: int, python: str = sys.executable, ends: str = "", **environ: str
) -> list[str]:
    """Run the script; returns what srun and scontrol were told. The ranks' srun exits with `status`; ends: first Slurm
    ends the attempt with SIGTERM to the script, and writes this line into its log."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    log = f"{tmp_path}/{environ.get('SLURM_ARRAY_JOB_ID', '')}{'_' * ('SLURM_ARRAY_JOB_ID' in environ)}"
    log += environ.get("SLURM_ARRAY_TASK_ID", "12") + "_batch.log"
    term = f'echo "{ends}" >> "{log}"; kill -TERM $PPID; sleep 0.2\n' if ends else ""
    for name, does in (("srun", f"{term}exit {status}"), ("scontrol", "exit 0")):
        tool = tmp_path / "bin" / name
        tool.write_text(f'#!/bin/bash\necho "{name} $@" >> "{tmp_path}/said"\n{does}\n')
        tool.chmod(0o755)
    (tmp_path / "said").unlink(missing_ok=True)
    text = render(Site(exclude="bad1"), spec, tmp_path, code=ROOT, python=python)
    slurm = {"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "c[1-3]"}
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    subprocess.run(["bash"], input=text, text=True, check=False, env={**os.environ, **slurm, "PATH": path, **environ})
    return (tmp_path / "said").read_text().splitlines()


ONE = JobSpec(name="x", tasks=((),))


@pytest.mark.parametrize(("status", "again"), [(0, False), (65, False), (70, True), (75, True), (137, True)])
def test_it_is_requeued_as_decided(tmp_path: Path, status: int, again: bool) -> None:
    said = play(tmp_path, ONE, status=status)
    assert len([line for line in said if line.startswith("srun")]) == 1
    assert ("scontrol requeue 12" in said) == again


@pytest.mark.parametrize(
    ("status", "restarts", "again"), [(70, 2, True), (70, 3, False), (0, 0, False), (65, 0, False)]
)
def test_a_broken_helper(tmp_path: Path, status: int, restarts: int, again: bool) -> None:
    said = play(tmp_path, ONE, status=status, python="/bin/false", SLURM_RESTART_COUNT=str(restarts))
    assert ("scontrol requeue 12" in said) == again


ARRAY = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.mark.parametrize("task", [{}, ARRAY], ids=["job", "array"])
@pytest.mark.parametrize(("why", "again"), [("DUE TO TIME LIMIT", True), ("CANCELLED AT 12:00", False)])
def test_a_broken_helper_and_a_job_that_slurm_ends(tmp_path: Path, task: dict[str, str], why: str, again: bool) -> None:
    """At the time limit nobody else requeues; a cancelled job must not come back."""
    spec = dataclasses.replace(ONE, tasks=((),) * 4, array=True) if task else ONE
    said = play(tmp_path, spec, status=143, python="/bin/false", ends=f"error: *** JOB 12 {why} ***", **task)
    assert ("scontrol requeue 12" in said) == again


def test_fewer_nodes_than_wished(tmp_path: Path) -> None:
    spec = JobSpec(name="x", tasks=((),), nodes=4, min_nodes=1, ranks_per_node=2)
    (said,) = [line for line in play(tmp_path, spec, status=0) if line.startswith("srun")]
    assert "--nodes=2 --ntasks=4 " in said, "of three nodes: four nodes' worth of ranks divides among two"


def test_a_slow_node_is_left_out(tmp_path: Path) -> None:
    spec = dataclasses.replace(ONE, preflight=True)
    for restart, node in enumerate(["c2", "c1"]):
        attempt = tmp_path / "attempts" / f"12-{restart}"
        attempt.mkdir(parents=True)
        (attempt / "exclude").write_text(f"{node}\n")
    said = play(tmp_path, spec, status=76, SLURM_RESTART_COUNT="1")
    assert [line.split()[0] for line in said] == ["srun", "scontrol", "scontrol"]
    assert "bingo.launch.job.preflight" in said[0], "the ranks do not start"
    assert said[2] == "scontrol update JobId=12 ExcNodeList=bad1,c1,c2"
