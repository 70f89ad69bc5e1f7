"""Sends a chain: what is done is left out, the rest is staged and sent, each job after what it needs."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import atomic_write, folder_lock, make_folder, write_json
from bingo.launch.cluster.site import Cluster
from bingo.launch.cluster.slurm import Row, ask, run
from bingo.launch.job.spec import JobSpec
from bingo.launch.layout import SUBMISSIONS, job_folder
from bingo.launch.submit import snapshot
from bingo.launch.submit.graph import open_tasks
from bingo.launch.submit.sbatch import check_partitions, sbatch, sbatch_words, scancel
from bingo.launch.submit.script import render
from bingo.launch.submit.submission import Sent, Submission, new_id, newest, stage

CODE = "code"
Tasks = Mapping[str, Sequence[int]]
"""Job name -> indices of some of its tasks."""


def submit(root: Path, jobs: Sequence[JobSpec], cluster: Cluster, facts: dict[str, Any]) -> Submission | None:
    """Stage a submission below `root` (absolute) and send its jobs; None if everything is done.

    facts: more for submission.json. Raises `UserError`, before anything is sent, if an earlier submission may run; if
    Slurm refuses a job, what was sent before it is cancelled.
    """
    with writing(root):
        refuse_while_alive(root)
        todo = open_tasks(jobs)
        if not todo:
            return None
        check_partitions(cluster, any(job.parallel for job in jobs if job.name in todo))

        def fill(staged: Path, final: Path) -> None:
            shutil.copyfile(cluster.path, staged / "site.toml")
            snapshot.take(staged / CODE)
            for job in jobs:
                script = script_of(job, cluster, job_folder(final, job.name), final / CODE)
                (job_folder(staged, job.name) / "script.sh").write_text(script)

        done = [job.name for job in jobs if job.name not in todo]
        submission = stage(root, {**facts, "done": done}, jobs, fill)
        send(submission, todo)
        return submission


def dry_run(root: Path, jobs: Sequence[JobSpec], cluster: Cluster) -> Iterator[str]:
    """The commands and scripts that `submit` would send now, in order; nothing is written and Slurm is not asked."""
    todo = open_tasks(jobs)
    final = root / SUBMISSIONS / new_id(root / SUBMISSIONS)
    for job in jobs:
        if job.name not in todo:
            yield f"# {job.name}: done before"
            continue
        folder = job_folder(final, job.name)
        after = [f"<{need}>" for need in job.needs if need in todo]
        yield f"# {job.name}: {' '.join(sbatch_words(folder / 'script.sh', after, array=_array(job, todo[job.name])))}"
        yield script_of(job, cluster, folder, final / CODE)


def script_of(job: JobSpec, cluster: Cluster, folder: Path, code: Path) -> str:
    """The batch script of a job whose folder and snapshot will lie there."""
    site = cluster.site(job.parallel)
    return render(site, job, folder, code=code, python=site.python or sys.executable)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Hold a root for one submission, repair or cancellation at a time; a refused first one leaves no folder."""
    folder = root / SUBMISSIONS
    make_folder(folder)
    try:
        with folder_lock(folder):
            try:
                yield
            except UserError:
                if [path.name for path in folder.iterdir()] == [".lock"]:
                    (folder / ".lock").unlink()
                    folder.rmdir()
                    with contextlib.suppress(OSError):  # the root holds more
                        root.rmdir()
                raise
    except OSError as error:
        raise UserError(f"cannot write {root / SUBMISSIONS}: {error.strerror}; choose another --out") from None


def refuse_while_alive(root: Path) -> None:
    """`UserError` if jobs of an earlier submission of this root may still run: two would write the same folders."""
    before = newest(root)
    if before is None:
        return
    living = alive(before)
    if living:
        named = ", ".join(dict.fromkeys(f"{line.job} ({line.slurm_id})" for line in living.values()))
        raise UserError(
            f"jobs of submission {before.id} may still run: {named}; see `bingo status {root}`, go on with "
            f"`bingo repair {root}`, end them with `bingo cancel {root}`, or choose another --out"
        )


def alive(submission: Submission, fresh: bool = False) -> dict[tuple[str, int], Sent]:
    """(Job, task) -> the hand-over by which it waits or runs now. fresh: asked after this call began.

    Raises `UserError` when Slurm does not say: then anything may run.
    """
    return {key: line for key, (line, _) in rows(submission, fresh).items()}


