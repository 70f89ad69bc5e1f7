"""Begin and end of one start of a job, as `python -m bingo.launch.job.attempt begin|end|lost JOBDIR [RC]`.

The exit status of `end` is the decision, because only the script may requeue: 0 finished, 65 stop, 75 start again, 76
start again without the nodes in the attempt's file `exclude`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import read_object, write_json
from bingo.inputs import is_gone
from bingo.launch.job.causes import STARTS_AGAIN, Cause
from bingo.launch.job.records import cause_of, milestones, read_events, read_records
from bingo.launch.job.sent import read_sent
from bingo.launch.job.spec import JobSpec
from bingo.launch.layout import attempt_folder, slurm_id

FINISHED, STOP, AGAIN, AGAIN_ELSEWHERE = 0, 65, 75, 76
ASKED = ("left", "preempted", "requeued")
"""Ends that are nobody's failure. Slurm has requeued some of these by itself: to ask once more does no harm, and where
it cancels what it preempts it is needed."""
NOTIFY_S = 90
"""Seconds after which the job ends whether the user could be told or not; the command itself gets less."""
PATIENCE = 4
"""Attempts in a row without progress after which a job stops. Those that were asked to leave do not count here."""
PATIENCE_S = 600.0
"""Seconds that a job waits for its storage before it starts again."""
STORM = 20
"""The same for attempts of any kind: a job of low priority may be preempted many times before its first step, but one
that never comes as far does not start for ever."""


def begin(job: Path) -> int:
    """Write down that an attempt begins; it does so too where that cannot be written. STOP if it must not go on."""
    record = {
        "time": round(time.time(), 3),
        "host": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "nodes": os.environ.get("SLURM_JOB_NODELIST"),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        "slurm_id": slurm_id(),
    }
    folder = attempt_folder(job)
    written = _write(folder / "begin.json", record)
    if cancelled(job):  # while no controller could be told
        return _not_begun(folder, Cause("cancelled", "it was cancelled before this start"))
    if why := _over(folder):
        decision = _not_begun(folder, Cause("limit", f"it did not go on: {why}; `bingo repair` sends it again"))
        _notify(job)
        return decision
    return 0 if written else 1


def _over(folder: Path) -> str:
    """Why a job must not start once more, although Slurm, which asks nobody, did start it; "" where it may."""
    stem, number = folder.name.rsplit("-", 1)
    if not int(number):
        return ""
    before = folder.with_name(f"{stem}-{int(number) - 1}")
    if limit := _spent(before):
        return limit
    if before.is_dir() and fruitless(before, asked=True) >= STORM:
        return f"{STORM} starts in a row made no progress"
    return ""


def _not_begun(folder: Path, cause: Cause) -> int:
    """Write down an end before any rank began."""
    print(f"bingo: {cause.sentence}", flush=True)
    end = {"time": round(time.time(), 3), "rc": STOP, "decision": STOP, "then": "", "cause": cause.to_json()}
    _write(folder / "end.json", end)
    return STOP


def cancelled(job: Path) -> bool:
    """Whether somebody said that the job shall not start again."""
    return (job / "cancelled").exists()


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
    if decision == AGAIN and cause.kind not in ("time limit", "preempted", "requeued"):  # which leave seconds only
        wait_for_storage([job, *outs_of(job)], needed_by(job, folder) if cause.kind == "storage" else ())
    sentence = "; ".join(filter(None, (cause.sentence, then)))
    print(f"bingo: {sentence}", flush=True)
    record = {"time": round(time.time(), 3), "rc": rc, "decision": decision, "then": then, "cause": cause.to_json()}
    if not _write(folder / "end.json", record):
        _comment(sentence)
    if decision in (FINISHED, STOP):
        _notify(job)
    return decision


def lost(job: Path) -> int:
    """Tell the user that Slurm did not take the job back, although it was to start again."""
    _notify(job, "lost")
    return 0


def _notify(job: Path, *words: str) -> None:
    """Tell the user if that was the end of the chain; in a process of its own, so that this job is over in any case."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if b"notify" in (job.parent.parent / "site.toml").read_bytes():
            command = [sys.executable, "-m", "bingo.launch.status.notify", str(job), *words]
            subprocess.run(command, check=False, timeout=NOTIFY_S)


