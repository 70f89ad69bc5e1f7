"""A submission as a folder: staged, renamed, read back, and its record of what was sent.

Everything that `status`, `repair` and `cancel` know about a submission is in this folder, so any machine will do.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.errors import UserError, brief, file_error
from bingo.files import make_folder, read_object, sync_folder, write_json
from bingo.launch.job.spec import JobSpec
from bingo.launch.layout import SUBMISSIONS, job_folder

SIZES = ("nodes", "ranks_per_node")
SEND_AGAIN = "restore it, or move the folder away and send the jobs again (what is done stays)"
Fill = Callable[[Path, Path], None]
"""Writes the rest of a submission: (folder as it is while staged, folder as it will be)."""


@dataclass(frozen=True)
class Sent:
    """A line of jobs.jsonl: `slurm_id` was given for these tasks of a job; repair: 0 for the submission itself."""

    job: str
    slurm_id: str
    tasks: tuple[int, ...]
    time: float
    repair: int = 0


@dataclass(frozen=True)
class Submission:
    """A staged submission: its folder, what submission.json says, and its jobs in order."""

    folder: Path
    facts: dict[str, Any]
    jobs: tuple[JobSpec, ...]

    @property
    def root(self) -> Path:
        return self.folder.parent.parent

    @property
    def id(self) -> str:
        return self.folder.name

    def job(self, name: str) -> JobSpec:
        return next(job for job in self.jobs if job.name == name)

    def job_folder(self, name: str) -> Path:
        return job_folder(self.folder, name)

    def sent(self) -> list[Sent]:
        """What was handed to Slurm, oldest first."""
        path = self.folder / "jobs.jsonl"
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise file_error(error, f"cannot read {path}: {error.strerror or error}; {SEND_AGAIN}") from None
        # A line without its end is one that a killed process could not finish.
        return [_sent(line, self, path) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    def newest(self) -> dict[tuple[str, int], Sent]:
        """(Job, task) -> the newest hand-over that covers it."""
        return {(line.job, task): line for line in self.sent() for task in line.tasks}

    def record(self, job: str, slurm_id: str, tasks: Sequence[int], repair: int) -> None:
        """Append to jobs.jsonl; on disk when this returns."""
        line = {"job": job, "slurm_id": slurm_id, "time": time.time(), "repair": repair}
        if self.job(job).array:
            line["tasks"] = list(tasks)
        with open(self.folder / "jobs.jsonl", "a+b") as file:
            torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _sent(text: bytes, submission: Submission, path: Path) -> Sent:
    with contextlib.suppress(ValueError, KeyError, TypeError, StopIteration, RecursionError):
        line = json.loads(text)
        tasks = line.get("tasks", range(len(submission.job(line["job"]).tasks)))
        return Sent(line["job"], str(line["slurm_id"]), tuple(map(int, tasks)), float(line["time"]), line["repair"])
    raise UserError(f"{path}: the line {brief(text.decode(errors='replace'))} is damaged; {SEND_AGAIN}")


def newest(root: Path) -> Submission | None:
    """The last submission below a root; None if there is none. `UserError` if it cannot be read."""
    found = submissions(root)
    return read(found[0]) if found else None


def submissions(root: Path) -> list[Path]:
    """Folders of all submissions below a root, newest first."""
    found = [path.parent for path in (root / SUBMISSIONS).glob("*/submission.json") if path.parent.name[0] != "."]
    return sorted(found, key=lambda path: [int(part) for part in path.name.split("-") if part.isdigit()], reverse=True)


def read(folder: Path) -> Submission:
    """The submission in a folder; `UserError` if it cannot be read."""
    path = folder / "submission.json"
    facts = read_object(path, {"time": int | float, "jobs": list, "done": list}, remedy=SEND_AGAIN)
    jobs = tuple(JobSpec.from_json(job, f"{path}: jobs[{n}]") for n, job in enumerate(facts["jobs"]))
    sizes = facts.get("overrides", {})
    if not (isinstance(sizes, dict) and all(type(sizes.get(name)) in (int, type(None)) for name in SIZES)):
        raise UserError(f"{path}: 'overrides' is {brief(sizes)}, which does not belong there; {SEND_AGAIN}")
    if not all(isinstance(name, str) for name in facts["done"]):
        raise UserError(f"{path}: 'done' is {brief(facts['done'])}, not a list of names; {SEND_AGAIN}")
    known = {job.name for job in jobs}
    for job in jobs:
        if lacks := sorted(set(job.needs) - known):
            raise UserError(f"{path}: the job {job.name} needs {lacks[0]!r}, which is none of its jobs; {SEND_AGAIN}")
    return Submission(folder, facts, jobs)


def stage(root: Path, facts: dict[str, Any], jobs: Sequence[JobSpec], fill: Fill) -> Submission:
    """Make the folder of a new submission; it appears whole or not at all.

    Two that start in the same instant get two folders: the one whose `mkdir` comes second takes the next name. Raises
    `UserError` when the folder cannot be written.
    """
    parent = root / SUBMISSIONS
    make_folder(parent)
    try:
        staged, final = _reserve(parent)
        try:
            facts = {"id": final.name, "time": time.time(), **facts, "jobs": [job.to_json() for job in jobs]}
            write_json(staged / "submission.json", facts)
            for job in jobs:
                job.write(job_folder(staged, job.name))
            fill(staged, final)
            staged.rename(final)
            sync_folder(parent)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"cannot write {parent}: {error.strerror}; choose another --out") from None
    return Submission(final, facts, tuple(jobs))


def new_id(parent: Path, taken: int = 0) -> str:
    """The time, and a number if that is taken."""
    return time.strftime("%Y%m%d-%H%M%S") + (f"-{taken}" if taken else "")


def _reserve(parent: Path) -> tuple[Path, Path]:
    """A new hidden folder, and the name that nobody else will give to his."""
    for taken in range(10_000):
        final = parent / new_id(parent, taken)
        staged = parent / f".{final.name}.staged"
        try:
            staged.mkdir()  # atomic on every file system
        except FileExistsError:
            continue
        if not final.exists():
            return staged, final
        staged.rmdir()
    raise UserError(f"{parent} holds too many submissions of this second")