def rows(submission: Submission, fresh: bool = False) -> dict[tuple[str, int], tuple[Sent, Row]]:
    """(Job, task) -> its living hand-over and Slurm's row of it; see `alive`."""
    _adopt(submission)
    lines = submission.newest()
    if not lines:
        return {}
    markers = [submission.job_folder(name) / "cancelled" for name, _ in lines]
    changed = [line.time for line in lines.values()] + [path.stat().st_mtime for path in markers if path.exists()]
    said = ask(min(line.time for line in lines.values()), newer=time.time() if fresh else max(changed))
    if said.queue is None:
        raise UserError(said.problems[0])
    found = {}
    for (name, task), line in lines.items():
        row = said.queue.get(f"{line.slurm_id}_{task}" if submission.job(name).array else line.slurm_id)
        if row is not None and row.alive:
            found[name, task] = (line, row)
    return found


def _adopt(submission: Submission) -> None:
    """Record jobs that Slurm has and jobs.jsonl has not: a submit was killed between Slurm's yes and its record."""
    sent = submission.sent()
    known, repair = {line.slurm_id for line in sent}, max((line.repair for line in sent), default=0)
    scripts = {str(submission.job_folder(job.name) / "script.sh"): job for job in submission.jobs}
    if {job for job, _ in submission.newest()} >= {*(job.name for job in submission.jobs)} - {
        *submission.facts["done"]
    }:
        return
    found: dict[tuple[str, str], list[int]] = {}
    for row in run(["squeue", "-r", "-h", "-a", "-t", "all", "-u", str(os.getuid()), "-o", "%F|%K|%o"]).splitlines():
        slurm_id, task, script = row.split("|", 2)
        if script in scripts and slurm_id not in known:
            found.setdefault((scripts[script].name, slurm_id), []).append(int(task) if task.isdigit() else 0)
    for (name, slurm_id), tasks in sorted(found.items(), key=lambda item: int(item[0][1])):
        submission.record(name, slurm_id, sorted(tasks), repair)


def send(submission: Submission, todo: Tasks, *, running: Mapping[str, Sequence[str]] | None = None,
         ending: Mapping[str, Sequence[str]] | None = None, repair: int = 0) -> None:  # fmt: skip
    """Hand jobs over in order; each line of jobs.jsonl is on disk before the next job is sent.

    running: ids of jobs that go on, which others wait for. ending: ids of a job's cancelled hand-over, which must be
    gone before it starts again. On a refusal what this call sent is cancelled, the submission is marked, and it raises.
    """
    ids = {name: list(found) for name, found in (running or {}).items()}
    sent: list[str] = []
    for job in submission.jobs:
        if job.name not in todo:
            continue
        folder = submission.job_folder(job.name)
        (folder / "cancelled").unlink(missing_ok=True)
        after = [id_ for need in job.needs for id_ in ids.get(need, ())]
        gone = (ending or {}).get(job.name, ())
        words = sbatch_words(folder / "script.sh", after, gone, _array(job, todo[job.name]))
        try:
            slurm_id = sbatch(words, submission.folder / "site.toml")
        except UserError as error:
            _take_back(submission, job.name, sent, str(error))
            also = f"; the jobs sent before it ({', '.join(sent)}) are cancelled" if sent else ""
            raise UserError(f"{error}{also}") from None
        submission.record(job.name, slurm_id, todo[job.name], repair)
        ids.setdefault(job.name, []).append(slurm_id)
        sent.append(slurm_id)


def _array(job: JobSpec, tasks: Sequence[int]) -> str | None:
    """`1,4%2` where only some tasks of an array are sent; the script itself says which there are."""
    if not job.array or len(tasks) == len(job.tasks):
        return None
    return ",".join(map(str, tasks)) + (f"%{job.limit}" if job.limit else "")


def _take_back(submission: Submission, job: str, sent: list[str], why: str) -> None:
    write_json(submission.folder / "refused", {"time": time.time(), "job": job, "reason": why})
    for line in submission.sent():
        if line.slurm_id in sent:
            mark_cancelled(submission, line.job, f"{job} was refused")
    scancel(sent)


def mark_cancelled(submission: Submission, job: str, reason: str) -> None:
    """Tell a job's next helper that it shall not be started again, before Slurm is told to end it."""
    write_json(submission.job_folder(job) / "cancelled", {"time": time.time(), "reason": reason})


def replace_script(submission: Submission, job: JobSpec, cluster: Cluster, code: Path) -> None:
    """Render a job's script again, for another snapshot."""
    folder = submission.job_folder(job.name)
    with atomic_write(folder / "script.sh") as file:
        file.write(script_of(job, cluster, folder, code).encode())
