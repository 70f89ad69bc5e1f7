"""`bingo status`, `logs` and `history` on a real Slurm, while jobs wait, fail, are cancelled, and lose their node."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bingo.launch.status.states import GRACE_S
from bingo.launch.submit.submission import Submission
from tests.cluster.slurm import Cluster, alive, wait_for
from tests.support.ranks import bingo
from tests.support.submissions import attempt, job, submission

pytestmark = pytest.mark.slurm


def script(made: Submission, name: str, *lines: str) -> list[str]:
    """Words for sbatch: a batch script with its log where a job's log belongs."""
    path = made.job_folder(name) / "script.sh"
    path.write_text(
        "\n".join(["#!/bin/bash", 'echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $(hostname)"', *lines])
    )
    pattern = "%A_%a" if made.job(name).array else "%j"
    return ["--open-mode=append", f"--output={path.parent}/{pattern}_batch.log", str(path)]


def status(cluster: Cluster, made: Submission, cache: Path) -> dict[str, dict[str, Any]]:
    """States by job (and task) from the command itself; a cache of its own each time, so that nothing is old."""
    folder = cache / f"{time.time()}"
    done = bingo("status", made.root, "--json", **cluster.environment, XDG_CACHE_HOME=str(folder))
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(done.stdout)
    assert [problem for problem in said["problems"] if "accounting of this cluster" not in problem] == []
    jobs = {s["job"] if s["task"] is None else f"{s['job']}{s['task']}": s for s in said["jobs"]}
    return {**jobs, "": said}


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.run("scancel", "--user=root")
    cluster.wait_idle()


def test_a_broken_chain_and_an_array(cluster: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "root"
    jobs = [job(root, "bad"), job(root, "tail", "bad"), job(root, "end", "tail"), job(root, "many", tasks=3)]
    made = submission(root, jobs, {}, time.time())
    bad = cluster.sbatch(*script(made, "bad", f"until [ -e {tmp_path}/go ]; do sleep 0.2; done", "exit 3"))
    kill = "--kill-on-invalid-dep=yes"
    tail = cluster.sbatch(kill, f"--dependency=afterok:{bad}", *script(made, "tail"))
    end = cluster.sbatch(kill, f"--dependency=afterok:{tail}", *script(made, "end"))
    many = cluster.sbatch("--array=0-2%1", *script(made, "many", "sleep 300"))
    for name, slurm_id in {"bad": bad, "tail": tail, "end": end, "many": many}.items():
        made.record(name, slurm_id, range(len(made.job(name).tasks)), 0)
    found = status(cluster, made, tmp_path)
    assert (found["tail"]["state"], found["tail"]["text"]) == ("waiting", "it waits for bad")
    (tmp_path / "go").touch()
    wait_for(lambda: cluster.state(end) == "CANCELLED", 60, "the end of the tail", 0.5)
    wait_for(lambda: cluster.state(f"{many}_0") == "RUNNING", 60, "the first task", 0.5)
    cluster.run("scancel", f"{many}_1")
    sent = made.newest()["many", 1].time
    wait_for(lambda: time.time() > sent + GRACE_S, 10, "a while in which Slurm may not know a job yet", 0.5)
    found = status(cluster, made, tmp_path)
    assert (found["bad"]["state"], found["bad"]["text"]) == ("failed", "its script ended with status 3")
    assert found["tail"]["text"] == "cancelled because it needs bad, which failed"
    assert found["end"]["text"] == "cancelled because it needs tail, which was cancelled"
    assert found["many0"]["state"] == "starting"
    assert (found["many1"]["state"], found["many1"]["text"]) == ("cancelled", "it was cancelled while it waited")
    assert found["many2"]["state"] == "waiting"
    assert found[""]["verdict"].startswith("failed: bad: its script ended with status 3; ")
    told = bingo("logs", root, "bad", **cluster.environment, XDG_CACHE_HOME=str(tmp_path / "logs"))
    assert told.stdout.startswith("bad batch | bingo: attempt 0 on ")


def test_a_lost_node(cluster: Cluster, tmp_path: Path) -> None:
    """True before, while the node is gone, while the job waits to start again, and after."""
    root = tmp_path / "root"
    made = submission(root, [job(root, "one")], {}, time.time())
    again = "[ ${SLURM_RESTART_COUNT:-0} = 1 ] || sleep 300"
    slurm_id = cluster.sbatch("--requeue", "--nodelist=c2", *script(made, "one", again))
    made.record("one", slurm_id, [0], 0)
    wait_for(lambda: cluster.state(slurm_id) == "RUNNING", 60, "the start", 0.5)
    now = time.time()
    events = [
        {"time": now, "event": "start", "host": "c2", "pid": 1},
        {"time": now, "event": "stage", "name": "stage of one"},
    ]
    begin = {"time": now, "nodes": "c2"}
    attempt(made, "one", f"{slurm_id}-0", begin=begin, events={0: events}, beat=f"7 {now + 0.1:.3f} stage of one")
    found = status(cluster, made, tmp_path)["one"]
    assert (found["state"], found["step"], found["nodes"]) == ("running", 7, "c2")
    cluster.kill_node("c2")
    cluster.wait_job(slurm_id, ["PENDING"])
    found = status(cluster, made, tmp_path)["one"]
    assert found["state"] == "requeued"
    wait_for(lambda: len(cluster.attempts(slurm_id)) > 0, 20, "accounting", 0.5)
    wait_for(lambda: cluster.attempts(slurm_id)[0]["State"] == "NODE_FAIL", 20, "accounting", 0.5)
    found = status(cluster, made, tmp_path)["one"]
    assert found["state"] == "requeued"
    assert found["cause"]["kind"] == "node lost"
    cluster.start_node("c2")
    cluster.wait_job(slurm_id, ["COMPLETED"])
    assert status(cluster, made, tmp_path)["one"]["state"] == "done"
    words = ("history", root, "--json")
    told = json.loads(bingo(*words, **cluster.environment, XDG_CACHE_HOME=str(tmp_path / "h")).stdout)
    assert [(entry["steps"], entry["steps_lost"]) for entry in told["attempts"]] == [(7, 7), (0, 0)]
    assert told["attempts"][0]["cause"]["kind"] == "node lost"


def test_accounting_is_away(cluster: Cluster, tmp_path: Path) -> None:
    """A job that ended and one that runs are told truly all the same, and what is missing is said."""
    root = tmp_path / "root"
    made = submission(root, [job(root, "bad"), job(root, "on")], {}, time.time())
    pid = int((cluster.base / "run" / "slurmdbd.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    try:
        wait_for(lambda: not alive(pid), 30, "the end of slurmdbd")
        for name, line in (("bad", "exit 3"), ("on", "sleep 300")):
            made.record(name, cluster.sbatch(*script(made, name, line)), [0], 0)
        wait_for(lambda: cluster.state(made.newest()["bad", 0].slurm_id) == "FAILED", 60, "the end of bad", 0.5)
        found = status(cluster, made, tmp_path)
    finally:
        cluster.run("slurmdbd")
        wait_for(lambda: cluster.run("sacctmgr", "-n", "list", "cluster", check=False).returncode == 0, 60, "slurmdbd")
    assert (found["bad"]["state"], found["bad"]["text"]) == ("failed", "its script ended with status 3")
    assert found["on"]["state"] == "starting"
    assert any("the accounting of this cluster does not answer now" in problem for problem in found[""]["problems"])
