"""Begin and end of one start of a job, as `python -m bingo.launch.job.attempt begin|end JOBDIR [RC]`.

The exit status of `end` is the decision, because only the script may requeue: 0 finished, 65 stop, 75 start again, 76
start again without the nodes in the attempt's file `exclude`.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import read_object, write_json
from bingo.launch.job.causes import STARTS_AGAIN, Cause
from bingo.launch.job.records import cause_of, milestones, read_events
from bingo.launch.layout import attempt_folder, slurm_id

FINISHED, STOP, AGAIN, AGAIN_ELSEWHERE = 0, 65, 75, 76
ASKED = ("left", "preempted", "requeued")
"""Ends that are nobody's failure. Slurm has requeued some of these by itself: to ask once more does no harm, and where
it cancels what it preempts it is needed."""
PATIENCE = 4
"""Attempts in a row without progress after which a job stops."""


def begin(job: Path) -> int:
    """Write down that an attempt begins; it does so too where that cannot be written."""
    record = {
        "time": round(time.time(), 3),
        "host": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "nodes": os.environ.get("SLURM_JOB_NODELIST"),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        "slurm_id": slurm_id(),
    }
    return 0 if _write(attempt_folder(job) / "begin.json", record) else 1


def _write(path: Path, record: dict[str, Any]) -> bool:
    try:
        write_json(path, record)
    except UserError as error:
        print(f"bingo: {error}", flush=True)
        return False
    return True


def end(job: Path, rc: int) -> int:
    """Find out why the attempt ended, decide, write both down, and return the decision."""
    folder = attempt_folder(job)
    cause = cause_of(job, slurm_id(), int(os.environ.get("SLURM_RESTART_COUNT", 0)), rc)
    decision, then = decide(folder, cause, rc)
    sentence = "; ".join(filter(None, (cause.sentence, then)))
    print(f"bingo: {sentence}", flush=True)
    record = {"time": round(time.time(), 3), "rc": rc, "decision": decision, "then": then, "cause": cause.to_json()}
    if not _write(folder / "end.json", record):
        _comment(sentence)
    return decision


def _comment(sentence: str) -> None:
    """Where there is no room for a file, the job's comment in Slurm's own records must do."""
    scontrol, job = shutil.which("scontrol"), os.environ.get("SLURM_JOB_ID")
    if scontrol and job:
        subprocess.run([scontrol, "update", f"JobId={job}", f"Comment={sentence[:500]}"], check=False, timeout=20)


def decide(folder: Path, cause: Cause, rc: int) -> tuple[int, str]:
    """The decision about the job whose newest attempt is `folder`, and what that means in words."""
    if rc == 0:
        return FINISHED, ""
    if cause.kind == "user":
        return STOP, "it is not tried again"
    if cause.kind == "cancelled":
        return STOP, ""
    if cause.kind in ASKED:
        return AGAIN, STARTS_AGAIN
    if fruitless(folder) >= PATIENCE:
        return STOP, f"not tried again: {PATIENCE} attempts in a row made no progress"
    if (folder / "exclude").exists():
        return AGAIN_ELSEWHERE, f"without that node {STARTS_AGAIN}"
    return AGAIN, STARTS_AGAIN


def fruitless(folder: Path) -> int:
    """How many attempts, this one and those right before it, made no progress. Those that were asked to leave do not
    count; those that left no record (full disk, lost node) made none."""
    stem, number = folder.name.rsplit("-", 1)
    count = 0
    best = [milestones(read_events(folder.with_name(f"{stem}-{n}"))) for n in range(int(number) + 1)]
    for n in range(int(number), -1, -1):
        before = set().union(*best[:n]) if n else set()
        if best[n] - before:
            return count
        if n == int(number) or not _left(folder.with_name(f"{stem}-{n}")):
            count += 1
    return count


def _left(folder: Path) -> bool:
    try:
        return read_object(folder / "end.json", {"cause": dict})["cause"].get("kind") in ASKED
    except (UserError, TypeError):
        return False


def main(argv: list[str]) -> int:
    verb, job = argv[0], Path(argv[1])
    return begin(job) if verb == "begin" else end(job, int(argv[2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
