"""A submission as a folder: staged, renamed, read back, and its record of what was sent.

Everything that `status`, `repair` and `cancel` know about a submission is in this folder, so any machine will do.
"""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.errors import UserError, brief, file_error
from bingo.files import make_folder, read_object, sync_folder, write_json
from bingo.launch.cluster.site import FLAGS, Cluster, Site, read_site, with_flags
from bingo.launch.job.records import is_step, is_time, lines_of
from bingo.launch.job.spec import JobSpec
from bingo.launch.layout import SUBMISSIONS, job_folder

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
        """What was handed to Slurm, oldest first, as far as it is known; `lost` tells whether more may be missing."""
        return self._hand_overs()[0]

    def lost(self) -> str | None:
        """A sentence if the record of what was handed over is damaged: then Slurm may run jobs that are not in it."""
        damaged = self._hand_overs()[1]
        if not damaged:
            return None
        lines = f"{damaged} damaged line{'s' * (damaged > 1)}"
        return f"{self.folder / 'jobs.jsonl'} has {lines}: a job that was handed to Slurm may be missing here"

    def _hand_overs(self) -> tuple[list[Sent], int]:
        """Those that are known, and the number of damaged lines; starts of a lost one have left their folders."""
        path = self.folder / "jobs.jsonl"
        if not os.path.lexists(path):
            return [], 0
        try:
            found = [_sent(line, self) for line in lines_of(path)]
        except OSError as error:
            raise file_error(error, f"cannot read {path}: {error.strerror or error}; {SEND_AGAIN}") from None
        known = [line for line in found if line]
        damaged = len(found) - len(known)
        if damaged:
            known += [line for job in self.jobs for line in self._started(job, {line.slurm_id for line in known})]
            known.sort(key=lambda line: int(line.slurm_id))  # Slurm counts up
        return known, damaged

    def _started(self, job: JobSpec, known: set[str]) -> Iterator[Sent]:
        """Hand-overs of a job that its attempts' folders tell of and jobs.jsonl does not."""
        tasks: dict[str, set[int]] = {}
        for path in (self.job_folder(job.name) / "attempts").glob("*-*"):
            match = re.fullmatch(r"(\d{1,18})(?:_(\d{1,9}))?-\d+", path.name)
            if match and match[1] not in known and int(match[2] or 0) < len(job.tasks):
                tasks.setdefault(match[1], set()).add(int(match[2] or 0))
        for slurm_id, found in tasks.items():
            yield Sent(job.name, slurm_id, tuple(sorted(found)), self.facts["time"])

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


def _sent(text: bytes, submission: Submission) -> Sent | None:
    """A hand-over, or None where the line is none: torn by a kill, zeros after a power cut, of another."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        line = json.loads(text.decode())
        count = len(submission.job(line["job"]).tasks)
        tasks = tuple(line.get("tasks", range(count)))
        found = Sent(line["job"], str(line["slurm_id"]), tasks, line["time"], line["repair"])
        whole = all(type(task) is int and 0 <= task < count for task in tasks)
        if whole and re.fullmatch(r"\d{1,18}", found.slurm_id) and is_time(found.time) and is_step(found.repair):
            return found
    return None


def newest(root: Path) -> Submission | None:
    """The last submission below a root; None if there is none. `UserError` if it cannot be read."""
    found = submissions(root)
    return read(found[0]) if found else None


def submissions(root: Path) -> list[Path]:
    """Folders of all submissions below a root, newest first."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        # One that has lost its submission.json may still have jobs that run.
        found = [path for path in (root / SUBMISSIONS).iterdir() if path.name[0] != "." and _is_one(path)]
        return _newest_first(found)
    return []


def _is_one(folder: Path) -> bool:
    return os.path.lexists(folder / "submission.json") or (folder / "jobs").is_dir()


def _newest_first(found: list[Path]) -> list[Path]:
    return sorted(found, key=lambda path: [int(part) for part in path.name.split("-") if part.isdigit()], reverse=True)


def read(folder: Path) -> Submission:
    """The submission in a folder; `UserError` if it cannot be read."""
    path = folder / "submission.json"
    facts = read_object(path, {"time": int | float, "jobs": list, "done": list}, remedy=SEND_AGAIN)
    if not is_time(facts["time"]):
        raise UserError(f"{path}: 'time' is {brief(facts['time'])}, which is no time; {SEND_AGAIN}")
    jobs = tuple(JobSpec.from_json(job, f"{path}: jobs[{n}]") for n, job in enumerate(facts["jobs"]))
    if not jobs:
        raise UserError(f"{path} names no job; {SEND_AGAIN}")
    if not _are_overrides(facts.get("overrides", {})):
        raise UserError(
            f"{path}: 'overrides' is {brief(facts['overrides'])}, which does not belong there; {SEND_AGAIN}"
        )
    passed = facts.get("pass_env", [])
    if not (isinstance(passed, list) and all(isinstance(name, str) for name in passed)):
        raise UserError(f"{path}: 'pass_env' is {brief(passed)}, not a list of names; {SEND_AGAIN}")
    if not all(isinstance(name, str) for name in facts["done"]):
        raise UserError(f"{path}: 'done' is {brief(facts['done'])}, not a list of names; {SEND_AGAIN}")
    known = {job.name for job in jobs}
    for job in jobs:
        if lacks := sorted(set(job.needs) - known):
            raise UserError(f"{path}: the job {job.name} needs {lacks[0]!r}, which is none of its jobs; {SEND_AGAIN}")
    return Submission(folder, facts, jobs)


def _are_overrides(values: Any) -> bool:
    """Whether this maps keys of `FLAGS` to values of their types; older submissions have fewer of them."""
    if not isinstance(values, dict):
        return False
    kinds = {key: kind if (kind := type(getattr(Site, key, None))) in (int, float) else str for key in FLAGS}
    return all(value is None or type(value) is kinds.get(key) for key, value in values.items())


def cluster_of(submission: Submission) -> Cluster:
    """The site of a submission as it was sent, with what its flags replaced."""
    return with_flags(read_site(submission.folder / "site.toml"), submission.facts.get("overrides", {}))


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
