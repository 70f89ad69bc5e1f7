"""Many trials of every kind of fault at once, on one test Slurm; a campaign that was stopped goes on where it was.

python -m tests.cluster.fault_campaign --trials 10 --parallel 3 --json OUT [--kinds sigkill,hang]
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

from tests.cluster.faults import KINDS
from tests.cluster.runs import Runs
from tests.cluster.slurm import Cluster, Settings
from tests.cluster.trial import run_trial


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.fault_campaign", description=__doc__)
    parser.add_argument("--trials", type=int, default=10, help="per kind")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first trial; the others follow")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--parallel", type=int, default=3, help="trials at a time, each on nodes of its own")
    parser.add_argument("--json", type=Path, required=True, help="one line per trial; those in it are not run again")
    options = parser.parse_args(argv)
    known = [json.loads(line) for line in options.json.read_text().splitlines()] if options.json.exists() else []
    done = {(line["kind"], line["seed"]) for line in known}
    todo = [
        (kind, seed)
        for seed in range(options.first, options.first + options.trials)
        for kind in options.kinds.split(",")
    ]
    todo = [trial for trial in todo if trial not in done]
    base = Path(tempfile.mkdtemp(prefix="bingo-campaign-"))
    print(f"{len(todo)} trials in {base}", flush=True)
    campaign(base, todo, options.parallel, options.json)
    lines = [json.loads(line) for line in options.json.read_text().splitlines()]
    failed = [line for line in lines if not line["ok"]]
    print(f"{len(lines)} trials, {len(failed)} failed")
    if not failed:
        shutil.rmtree(base)
    return bool(failed)


Slot = tuple[Cluster, list[str]]
"""Nodes for one trial at a time."""


def campaign(base: Path, trials: Sequence[tuple[str, int]], parallel: int, report: Path) -> None:
    """Run (kind, seed) trials, some at a time, and append a line for each to the report."""
    runs = Runs(base / "inputs")
    for (nodes, user_signal, alone), part in grouped(trials).items():
        for ranks in {KINDS[kind].nodes for kind, _ in part}:
            runs.reference(ranks)
        count, at_once = max(1, parallel * 2 // nodes), (1 if alone else max(1, parallel * 2 // nodes))
        folders = [base / f"slurm-{nodes}-{user_signal}-{alone}-{n}" for n in range(count // at_once)]
        settings = Settings(nodes=nodes * at_once, user_signal=user_signal)
        with contextlib.ExitStack() as stack:
            clusters = [stack.enter_context(Cluster(folder, settings)) for folder in folders]
            slots = [(c, c.nodes[at : at + nodes]) for c in clusters for at in range(0, len(c.nodes), nodes)]
            run_all(slots, runs, base / "trials", part, report)


def grouped(trials: Sequence[tuple[str, int]]) -> dict[tuple[int, bool, bool], list[tuple[str, int]]]:
    """Trials by the cluster that they need: nodes of one, whether a preemption sends the user's signal (a setting of
    the whole cluster), whether it is the trial's alone."""
    found: dict[tuple[int, bool, bool], list[tuple[str, int]]] = {}
    for name, seed in trials:
        kind = KINDS[name]
        found.setdefault((kind.nodes, name != "preempt-term", kind.alone), []).append((name, seed))
    return found


def run_all(slots: Sequence[Slot], runs: Runs, folder: Path, trials: Sequence[tuple[str, int]], report: Path) -> None:
    """Run as many trials at a time as there are slots."""
    free: Queue[Slot] = Queue()
    for slot in slots:
        free.put(slot)
    writing, stopped = threading.Lock(), threading.Event()

    def run(trial: tuple[str, int]) -> None:
        kind, seed = trial
        cluster, nodes = slot = free.get()
        try:
            cluster.wait_idle(nodes, timeout=120)
            line = one(cluster, runs, folder / f"{kind}-{seed}", kind, seed, nodes)
        finally:
            free.put(slot)
        if stopped.is_set():  # what broke now broke because the cluster is gone
            return
        with writing, open(report, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(summary(line), flush=True)

    with ThreadPoolExecutor(len(slots)) as pool:
        futures = [pool.submit(run, trial) for trial in trials]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stopped.set()
            for cluster, _ in slots:
                cluster.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def one(cluster: Cluster, runs: Runs, folder: Path, kind: str, seed: int, nodes: Sequence[str]) -> dict[str, Any]:
    """A trial's line; a trial that breaks the harness itself is a failure too, and the others go on."""
    if folder.exists():  # of a campaign that was stopped in the middle of it
        folder.rename(folder.with_name(f"{folder.name}.{time.time():.0f}"))
    try:
        return run_trial(cluster, runs, folder, kind, seed, nodes, status_every_s=6)
    except Exception as error:
        return {"kind": kind, "seed": seed, "ok": False, "problems": ["".join(traceback.format_exception(error))]}


def summary(line: dict[str, Any]) -> str:
    facts = " ".join(
        f"{name} {line[name]}" for name in ("variant", "end", "attempts", "freed_after", "seconds") if name in line
    )
    return (
        f"{line['kind']:18s} {line['seed']:3d} {'ok  ' if line['ok'] else 'FAIL'} {facts} {'; '.join(line['problems'])}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