def wait_for_storage(folders: Sequence[Path], needed: Sequence[Path] = (), patience_s: float = PATIENCE_S) -> None:
    """Wait until a mount that is read-only or away is back, but not once Slurm ends the script.

    needed: folders that must be there; the others may be made. A start before then is lost, and where Slurm cannot open
    the log there is no script to start the job again.
    """
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    over, said = time.monotonic() + patience_s, False
    try:
        while not told and time.monotonic() < over:
            away = next(chain(filter(_is_away, folders), filter(is_gone, needed)), None)
            if away is None:
                break
            if not said:
                print(f"bingo: {away} cannot be written now; the job starts again once it can", flush=True)
            said = True
            time.sleep(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_away(folder: Path) -> bool:
    """Whether a folder, or the first one above it that is there, cannot be written. A full disk can."""
    for place in (folder, *folder.parents):
        try:
            place.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return True
        return not os.access(place, os.W_OK)
    return False


def needed_by(job: Path, folder: Path) -> list[Path]:
    """What was there before: where a job, whose newest attempt is `folder`, has saved, and inputs it was sent with."""
    starts = folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*")
    events = (e for start in starts for e in read_events(start).get(0, ()) if e["event"] == "checkpoint")
    saved = [(e["time"], e["out"]) for e in events if isinstance(e.get("out"), str)]
    found = [Path(max(saved)[1])] if saved else []
    with contextlib.suppress(UserError):
        inputs = [inputs for out in outs_of(job) for inputs in read_sent(job)["inputs"].get(str(out), {}).values()]
        found += [Path(one["path"]) for one in inputs if isinstance(one.get("path"), str)]
    return found


def outs_of(job: Path) -> list[Path]:
    """Where the running task of a job writes; nothing where that cannot be read."""
    with contextlib.suppress(UserError):
        return [stage.out for stage in JobSpec.read(job).task(int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)))]
    return []


def _comment(sentence: str) -> None:
    """Where there is no room for a file, the job's comment in Slurm's own records must do."""
    scontrol, job = shutil.which("scontrol"), slurm_id()
    if scontrol and job != "local":
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # the controller is away, too
            subprocess.run([scontrol, "update", f"JobId={job}", f"Comment={sentence[:500]}"], check=False, timeout=20)


def decide(folder: Path, cause: Cause, rc: int) -> tuple[int, str]:
    """The decision about the job whose newest attempt is `folder`, and what that means in words."""
    if rc == 0:
        return FINISHED, ""
    if cause.kind == "user":
        return STOP, "it is not tried again"
    if cause.kind == "cancelled":
        return STOP, ""
    if cancelled(folder.parent.parent):
        return STOP, "it was cancelled, and does not start again"
    if limit := _spent(folder):
        return STOP, f"not tried again: {limit}; `bingo repair` sends it again"
    asked = cause.kind in (*ASKED, "controller")
    if not asked and fruitless(folder) >= PATIENCE:
        return STOP, f"not tried again: {PATIENCE} attempts in a row made no progress"
    if asked and fruitless(folder, asked=True) >= STORM:
        return STOP, f"not tried again: {STORM} attempts in a row, asked to leave or not, made no progress"
    if not asked and (folder / "exclude").exists():
        return AGAIN_ELSEWHERE, f"without that node {STARTS_AGAIN}"
    return AGAIN, STARTS_AGAIN


def _spent(folder: Path) -> str:
    """Which limit of the site file the job has reached with this attempt; "" for none."""
    try:
        spec = JobSpec.read(folder.parent.parent)
    except UserError:  # on a disk that is away, or of another version
        return ""
    stem, number = folder.name.rsplit("-", 1)
    starts = int(number) + 1
    if spec.max_starts and starts >= spec.max_starts:
        return f"start {starts} was the last of max_starts = {spec.max_starts}"
    if spec.max_hours:
        hours = sum(map(_seconds, (folder.with_name(f"{stem}-{n}") for n in range(starts)))) / 3600
        if hours >= spec.max_hours:
            return f"its starts have taken {hours:.1f} h together, of max_hours = {spec.max_hours:g}"
    return ""


def _seconds(folder: Path) -> float:
    """How long an attempt lasted, or was heard of; of one without an end and a beat nothing is known."""
    try:
        begun = float(read_object(folder / "begin.json", {"time": (int, float)})["time"])
    except UserError:
        return 0.0
    with contextlib.suppress(UserError):
        return float(max(0.0, read_object(folder / "end.json", {"time": (int, float)})["time"] - begun))
    if folder == attempt_folder(folder.parent.parent):
        return max(0.0, time.time() - begun)
    return max([0.0, *(beat.time - begun for beat in read_records(folder).beats.values())])


def fruitless(folder: Path, asked: bool = False) -> int:
    """How many attempts, this one and those right before it, made no progress. Those that were asked to leave count
    only if `asked`, those whose records are damaged never; those that left no record (full disk, lost node) made none.
    """
    stem, number = folder.name.rsplit("-", 1)
    count = 0
    records = [read_records(folder.with_name(f"{stem}-{n}")) for n in range(int(number) + 1)]
    best = [milestones(record.events) for record in records]
    for n in range(int(number), -1, -1):
        before = set().union(*best[:n]) if n else set()
        if best[n] - before:
            return count
        known = not records[n].lost and (asked or n == int(number) or not _left(folder.with_name(f"{stem}-{n}")))
        count += known
    return count


def _left(folder: Path) -> bool:
    """Whether an attempt ended because it was asked to, or may have: its record is there and damaged."""
    if not (folder / "end.json").exists():
        return False
    try:
        return read_object(folder / "end.json", {"cause": dict})["cause"].get("kind") in ASKED
    except (UserError, TypeError):
        return True


def main(argv: list[str]) -> int:
    verb, job = argv[0], Path(argv[1])
    if verb == "lost":
        return lost(job)
    return begin(job) if verb == "begin" else end(job, int(argv[2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
