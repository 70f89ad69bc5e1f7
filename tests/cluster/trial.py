"""One trial: a small distillation as a Slurm job of two nodes, one fault, no help; what came out, as a line of JSON.

python -m tests.cluster.trial submit FILE    (inside the cluster; used by `run_trial`)
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bingo.config import DistillConfig
from bingo.config_parts import Augmentation, Contrast, Optimiser, Runtime
from bingo.launch.job.spec import JobSpec
from bingo.stages import Stage
from tests.cluster.faults import CHECKPOINT_EVERY, COLLECTIVE_TIMEOUT_S, EPOCHS, KINDS, NODES, STEPS, Fault, draw
from tests.cluster.slurm import Cluster, slowness
from tests.cluster.truth import Seen, lies

INJECTOR = Path(__file__).resolve().parent / "injector"
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")
Script = Iterator[Callable[[], bool]]
"""What a test does to a job: it yields what it waits for, then acts."""


@dataclass(frozen=True)
class Inputs:
    """Packed digits, a teacher's model file, bags; see `tests.support.inputs`."""

    digits: Path
    teacher: Path
    bags: Path


def distillation(inputs: Inputs, out: Path) -> Stage:
    """64 steps of the release objective on 2 x 32 images; a checkpoint every 7 steps and at each epoch's end."""
    config = DistillConfig(
        data=inputs.digits / "train",
        teacher=inputs.teacher,
        bags=inputs.bags,
        out=out,
        student="tiny",
        warm_epochs=1,
        augment=Augmentation(size=16),
        contrast=Contrast(dim=16, hidden=32, queue=100),
        optim=Optimiser(epochs=EPOCHS, batch=64),
        runtime=Runtime(device="cpu", threads=1, checkpoint_every=CHECKPOINT_EVERY, log_every=1),
    )
    return Stage("distill", "distill", config)


def weights(model: Path) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = torch.load(model, weights_only=True)["state_dict"]
    return found


def same_weights(a: Path, b: Path) -> bool:
    """Bit for bit."""
    import torch

    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def steps_of(metrics: Path) -> list[int]:
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]


