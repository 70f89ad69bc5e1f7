"""Begin and end of one start of a job: its batch script calls `python -m bingo.launch.attempt begin|end JOBDIR [RC]`.

The exit status of `end` is the decision, because only the script may requeue: 0 finished, 65 stop, 75 start again, 76
start again without the nodes in the attempt's file `exclude`.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import read_json, write_json
from bingo.launch.causes import Beat, Cause, find_cause
from bingo.launch.layout import MARKER, attempt_folder, slurm_id

FINISHED, STOP, AGAIN, AGAIN_ELSEWHERE = 0, 65, 75, 76
ASKED = ("left", "preempted", "requeued")
"""Ends that are nobody's failure. Slurm has requeued some of these by itself: to ask once more does no harm, and where
it cancels what it preempts it is needed."""
PATIENCE = 4
"""Attempts in a row without progress after which a job stops."""


def begin(job: Path) -> int:
    """Write down that an attempt begins."""
    write_json(
        attempt_folder(job) / "begin.json",
        {
            "time": round(time.time(), 3),
            "host": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
            "nodes": os.environ.get("SLURM_JOB_NODELIST"),
            "restart": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
            "slurm_id": slurm_id(),
        },
    )
    return 0


def end(job: Path, rc: int) -> int:
    """Find out why the attempt ended, decide, write both down, and return the decision."""
    folder = attempt_folder(job)
    cause = cause_of(folder, batch_lines(job / f"{slurm_id()}_batch.log"), rc)
    decision, why = decide(folder, cause, rc)
    sentence = f"{cause.sentence}{why}"
    print(f"bingo: {sentence}", flush=True)
    try:
        record = {"time": round(time.time(), 3), "rc": rc, "decision": decision, "cause": cause.to_json()}
        write_json(folder / "end.json", record)
    except (UserError, OSError) as error:
        print(f"bingo: cannot write down how the attempt ended: {error}", flush=True)
        _comment(sentence)
    return decision


def _comment(sentence: str) -> None:
    """Where there is no room for a file, the job's comment in Slurm's own records must do."""
    if scontrol := shutil.which("scontrol"):
        words = [scontrol, "update", f"JobId={os.environ['SLURM_JOB_ID']}", f"Comment={sentence[:500]}"]
        subprocess.run(words, check=False, timeout=20)


def decide(folder: Path, cause: Cause, rc: int) -> tuple[int, str]:
    """The decision about the job whose newest attempt is `folder`, and words that follow the cause's sentence."""
    if rc == 0:
        return FINISHED, ""
    if cause.kind == "user":
        return STOP, "; it is not tried again"
    if cause.kind == "cancelled":
        return STOP, ""
    if cause.kind in ASKED:
        return AGAIN, "; it starts again"
    if fruitless(folder, cause) >= PATIENCE:
        return STOP, f"; not tried again: {PATIENCE} attempts in a row made no progress"
    if (folder / "exclude").exists():
        return AGAIN_ELSEWHERE, "; it starts again without that node"
    return AGAIN, "; it starts again"


def fruitless(folder: Path, cause: Cause) -> int:
    """How many attempts, this one and those right before it, made no progress. Those that were asked to leave do not
    count; those that left no record (full disk, lost node) made none."""
    stem, number = folder.name.rsplit("-", 1)
    count = 0
    best = [progress(read_events(folder.with_name(f"{stem}-{n}"))) for n in range(int(number) + 1)]
    for n in range(int(number), -1, -1):
        before = set().union(*best[:n]) if n else set()
        if best[n] - before:
            return count
        if n == int(number) or not _left(folder.with_name(f"{stem}-{n}")):
            count += 1
    return count


def _left(folder: Path) -> bool:
    try:
        return read_json(folder / "end.json")["cause"]["kind"] in ASKED
    except (UserError, OSError, KeyError, TypeError):
        return False


def progress(events: Mapping[int, list[dict[str, Any]]]) -> set[tuple[str, int]]:
    """What an attempt brought to disk: stages it finished, checkpoints it wrote."""
    reached = set()
    for rank in events.values():
        stage = ""
        for e in rank:
            if e["event"] == "stage":
                stage = e["name"]
            elif e["event"] == "finished" and not e["skipped"]:
                reached.add((e["name"], -1))
            elif e["event"] == "checkpoint":
                reached.add((stage, e["step"]))
    return reached


def cause_of(folder: Path, lines: list[str], rc: int | None, state: str | None = None) -> Cause:
    """The cause of the end of the attempt in `folder`."""
    return find_cause(read_events(folder), read_beats(folder), lines, rc=rc, state=state)


def read_events(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Events by rank; a line that a full disk cut short is left out."""
    return {rank: list(_events(path)) for rank, path in _ranks(folder, "jsonl")}


def _events(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def read_beats(folder: Path) -> dict[int, Beat]:
    """Last signs of life by rank."""
    beats = {}
    for rank, path in _ranks(folder, "beat"):
        step, _, rest = path.read_text(errors="replace").strip().partition(" ")
        if step:
            when, _, stage = rest.partition(" ")
            beats[rank] = Beat(int(step), float(when), stage)
    return beats


def _ranks(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    found = [(re.fullmatch(r"rank-(\d+)", path.stem), path) for path in folder.glob(f"rank-*.{suffix}")]
    return sorted((int(match[1]), path) for match, path in found if match)


def batch_lines(log: Path, restart: int | None = None) -> list[str]:
    """The lines of one attempt (None: the newest) in a batch log, which all attempts of a job share."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return []
    starts = [i for i, line in enumerate(lines) if line.startswith(MARKER)] or [0]
    if restart is None:
        return lines[starts[-1] :]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        if lines[start : start + 1] and lines[start].startswith(f"{MARKER}{restart} "):
            return lines[start:stop]
    return []


def main(argv: list[str]) -> int:
    verb, job = argv[0], Path(argv[1])
    return begin(job) if verb == "begin" else end(job, int(argv[2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
