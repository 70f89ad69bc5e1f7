"""The test Slurm itself: the faults that other tests inject are real, and the machine around it stays as it was."""

import os
from pathlib import Path

import pytest

from tests.cluster.slurm import Cluster, free_ports, namespace, wait_for
from tests.cluster.slurm_conf import memory_limits

pytestmark = pytest.mark.slurm


def script(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "script.sh"
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    return path


def test_names_of_nodes_resolve_inside_and_only_there(cluster: Cluster) -> None:
    lines = cluster.run("srun", "-N2", "bash", "-c", "getent hosts $SLURMD_NODENAME").stdout.splitlines()
    assert sorted(line.split()[-1] for line in lines) == cluster.nodes
    assert not any(line.split()[-1:] == ["c2"] for line in Path("/etc/hosts").read_text().splitlines())


def test_a_small_disk_is_seen_on_every_node(cluster: Cluster, tmp_path: Path) -> None:
    cluster.mount_tmpfs(tmp_path / "disk", "1M")
    fill = f"head -c 2000000 /dev/zero > {tmp_path}/disk/$SLURMD_NODENAME"
    assert "No space left" in cluster.run("srun", "-N2", "bash", "-c", fill, check=False).stderr
    assert not list((tmp_path / "disk").iterdir()), "the mount is the cluster's alone"


def test_a_folder_is_read_only_everywhere_or_another_one_on_one_node(cluster: Cluster, tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "seen").touch()
    write = f"echo x > {folder}/$SLURMD_NODENAME"
    with cluster.read_only(folder):
        said = cluster.run("srun", "-N2", "bash", "-c", write, check=False).stderr
        assert said.count("Read-only file system") == 2, said
    cluster.run("srun", "-N2", "bash", "-c", write)
    with cluster.covered(folder, other, node="c2"):
        look = f"echo $SLURMD_NODENAME $(ls {folder})"
        assert sorted(cluster.run("srun", "-N2", "bash", "-c", look).stdout.splitlines()) == ["c1 c1 c2", "c2 seen"]
    assert sorted(path.name for path in folder.iterdir()) == ["c1", "c2"]


def test_memory_beyond_the_limit_ends_the_task(cluster: Cluster, tmp_path: Path) -> None:
    grow = "import time; grown = b'x' * 500_000_000; time.sleep(5)"
    job = cluster.sbatch("--mem=100", "-o", tmp_path / "log", script(tmp_path, f'srun python3 -c "{grow}"'))
    cluster.wait_job(job, ["FAILED", "OUT_OF_MEMORY", "CANCELLED"])

    def ended() -> list[str]:
        return cluster.run("sacct", "-nP", "-j", f"{job}.0", "-o", "State").stdout.split()

    wait_for(lambda: ended() not in ([], ["RUNNING"]), 20, "accounting", 0.5)
    assert ended()[0] in (["OUT_OF_MEMORY"] if memory_limits() else ["OUT_OF_MEMORY", "CANCELLED", "FAILED"])


def test_a_lost_node_requeues_its_job_which_ends_well_once_it_is_back(cluster: Cluster, tmp_path: Path) -> None:
    body = script(
        tmp_path, "srun bash -c 'echo start ${SLURM_RESTART_COUNT:-0}; [ $SLURM_RESTART_COUNT ] || sleep 300'"
    )
    log = tmp_path / "log"
    job = cluster.sbatch("-N2", "--requeue", "--open-mode=append", "-o", log, body)
    wait_for(lambda: log.exists() and log.read_text().count("start") == 2, 30, "two tasks")
    assert cluster.processes("c2")
    cluster.kill_node("c2")
    assert not cluster.processes("c2")
    cluster.wait_job(job, ["PENDING"])
    cluster.start_node("c2")
    cluster.wait_job(job, ["COMPLETED"])
    assert log.read_text().count("start 1") == 2, log.read_text()
    wait_for(lambda: [a["State"] for a in cluster.attempts(job)] == ["NODE_FAIL", "COMPLETED"], 20, "accounting", 0.5)
    cluster.wait_idle()


def test_daemons_listen_where_they_were_told_and_nothing_of_them_is_outside(cluster: Cluster) -> None:
    assert len(set(free_ports(20))) == 20
    spaces = {namespace(pid) for node in cluster.nodes for pid in cluster.processes(node)}
    assert len(spaces) == len(cluster.nodes)
    assert namespace(os.getpid()) not in spaces