def write_site(path: Path, values: dict[str, Any], env: dict[str, str], sbatch: dict[str, str]) -> None:
    """A site file; JSON's strings and numbers are TOML's."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    for name, table in (("env", env), ("sbatch", sbatch)):
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines) + "\n")


@dataclass
class Trial:
    """A job under observation."""

    cluster: Cluster
    fault: Fault
    folder: Path
    nodes: Sequence[str]
    job: str = ""
    submission: Path = Path()
    acted: float | None = None
    """When the test began to act from outside, in unix time."""

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def out(self) -> Path:
        return self.root / "run"

    def seen(self, path: Path) -> Path:
        """Where a file that may lie on the cluster's own disk is found from outside."""
        return self.cluster.outside(path)

    def submit(self, inputs: Inputs) -> None:
        kind = KINDS[self.fault.kind]
        (self.folder / "marks").mkdir(parents=True)
        if kind.tmpfs:
            self.cluster.mount_tmpfs(*((self.root, "24M") if self.fault.whole_root else (self.out, "1M")))
        values = {
            "partition": kind.partition, "nodes": NODES, "time_min": 60, "signal_delay_s": 60,
            "collective_timeout_s": COLLECTIVE_TIMEOUT_S, "python": sys.executable,
            "mem_gb": kind.memory_mb / 1024 if kind.memory_mb else None,
        }  # fmt: skip
        env = {"PYTHONPATH": str(INJECTOR), "BINGO_FAULT": json.dumps(self.fault.to_json())}
        write_site(self.folder / "site.toml", values, env, {"nodelist": ",".join(self.nodes)})
        spec = JobSpec("distill", ((distillation(inputs, self.out),),), parallel=True, nodes=NODES, min_nodes=NODES,
                       collective_timeout_s=COLLECTIVE_TIMEOUT_S)  # fmt: skip
        order = {"root": str(self.root), "site": str(self.folder / "site.toml"), "job": spec.to_json()}
        (self.folder / "order.json").write_text(json.dumps(order))
        said = self.cluster.run(sys.executable, "-m", "tests.cluster.trial", "submit", self.folder / "order.json")
        answer = json.loads(said.stdout.splitlines()[-1])
        self.job, self.submission = answer["slurm_id"], Path(answer["folder"])

    def marked(self) -> bool:
        return (self.folder / "marks" / "fault").exists()

    def moment(self) -> float | None:
        """When the fault happened, in unix time."""
        if KINDS[self.fault.kind].outside == "usr2-early":  # it has no step
            return self.acted
        return float((self.folder / "marks" / "fault").read_text()) if self.marked() else None

    def state(self) -> str:
        return self.cluster.state(self.job)

    def victim(self) -> str:
        """The node of the fault's rank: ranks are dealt to nodes in order."""
        return self.nodes[self.fault.rank]

    def script(self) -> Script:
        """What happens from outside, one action at a time."""
        fault, cluster = self.fault, self.cluster
        outside = KINDS[fault.kind].outside
        if outside == "usr2-early":
            yield lambda: self.state() == "RUNNING"
        elif outside:
            yield self.marked
        yield after(fault.delay_s)
        self.acted = time.time()
        if outside.startswith("usr2"):
            cluster.run("scancel", "--signal=USR2", self.job)
        elif outside == "requeue":
            cluster.run("scontrol", "requeue", self.job)
        elif outside == "preempt":
            cluster.preempt(self.nodes, seconds=3)
        elif outside == "free-disk":
            yield lambda: self.state() != "RUNNING"
            yield after(1)
            cluster.run("rm", "-f", self.out / ".filler")
        elif outside == "slurmd":
            cluster.kill_slurmd(self.victim())
            yield after(fault.down_s)
            cluster.start_node(self.victim())
        elif outside == "node":
            cluster.kill_node(self.victim())
            yield lambda: cluster.node_states()[self.victim()].startswith("down")
            cluster.start_node(self.victim())

    def watch(self, limit_s: float, status_every_s: float) -> list[Seen]:
        """Carry out the script and look on until the job has ended."""
        seen: list[Seen] = []
        script, last, over = self.script(), time.monotonic(), time.monotonic() + limit_s
        waits_for = next(script, None)
        while time.monotonic() < over:
            now, facts = time.time(), self.cluster.show(self.job)
            state = facts.get("JobState", "")
            seen.append(Seen(now, state, int(facts.get("Restarts", 0))))
            if waits_for is None and state in ENDS:
                break
            if waits_for is not None and waits_for():
                waits_for = next(script, None)
            if time.monotonic() - last > status_every_s:
                last = time.monotonic()
                said = self.status()
                seen.append(Seen(time.time(), status=said))
            time.sleep(0.25)
        time.sleep(2)  # accounting lags by a second
        said, facts = self.status(fresh=True), self.cluster.show(self.job)
        seen.append(Seen(time.time(), facts.get("JobState", ""), int(facts.get("Restarts", 0)), said))
        return seen

    def bingo(self, verb: str, fresh: bool = False) -> subprocess.CompletedProcess[str]:
        """`bingo VERB ROOT --json`; fresh: not from what Slurm said to an earlier call."""
        extra = {"XDG_CACHE_HOME": str(self.folder / "fresh")} if fresh else {}
        return self.cluster.run(sys.executable, "-m", "bingo", verb, self.root, "--json", check=False, **extra)

    def status(self, fresh: bool = False) -> dict[str, Any]:
        """What `bingo status --json` says."""
        said = self.bingo("status", fresh)
        try:
            found: dict[str, Any] = json.loads(said.stdout)
        except json.JSONDecodeError:
            return {"error": f"exit {said.returncode}: {said.stdout}{said.stderr}"}
        return found


def after(seconds: float) -> Callable[[], bool]:
    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due


