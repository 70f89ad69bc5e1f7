"""Many trials of every kind of fault at once, on one test Slurm; a campaign that was stopped goes on where it was.

python -m tests.cluster.fault_campaign --trials 10 --parallel 3 --json OUT [--kinds sigkill,hang]
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

from tests.cluster.faults import KINDS, NODES
from tests.cluster.slurm import Cluster, Settings
from tests.cluster.trial import Inputs, distillation, run_trial
from tests.support.inputs import make_bags, make_digits, make_teacher
from tests.support.ranks import finish, start_ranks


def prepare(root: Path) -> tuple[Inputs, Path]:
    """Inputs of all trials, and the folder of an uninterrupted run of two ranks."""
    inputs = Inputs(root / "digits", root / "teacher" / "model.pt", root / "bags" / "bags")
    reference = root / "reference"
    if not (reference / "model.pt").exists():
        make_digits(inputs.digits)
        make_teacher(inputs.teacher)
        make_bags(root / "bags", inputs.digits, inputs.teacher)
        uninterrupted(inputs, reference)
    return inputs, reference


RUN = """
import json, pathlib, sys
from bingo.stages import Stage, run_stage
run_stage(Stage.from_json(json.loads(pathlib.Path(sys.argv[1]).read_text())))
"""


def uninterrupted(inputs: Inputs, out: Path) -> None:
    """The trials' distillation as two ranks without a cluster and without a fault."""
    order = out.with_suffix(".json")
    order.write_text(json.dumps(distillation(inputs, out).to_json()))
    results = finish(start_ranks([order], 2, ["-c", RUN]))
    assert [code for code, _ in results] == [0, 0], results


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.fault_campaign", description=__doc__)
    parser.add_argument("--trials", type=int, default=10, help="per kind")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--parallel", type=int, default=3, help="trials at a time, each on two nodes of its own")
    parser.add_argument("--json", type=Path, required=True, help="one line per trial; those in it are not run again")
    options = parser.parse_args(argv)
    known = [json.loads(line) for line in options.json.read_text().splitlines()] if options.json.exists() else []
    done = {(line["kind"], line["seed"]) for line in known}
    todo = [(kind, seed) for seed in range(options.trials) for kind in options.kinds.split(",")]
    todo = [trial for trial in todo if trial not in done]
    base = Path(tempfile.mkdtemp(prefix="bingo-campaign-"))
    print(f"{len(todo)} trials in {base}", flush=True)
    inputs, reference = prepare(base / "inputs")
    campaign(base, inputs, reference, todo, options.parallel, options.json)
    lines = [json.loads(line) for line in options.json.read_text().splitlines()]
    failed = [line for line in lines if not line["ok"]]
    print(f"{len(lines)} trials, {len(failed)} failed")
    if not failed:
        shutil.rmtree(base)
    return bool(failed)


def campaign(
    base: Path, inputs: Inputs, reference: Path, trials: Sequence[tuple[str, int]], parallel: int, report: Path
) -> None:
    """Run (kind, seed) trials, some at a time, and append a line for each to the report."""
    # Whether a preemption sends the user's signal is a setting of the whole cluster: those without it come last.
    for user_signal in (True, False):
        part = [trial for trial in trials if (trial[0] != "preempt-term") == user_signal]
        if part:
            settings = Settings(nodes=NODES * parallel, user_signal=user_signal)
            with Cluster(base / f"slurm-{user_signal}", settings) as cluster:
                run_all(cluster, inputs, reference, base / "trials", part, report)


def run_all(
    cluster: Cluster, inputs: Inputs, reference: Path, folder: Path, trials: Sequence[tuple[str, int]], report: Path
) -> None:
    """Run trials on as many pairs of nodes as there are."""
    pairs: Queue[list[str]] = Queue()
    for first in range(0, len(cluster.nodes), NODES):
        pairs.put(cluster.nodes[first : first + NODES])
    writing, stopped = threading.Lock(), threading.Event()

    def run(trial: tuple[str, int]) -> None:
        kind, seed = trial
        nodes = pairs.get()
        try:
            cluster.wait_idle(nodes, timeout=120)
            line = one(cluster, inputs, reference, folder / f"{kind}-{seed}", kind, seed, nodes)
        finally:
            pairs.put(nodes)
        if stopped.is_set():  # what broke now broke because the cluster is gone
            return
        with writing, open(report, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(summary(line), flush=True)

    with ThreadPoolExecutor(pairs.qsize()) as pool:
        futures = [pool.submit(run, trial) for trial in trials]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stopped.set()
            cluster.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def one(
    cluster: Cluster, inputs: Inputs, reference: Path, folder: Path, kind: str, seed: int, nodes: Sequence[str]
) -> dict[str, Any]:
    """A trial's line; a trial that breaks the harness itself is a failure too, and the others go on."""
    if folder.exists():  # of a campaign that was stopped in the middle of it
        folder.rename(folder.with_name(f"{folder.name}.{time.time():.0f}"))
    try:
        return run_trial(cluster, inputs, reference, folder, kind, seed, nodes, status_every_s=6)
    except Exception as error:
        return {"kind": kind, "seed": seed, "ok": False, "problems": [f"{type(error).__name__}: {error}"]}


def summary(line: dict[str, Any]) -> str:
    facts = " ".join(f"{name} {line[name]}" for name in ("attempts", "freed_after", "seconds") if name in line)
    return (
        f"{line['kind']:16s} {line['seed']:3d} {'ok  ' if line['ok'] else 'FAIL'} {facts} {'; '.join(line['problems'])}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
