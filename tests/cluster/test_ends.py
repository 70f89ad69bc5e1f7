"""What `bingo status` and `bingo history` say of jobs that somebody ends, on a real Slurm, by every way to do so."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bingo.launch.job.records import read_beats
from tests.cluster.command import bingo, ids, last, log
from tests.cluster.slurm import Cluster, wait_for
from tests.support.ranks import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
FLAGS = ["--model", "tiny-8", "--augment.size", "16", "--contrast.dim", "16", "--contrast.hidden", "32",
         "--contrast.queue", "100", "--optim.batch", "64", "--optim.epochs", "2000", "--runtime.device", "cpu",
         "--runtime.checkpoint-every", "20"]  # fmt: skip


LIVES = r"(starting|running|ending): .*"
LEFT = r"ranks left after step \d+"


class Sweep:
    """A sweep of six runs of one rank each, four at a time."""

    def __init__(self, cluster: Cluster, folder: Path, data: Path) -> None:
        self.cluster, self.folder, self.data, self.root = cluster, folder, data, folder / "root"

    def send(self, extra: str = "") -> list[str]:
        """The ids of its tasks."""
        text = (ROOT / "tests" / "cluster" / "site.toml").read_text().replace("nodes = 2", "nodes = 1")
        (self.folder / "site.toml").write_text(extra + text.replace("mem_gb = 3", "mem_gb = 2"))
        words = ["--cluster", self.folder / "site.toml", "--out", self.root, "--set", "seed=0,1,2,3,4,5", "--limit", 4]
        sent = bingo(self.cluster, "sweep", "pretrain", *words, "--", "--data", self.data, *FLAGS)
        assert sent.returncode == 0, sent.stderr
        (array,) = ids(self.root).values()
        return [f"{array}_{task}" for task in range(6)]

    def told(self, verb: str, *words: object) -> dict[str, Any]:
        """Of a verb's JSON; with a new cache each time, so that no answer is old."""
        asked = [sys.executable, "-m", "bingo", verb, self.root, "--json", *words]
        said = self.cluster.run(*asked, check=False, XDG_CACHE_HOME=str(self.folder / f"cache-{time.time()}"))
        assert said.returncode in (0, 1), said.stderr
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def states(self, *words: object) -> list[str]:
        """Of each task, in a word, and a sentence."""
        return [f"{task['state']}: {task['text']}" for task in self.told("status", *words)["jobs"]]

    def until(self, holds: Callable[[list[str]], bool], *allowed: str) -> list[str]:
        """Look until something is said; what is said of each task meanwhile is of these kinds."""
        for _ in range(200):
            found = self.states()
            for task, (said, right) in enumerate(zip(found, allowed, strict=True)):
                assert re.fullmatch(right, said), f"task {task}: {said}"
            if holds(found):
                return found
            time.sleep(1)
        raise AssertionError(f"{found}\n{log(self.root)}")

    def causes(self, *words: object) -> list[list[str]]:
        """Of each task the kinds of what ended its starts, "" of one that goes on."""
        found: list[list[str]] = [[] for _ in range(6)]
        for start in self.told("history", *words)["attempts"]:
            found[start["task"]].append(start["cause"]["kind"] if start["cause"] else "")
        return found

    def trains(self, task: str, restart: int = 0) -> bool:
        starts = last(self.root).folder.glob(f"jobs/*/attempts/{task}-{restart}")
        return any(beat.step >= 10 for start in starts for beat in read_beats(start).values())

    def script(self, task: str) -> int:
        """The process of a task's batch script."""
        number = self.cluster.show(task)["JobId"]
        for pid in [pid for node in self.cluster.nodes for pid in self.cluster.processes(node)]:
            if f"/job{number.zfill(5)}/slurm_script" in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        raise AssertionError(f"{task} has no script")


def test_tasks_that_are_ended_in_every_way(cluster: Cluster, digits: Path, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, digits / "train")
    task = sweep.send()
    wait_for(lambda: all(map(sweep.trains, task[:4])), 120, "steps of four tasks", 0.5)
    assert [said.partition(":")[0] for said in sweep.states()] == ["running"] * 4 + ["waiting"] * 2
    cluster.run("scancel", task[5])
    cluster.run("scancel", task[0])
    os.kill(sweep.script(task[1]), signal.SIGKILL)
    cluster.run("scancel", "--batch", "--signal=TERM", task[2])
    cluster.run("scontrol", "requeue", task[3])
    cluster.run("scancel", task[3])
    gone, killed = r"cancelled: the job was cancelled; .*", r"failed: its batch script was killed by signal 9; .*"
    again = r"requeued: start 1 ended: asked to leave by SIGUSR2; .*"
    back = r"cancelled: the job was requeued by hand; .*"
    never = "cancelled: it was cancelled while it waited"
    waits = r"waiting: .*"
    ways = (f"{gone}|{LIVES}", f"{killed}|{LIVES}", f"{again}|{LIVES}", f"{back}|requeued: .*|{LIVES}",
            f"{waits}|{LIVES}", never)  # fmt: skip
    sweep.until(lambda found: found[2].startswith("requeued"), *ways)
    found = sweep.until(lambda found: found[2].startswith("running"), *ways)
    ends = [f"{gone.removesuffix('.*')}{LEFT}", f"{killed.removesuffix('.*')}{LEFT}", r"running: .*",
            rf"{back.removesuffix('.*')}{LEFT}; it was cancelled before it started again", LIVES, never]  # fmt: skip
    for at, (said, right) in enumerate(zip(found, ends, strict=True)):
        assert re.fullmatch(right, said), f"task {at}: {said}"
    causes = [["cancelled"], ["killed"], ["left", ""], ["requeued"], [""], []]
    assert sweep.causes() == causes
    wait_for(lambda: sweep.trains(task[2], 1) and sweep.trains(task[4]), 120, "steps of the two that are left", 0.5)
    cluster.run("scontrol", "requeue", task[2])
    wait_for(lambda: cluster.state(task[2]) == "PENDING", 60, "the requeue", 0.2)
    assert bingo(cluster, "cancel", sweep.root).returncode == 0
    over = r"cancelled: the job was requeued by hand; .*; it was cancelled before it started again"
    ended = [*ends[:2], over, ends[3], f"{gone}|{LIVES}", "cancelled: cancelled: bingo cancel"]
    found = sweep.until(lambda found: found[4].startswith("cancelled"), *ended)
    causes = [["cancelled"], ["killed"], ["left", "requeued"], ["requeued"], ["cancelled"], []]
    assert sweep.causes() == causes
    first = last(sweep.root).id
    sweep.send("sbatch = {hold = true}\n")
    assert [said.partition(":")[0] for said in sweep.states()] == ["stuck"] * 6
    assert sweep.states("--submission", first) == found
    assert bingo(cluster, "cancel", sweep.root).returncode == 0
    assert sweep.states() == ["cancelled: cancelled: bingo cancel"] * 6
    assert (sweep.states("--submission", first), sweep.causes("--submission", first)) == (found, causes)
    assert sweep.causes() == [[]] * 6