def run_trial(
    cluster: Cluster, inputs: Inputs, reference: Path, folder: Path, kind: str, seed: int, nodes: Sequence[str],
    *, status_every_s: float = 3,
) -> dict[str, Any]:  # fmt: skip
    """Run one trial to its end; reference: the folder of an uninterrupted run."""
    trial = Trial(cluster, draw(kind, seed, folder / "marks"), folder, nodes)
    trial.submit(inputs)
    began = time.monotonic()
    try:
        seen = trial.watch(1500, status_every_s)
    finally:
        if trial.state() not in ENDS:
            cluster.run("scancel", trial.job, check=False)
    taken = {"seconds": round(time.monotonic() - began, 1), "slowness": round(slowness(), 1)}
    return {**asdict(trial.fault), **judge(trial, seen, reference), **taken}


def judge(trial: Trial, seen: list[Seen], reference: Path) -> dict[str, Any]:
    """Everything a trial must show, and `ok`."""
    out, kind = trial.seen(trial.out), KINDS[trial.fault.kind]
    moment = trial.moment()
    state, restarts = seen[-1].state, max(s.restarts for s in seen)
    identical = (out / "model.pt").exists() and same_weights(out / "model.pt", reference / "model.pt")
    metrics = out / "metrics.jsonl"
    steps_ok = metrics.exists() and steps_of(metrics) == list(range(STEPS))
    # A look may miss the moment between two starts: the second one is proof of it too.
    after = [s for s in seen if moment and s.time > moment and s.state]
    freed = next((s.time for s in after if s.state not in HOLDS or s.restarts), None)
    cause = cause_of(trial)
    told = lies(seen)
    problems = [
        *([] if state == "COMPLETED" else [f"the job ended as {state}"]),
        *([] if identical else ["weights differ"]),
        *([] if steps_ok else ["steps are missing or repeated"]),
        *blame(trial, cause, restarts),
        *told,
    ]
    return {
        "job": trial.job, "state": state, "attempts": restarts + 1, "identical": identical, "steps_ok": steps_ok,
        "freed_after": round(freed - moment, 2) if freed and moment and restarts else None,
        "bound_s": kind.within_s, "cause": cause, "status_lies": told, "problems": problems, "ok": not problems,
    }  # fmt: skip


HOLDS = ("RUNNING", "COMPLETING")


def cause_of(trial: Trial) -> dict[str, Any]:
    """What `bingo history`, which counts from 1, says about the end of the first attempt."""
    said = trial.bingo("history", fresh=True)
    try:
        starts = json.loads(said.stdout)["attempts"]
    except (json.JSONDecodeError, KeyError):
        return {"kind": f"history broke: {said.stdout[-300:]}{said.stderr[-1000:]}"}
    return next((start["cause"] for start in starts if start["attempt"] == 1), None) or {}


def blame(trial: Trial, cause: dict[str, Any], restarts: int) -> list[str]:
    """What is wrong with the cause that was named."""
    kind, fault = KINDS[trial.fault.kind], trial.fault
    if not restarts:  # nothing ended: a daemon that comes back in time harms nobody
        return [] if fault.kind == "slurmd" and fault.down_s < 10 else ["the job never started again"]
    wrong = [] if cause.get("kind") in kind.causes else [f"cause {cause.get('kind')} in place of {kind.causes}"]
    if kind.blames and cause.get("node") != trial.victim():
        wrong.append(f"node {cause.get('node')} in place of {trial.victim()}")
    if kind.blames == "rank" and cause.get("rank") != fault.rank:
        wrong.append(f"rank {cause.get('rank')} in place of {fault.rank}")
    return wrong


def main(verb: str, path: Path) -> None:
    """Submit a single job as `bingo submit` does a chain."""
    from bingo.launch.cluster.site import read_site
    from bingo.launch.submit.send import submit

    assert verb == "submit"
    order = json.loads(path.read_text())
    submission = submit(Path(order["root"]), [JobSpec.from_json(order["job"])], read_site(Path(order["site"])), {})
    assert submission is not None
    print(json.dumps({"folder": str(submission.folder), "slurm_id": submission.sent()[-1].slurm_id}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
