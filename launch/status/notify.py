"""Tells the user what became of a chain, by the command `notify` of the site file: failed, stuck or done, once each.

A job's helper runs this when a job has ended for good (`python -m bingo.launch.status.notify JOBDIR`): the end of the
last job tells `done`, the first job that is not tried again tells `failed`. Nobody runs who could see that a job never
starts, or that Slurm ended one together with its helper: that is what `bingo status --notify` tells, on a terminal or
from cron. Whatever the command does, no job's outcome depends on it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bingo.errors import UserError, escaped
from bingo.files import first_line, make_folder, write_json
from bingo.launch.cluster.site import read_site
from bingo.launch.cluster.slurm import Snapshot
from bingo.launch.layout import slurm_id
from bingo.launch.status.states import DONE, State, states
from bingo.launch.status.summary import Summary, name, summary_of
from bingo.launch.status.watch import Report
from bingo.launch.submit.submission import Submission, read

EVENTS = ("failed", "stuck", "done")
LIMIT_S = 30
"""Seconds that the command may take."""
TOLD = "told"
MOST = 2000
"""Letters of a sentence."""


def command_of(submission: Submission) -> str | None:
    """The command in the submission's copy of the site file; `UserError` if that cannot be read."""
    return read_site(submission.folder / "site.toml").jobs.notify


def noted(report: Report) -> Report:
    """Tell what a report says, if it is news; the same report, with a note where that failed."""
    submission, snapshot, found, summary = report
    if submission.folder.stat().st_uid != os.getuid():
        outcome: str | None = "this submission is another user's, whose commands are not run for you"
    else:
        outcome = tell(submission, found, summary)
    if outcome in (None, TOLD):
        return report
    return submission, replace(snapshot, problems=(*snapshot.problems, f"notify: {outcome}")), found, summary


def tell(submission: Submission, found: Sequence[State], summary: Summary, *, last: bool = False) -> str | None:
    """Run the command if this is one of the `EVENTS` and has not been told; what came of it, None if it is no news.

    last: nobody will look again, so that it is told even if nothing can be written down (a full disk).
    """
    command = command_of(submission) if summary.state in EVENTS else None
    if not command:
        return None
    number = max((line.repair for line in submission.sent()), default=0)
    marker = submission.folder / "notified" / f"{summary.state}-{number}.json"
    try:
        make_folder(marker.parent)
        marker.touch(exist_ok=False)  # of all that see it at the same time one tells it
    except FileExistsError:
        return None
    except (OSError, UserError) as error:
        if not last:
            return f"nothing is told, since nobody could know it next time: {error}"
    job = next((name(state) for state in found if state.state == summary.state != "done"), "")
    facts = {
        "state": summary.state,
        "root": str(submission.root),
        "submission": submission.id,
        "job": job,
        "sentence": escaped(summary.line[:MOST]),
        "next": list(summary.next),
        "time": round(time.time(), 3),
    }
    outcome = run(command, facts, submission.root)
    with contextlib.suppress(UserError):
        write_json(marker, {**facts, "outcome": outcome})
    return outcome


def run(command: str, facts: Mapping[str, Any], folder: Path, limit_s: float = LIMIT_S) -> str:
    """Run a command of the shell in `folder`, end it with all its children after `limit_s`; what came of it, in words.

    It gets the facts as JSON on standard input, and as BINGO_STATE, BINGO_ROOT, ...: no name is ever part of a command.
    """
    named = {f"BINGO_{key.upper()}": value for key, value in facts.items() if isinstance(value, str)}
    given = os.memfd_create("facts")
    try:
        os.write(given, json.dumps(facts).encode() + b"\n")
        os.lseek(given, 0, os.SEEK_SET)
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **named}, cwd=folder, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        return f"the command could not be started: {error}"
    finally:
        os.close(given)
    said: list[bytes] = [b""]
    reader = threading.Thread(target=_read, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"the command took more than {limit_s:.0f} s and was ended"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status == 0:
        return TOLD
    reader.join(1)  # a child that it left running may hold the pipe
    words = said[0].decode(errors="replace").strip().rpartition("\n")[2]
    how = f"it ended with status {status}" if status > 0 else f"it was killed by signal {-status}"
    return f"{how}: {escaped(first_line(words)) or 'it printed nothing'}"


def _read(pipe: Any, said: list[bytes]) -> None:
    """Keep the last that is said, however much that is."""
    with contextlib.suppress(OSError, ValueError):
        while part := os.read(pipe.fileno(), 1 << 16):
            said[0] = (said[0] + part)[-MOST:]


def at_the_end(job: Path, lost: str | None = None) -> str | None:
    """What a job that has just ended can tell from the files alone: whether it was the last, or what will not run.

    lost: Slurm's id of the job where it was to start again, and Slurm did not take it back.
    """
    submission = read(job.parent.parent)
    found = [
        replace(state, state="failed", text=f"{(state.cause or {}).get('sentence', '')}; Slurm did not take it back")
        if lost is not None and state.slurm_id == lost
        else state
        for state in states(submission, Snapshot(time.time()), time.time())
    ]
    broken = {state.job for state in found if state.state == "failed"}
    for spec in submission.jobs:  # each after those that it needs
        if broken.intersection(spec.needs):
            broken.add(spec.name)
    over = [
        replace(state, state="cancelled") if state.job in broken and state.state not in (*DONE, "failed") else state
        for state in found
    ]
    return tell(submission, over, summary_of(over, submission.root), last=True)


def main(argv: Sequence[str]) -> int:
    try:
        outcome = at_the_end(Path(argv[0]), slurm_id() if argv[1:] == ["lost"] else None)
    except (UserError, OSError) as error:
        outcome = str(error)
    if outcome:
        print(f"bingo: notify: {outcome}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
