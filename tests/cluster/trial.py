"""One trial: a small distillation as a Slurm job of a few nodes, and one fault; the verdict is a line of JSON."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bingo.config_json import to_json
from bingo.files import hash_file
from bingo.launch.submit.repair import of_root
from tests.cluster.faults import COLLECTIVE_TIMEOUT_S, KINDS, Fault, Kind, draw
from tests.cluster.outside import EXPORTED, SCRIPTS, Script
from tests.cluster.runs import Inputs, Runs, distillation
from tests.cluster.slurm import Cluster, slowness
from tests.cluster.truth import AWAY, Seen
from tests.support.disk_faults import unreadable

INJECTOR = Path(__file__).resolve().parent / "injector"
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")
LIMIT_S, IN_VAIN_S = 1500, 30
"""How long a job is watched, and how long after its end the script is still waited for."""
Said = subprocess.CompletedProcess[str]


@dataclass
class Trial:
    """A job under observation."""

    cluster: Cluster
    fault: Fault
    folder: Path
    nodes: Sequence[str]
    runs: Runs
    job: str = ""
    acted: float | None = None
    """When the test began to act from outside, in unix time."""
    away: bool = False
    """Whether the cluster's controller is stopped now."""
    problems: list[str] = field(default_factory=list)
    """What the script has found wrong."""
    kept: dict[Path, str] = field(default_factory=dict)
    """Files that must still be there after the end, under any name of their folder, and their hashes."""
    undo: Callable[[], object] = lambda: None
    """How a person mends what stopped the job."""
    repair: Sequence[object] = ()
    """What is typed then."""

    @property
    def kind(self) -> Kind:
        return KINDS[self.fault.kind]

    @property
    def root(self) -> Path:
        return self.folder / (self.fault.variant if self.fault.kind == "odd-path" else "root")

    @property
    def out(self) -> Path:
        return self.root / "run"

    @property
    def exported(self) -> dict[str, str]:
        """What the shell has exported in which `bingo` is typed."""
        return EXPORTED[self.fault.variant] if self.fault.kind == "environment" else {}

    @property
    def python(self) -> Path:
        return self.folder / "python"

    @property
    def inputs(self) -> Inputs:
        """Those of all trials, or copies of this one, times and all, where the fault may change them."""
        own = replace(self.runs.inputs, images=self.folder / "images", teacher=self.folder / "teacher.pt")
        return own if self.kind.outside == "input-changed" else self.runs.inputs

    def seen(self, path: Path) -> Path:
        """Where a file that may lie on the cluster's own disk is found from outside."""
        return self.cluster.outside(path)

    def attempt(self, restart: int) -> Path:
        """The folder of a start of the job."""
        return self.submission.job_folder("distill") / "attempts" / f"{self.job}-{restart}"

    @property
    def submission(self) -> Any:
        return of_root(self.seen(self.root))

    def prepare(self) -> None:
        """Everything that is there before the job is sent."""
        (self.folder / "marks").mkdir(parents=True)
        if self.inputs != self.runs.inputs:
            shutil.copytree(self.runs.inputs.images, self.inputs.images)
            shutil.copy2(self.runs.inputs.teacher, self.inputs.teacher)
        if self.kind.tmpfs:
            whole = self.fault.variant == "submission"  # the full disk holds the submission too, not only the run
            self.cluster.mount_tmpfs(*((self.root, "24M") if whole else (self.out, "1M")))
        self.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        self.python.chmod(0o755)
        values = {
            "partition": self.kind.partition, "nodes": len(self.nodes), "time_min": 60, "signal_delay_s": 60,
            "collective_timeout_s": COLLECTIVE_TIMEOUT_S,
            "python": str(self.python) if self.kind.outside == "interpreter" else sys.executable,
            "mem_gb": self.kind.memory_mb / 1024 if self.kind.memory_mb else None,
        }  # fmt: skip
        env = {"PYTHONPATH": str(INJECTOR), "BINGO_FAULT": json.dumps(self.fault.to_json()), **dict(self.kind.env)}
        if self.fault.variant == "EIO":
            env |= unreadable(self.folder, self.out / "checkpoints", self.folder / "marks" / "EIO", self.fault.rank)
        later = {"begin": "now+30"} if self.fault.variant.startswith("waiting") else {}
        write_site(self.folder / "site.toml", values, env, {"nodelist": ",".join(self.nodes), **later})

    def send(self, root: Path, seed: int = 0) -> Said:
        """`bingo submit distill` of the trial's run."""
        config = self.folder / f"config-{seed}.json"
        config.write_text(json.dumps(to_json(replace(distillation(self.inputs, self.out), seed=seed))))
        words = ["--cluster", self.folder / "site.toml", "--out", root, "--", "--config", config, "--out", self.out]
        return self.cluster.run(
            sys.executable, "-m", "bingo", "submit", "distill", *words, check=False, **self.exported
        )

    def newest_job(self) -> str:
        found: str = self.submission.sent()[-1].slurm_id
        return found

    def mend(self) -> Said:
        """What a person does after the job has stopped."""
        self.undo()
        words = self.repair or [sys.executable, "-m", "bingo", "repair", self.root]
        said = self.cluster.run(*words, check=False)
        self.job = self.newest_job()
        return said

    def marked(self) -> bool:
        return (self.folder / "marks" / "fault").exists()

    def go(self) -> None:
        """Let the rank go on that waits at its step."""
        (self.folder / "marks" / "go").touch()

    def keep(self, *paths: Path) -> None:
        self.kept |= {path: hash_file(path) for path in paths}

    def moment(self) -> float | None:
        """When the fault happened, in unix time."""
        if self.acted is not None:
            return self.acted
        return float((self.folder / "marks" / "fault").read_text()) if self.marked() else None

    def state(self) -> str:
        return AWAY if self.away else self.cluster.state(self.job)

    def victim(self) -> str:
        """The node of the fault's rank: ranks are dealt to nodes in order."""
        return self.nodes[self.fault.rank]

    def script(self) -> Script:
        return SCRIPTS[self.kind.outside](self) if self.kind.outside in SCRIPTS else iter(())

    def watch(self, script: Script, status_every_s: float) -> list[Seen]:
        """Carry out the script and look on until the job has ended."""
        seen: list[Seen] = []
        last, over, restarts = time.monotonic(), time.monotonic() + LIMIT_S, 0
        waits_for, alive = next(script, None), last
        asked: Future[Seen] | None = None
        with ThreadPoolExecutor(1) as asking:  # an answer may take long where Slurm is away
            while time.monotonic() < over:
                now, facts = time.time(), {} if self.away else self.cluster.show(self.job)
                state = AWAY if self.away else facts.get("JobState", "")
                restarts = int(facts.get("Restarts", restarts))
                seen.append(Seen(now, state, restarts))
                if state not in ENDS:
                    alive = time.monotonic()
                elif waits_for is None:
                    break
                elif time.monotonic() - alive > IN_VAIN_S:
                    self.problems.append("the job ended before the test could act")
                    break
                if waits_for is not None and waits_for():
                    waits_for = next(script, None)
                if asked is None and time.monotonic() - last > status_every_s:
                    asked = asking.submit(self.look)
                if asked is not None and asked.done():
                    seen.append(asked.result())
                    asked, last = None, time.monotonic()
                time.sleep(0.25)
            if asked is not None:
                seen.append(asked.result())
        time.sleep(2)  # accounting lags by a second
        facts, said = self.cluster.show(self.job), self.status(fresh=True)
        seen.append(Seen(time.time(), facts.get("JobState", ""), int(facts.get("Restarts", 0)), said))
        return seen

    def bingo(self, verb: str, fresh: bool = False) -> Said:
        """`bingo VERB ROOT --json`; fresh: not from what Slurm said to an earlier call."""
        extra = {**self.exported, **({"XDG_CACHE_HOME": str(self.folder / "fresh")} if fresh else {})}
        return self.cluster.run(sys.executable, "-m", "bingo", verb, self.root, "--json", check=False, **extra)

    def look(self) -> Seen:
        said = self.status()
        return Seen(time.time(), status=said)

    def status(self, fresh: bool = False) -> dict[str, Any]:
        """What `bingo status --json` says."""
        said = self.bingo("status", fresh)
        try:
            found: dict[str, Any] = json.loads(said.stdout)
        except json.JSONDecodeError:
            return {"error": f"exit {said.returncode}: {said.stdout}{said.stderr}"}
        return found


def write_site(path: Path, values: dict[str, Any], env: dict[str, str], sbatch: dict[str, str]) -> None:
    """A site file; JSON's strings and numbers are TOML's."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    for name, table in (("env", env), ("sbatch", sbatch)):
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines) + "\n")


def run_trial(
    cluster: Cluster, runs: Runs, folder: Path, kind: str, seed: int, nodes: Sequence[str], *,
    status_every_s: float = 3,
) -> dict[str, Any]:  # fmt: skip
    """Run one trial to its end, and judge it."""
    from tests.cluster.judge import judge, judge_refusal

    trial = Trial(cluster, draw(kind, seed, folder / "marks"), folder, nodes, runs)
    trial.prepare()
    began = time.monotonic()
    said = trial.send(trial.root)
    if said.returncode:
        verdict = judge_refusal(trial, said)
    else:
        trial.job = trial.newest_job()
        try:
            verdict = judge(trial, lambda script: trial.watch(script, status_every_s))
        finally:
            if trial.state() not in ENDS:
                cluster.run("scancel", trial.job, check=False)
    taken = {"seconds": round(time.monotonic() - began, 1), "slowness": round(slowness(), 1)}
    return {**asdict(trial.fault), **verdict, **taken}
