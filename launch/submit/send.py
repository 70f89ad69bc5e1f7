"""Sends a chain: what is done is left out, the rest is staged and sent, each job after what it needs."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bingo.errors import TransientError, UserError
from bingo.files import LOCK, atomic_write, folder_lock, make_folder, read_json, refuse_others_file, write_json
from bingo.identity import inputs_read_once
from bingo.launch.cluster.environment import check_passed, in_scripts, secrets, what_is_dropped
from bingo.launch.cluster.site import Cluster
from bingo.launch.cluster.slurm import PAUSES_S, Row, Snapshot, ask, run
from bingo.launch.job.sent import write_sent
from bingo.launch.job.spec import JobSpec
from bingo.launch.layout import SUBMISSIONS, job_folder
from bingo.launch.submit import snapshot
from bingo.launch.submit.claims import claimed
from bingo.launch.submit.folders import everything, find_other_work, outs, replaced, stages_of
from bingo.launch.submit.graph import open_tasks, turns
from bingo.launch.submit.sbatch import LostAnswer, check_partitions, sbatch, sbatch_words, scancel
from bingo.launch.submit.script import check_folder, render
from bingo.launch.submit.submission import Sent, Submission, cluster_of, new_id, newest, stage
from bingo.paths import quoted
from bingo.recipes import SUMMARY
from bingo.streams import tell

CODE = "code"
Tasks = Mapping[str, Sequence[int]]
"""Job name -> indices of some of its tasks."""


@inputs_read_once()
def submit(
    root: Path,
    jobs: Sequence[JobSpec],
    cluster: Cluster,
    facts: dict[str, Any],
    files: Mapping[str, Any] | None = None,
    *,
    replace: bool = False,
    say: Callable[[str], None] = print,
) -> Submission | None:
    """Stage a submission below `root` (absolute) and send its jobs; None if everything is done.

    facts: more for submission.json. files: name below `root` -> JSON that the jobs read there. Raises `UserError`,
    before anything is sent, if an earlier submission may run, if a submission of another root has one of the folders,
    and if a folder holds other work, unless that is to be replaced: then it is moved aside, and `say` gets a line for
    each. If Slurm refuses a job, what was sent before it is cancelled, and what was moved is moved back.
    """
    _check_folders(root, jobs)
    needed = sorted({name for job in jobs for name in cluster.site(job.parallel).pass_env})
    check_shell(needed)
    _tell_secrets(cluster)
    with writing(root):
        refuse_while_alive(root)
        todo = open_tasks(jobs)
        if not todo:
            return None
        stale = find_other_work(stages_of(jobs, everything(jobs)), replace=replace)
        check_partitions(cluster, any(job.parallel for job in jobs if job.name in todo))

        def fill(staged: Path, final: Path) -> None:
            _write_like(cluster.path, staged / "site.toml", cluster.path.read_bytes())
            snapshot.take(staged / CODE)
            for job in jobs:
                script = script_of(job, cluster, job_folder(final, job.name), final / CODE)
                _write_like(cluster.path, job_folder(staged, job.name) / "script.sh", script.encode())
                write_sent(job_folder(staged, job.name), stages_of([job], todo), outs(jobs, todo))

        done = [job.name for job in jobs if job.name not in todo]
        with claimed(root, stages_of(jobs, todo), alive), replaced(stale, say), _written(root, files or {}):
            submission = stage(root, {**facts, "done": done, "pass_env": needed}, jobs, fill)
            send(submission, todo)
        return submission


def dry_run(root: Path, jobs: Sequence[JobSpec], cluster: Cluster, *, replace: bool = False) -> Iterator[str]:
    """The commands and scripts that `submit` would send now, in order; nothing is written and Slurm is not asked."""
    _check_folders(root, jobs)
    _tell_dropped()
    _tell_secrets(cluster)
    todo = open_tasks(jobs)
    for held in find_other_work(stages_of(jobs, everything(jobs)), replace=replace):
        yield f"# {held.out}: what is there is moved aside"
    before = turns(jobs, todo)
    final = root / SUBMISSIONS / new_id(root / SUBMISSIONS)
    for job in jobs:
        if job.name not in todo:
            yield f"# {job.name}: done before"
            continue
        folder = job_folder(final, job.name)
        after = [f"<{need}>" for need in job.needs if need in todo]
        gone = [f"<{name}>" for name in before.get(job.name, ())]
        words = sbatch_words(folder / "script.sh", after, gone, _array(job, todo[job.name]))
        yield f"# {job.name}: {shlex.join(words)}"
        yield script_of(job, cluster, folder, final / CODE)


def _check_folders(root: Path, jobs: Sequence[JobSpec]) -> None:
    """`UserError` before anything is written for folders that Slurm cannot take, or that hold each other."""
    own = (root / SUBMISSIONS).resolve()
    for job in jobs:
        check_folder(job_folder(root / SUBMISSIONS, job.name))
    for out in outs(jobs, everything(jobs)):
        place = out.resolve()
        if own.is_relative_to(place) or place.is_relative_to(own):
            raise UserError(
                f"{out}: no stage can have a folder that holds {own}, or lies in it, where the files of the jobs are; "
                "choose another --out for one of the two"
            )


def check_shell(pass_env: Sequence[str]) -> None:
    """`UserError` if this shell lacks a variable that the jobs need; what of it they do not get is said."""
    check_passed(pass_env)
    _tell_dropped()


def _tell_dropped() -> None:
    if dropped := what_is_dropped():
        tell(dropped)


def _tell_secrets(cluster: Cluster) -> None:
    if found := secrets({**cluster.jobs.env, **cluster.cpu.env}):
        tell(f"{cluster.path}: {in_scripts(found)}")


def script_of(job: JobSpec, cluster: Cluster, folder: Path, code: Path) -> str:
    """The batch script of a job whose folder and snapshot will lie there."""
    site = cluster.site(job.parallel)
    return render(site, job, folder, code=code, python=site.python or sys.executable)


@contextmanager
def _written(root: Path, files: Mapping[str, Any]) -> Iterator[None]:
    """Write JSON files below `root`; those that were there are put back if what is inside raises a `UserError`."""
    before: dict[Path, Any] = {}
    for name in files:
        refuse_others_file(root / name, SUMMARY)
        before[root / name] = read_json(root / name) if (root / name).exists() else None
    for name, value in files.items():
        write_json(root / name, value)
    try:
        yield
    except UserError:
        for path, value in before.items():
            if value is None:
                path.unlink()
            else:
                write_json(path, value)
        raise


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Hold a root for one submission, repair or cancellation at a time; a refused first one leaves no folder."""
    folder = root / SUBMISSIONS
    fresh = [path for path in (folder, root) if not path.exists()]
    make_folder(folder)
    try:
        with folder_lock(folder):
            try:
                yield
            except UserError:
                if fresh and [path.name for path in folder.iterdir()] == [LOCK]:
                    (folder / LOCK).unlink()
                    for path in fresh:
                        with contextlib.suppress(OSError):  # it holds more
                            path.rmdir()
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
        typed = quoted(root)
        raise UserError(
            f"jobs of submission {before.id} may still run: {named}; see `bingo status {typed}`, go on with "
            f"`bingo repair {typed}`, end them with `bingo cancel {typed}`, or choose another --out"
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
    newer, owner = time.time() if fresh else max(changed), submission.folder.stat().st_uid
    said = _ask(min(line.time for line in lines.values()), newer, owner)
    assert said.queue is not None
    found = {}
    for (name, task), line in lines.items():
        row = said.queue.get(f"{line.slurm_id}_{task}" if submission.job(name).array else line.slurm_id)
        if row is not None and row.alive:
            found[name, task] = (line, row)
    return found


def _ask(since: float, newer: float, owner: int) -> Snapshot:
    """What squeue says; it is asked for about a minute where it does not answer."""
    for tries in range(len(PAUSES_S), -1, -1):  # `ask` itself lets some seconds pass between two questions
        said = ask(since, newer, owner)
        if said.queue is not None:
            return said
        if said.problems[0].startswith("no Slurm"):
            raise UserError(said.problems[0])
        newer = time.time() if tries else newer
    raise TransientError(said.problems[0])


def _adopt(submission: Submission) -> None:
    """Record jobs that Slurm has and jobs.jsonl has not: a submit was killed between Slurm's yes and its record, or the
    record is damaged."""
    sent = submission.sent()
    repair = max((line.repair for line in sent), default=0)
    to_send = {job.name for job in submission.jobs} - {*submission.facts["done"]}
    if {job for job, _ in submission.newest()} >= to_send and submission.lost() is None:
        return
    for (name, slurm_id), tasks in _unrecorded(submission):
        submission.record(name, slurm_id, tasks, repair)


def _unrecorded(submission: Submission) -> list[tuple[tuple[str, str], list[int]]]:
    """((Job, Slurm's id), its tasks) of what Slurm has and jobs.jsonl has not, oldest first."""
    known = {line.slurm_id for line in submission.sent()}
    scripts = {str(submission.job_folder(job.name) / "script.sh"): job for job in submission.jobs}
    found: dict[tuple[str, str], list[int]] = {}
    words = ["squeue", "-r", "-h", "-a", "-t", "all", "-u", str(os.getuid()), "-o", "%F|%K|%o"]
    for row in run(words, pauses=PAUSES_S).splitlines():
        slurm_id, task, script = [*row.split("|", 2), "", ""][:3]
        if script in scripts and slurm_id not in known:
            found.setdefault((scripts[script].name, slurm_id), []).append(int(task) if task.isdigit() else 0)
    return sorted(((key, sorted(tasks)) for key, tasks in found.items()), key=lambda item: int(item[0][1]))


def send(submission: Submission, todo: Tasks, *, running: Mapping[str, Sequence[str]] | None = None,
         ending: Mapping[str, Sequence[str]] | None = None, repair: int = 0) -> None:  # fmt: skip
    """Hand jobs over in order; each line of jobs.jsonl is on disk before the next job is sent.

    running: ids of jobs that go on, which others wait for. ending: ids of a job's cancelled hand-over, which must be
    gone before it starts again. On a refusal what this call sent is cancelled, the submission is marked, and it raises.
    """
    ids = {name: list(found) for name, found in (running or {}).items()}
    before = turns(submission.jobs, todo, ids)
    sent: list[str] = []
    for job in submission.jobs:
        if job.name not in todo:
            continue
        folder = submission.job_folder(job.name)
        (folder / "cancelled").unlink(missing_ok=True)
        after = [id_ for need in job.needs for id_ in ids.get(need, ())]
        gone = [*(ending or {}).get(job.name, ()), *(id_ for name in before.get(job.name, ()) for id_ in ids[name])]
        words = sbatch_words(folder / "script.sh", after, gone, _array(job, todo[job.name]))
        try:
            slurm_id = _hand_over(submission, job, words)
        except UserError as error:
            failed = _take_back(submission, job.name, sent, str(error))
            also = f"; the jobs sent before it ({', '.join(sent)}) {failed or 'are cancelled'}" if sent else ""
            raise UserError(f"{error}{also}") from None
        submission.record(job.name, slurm_id, todo[job.name], repair)
        ids.setdefault(job.name, []).append(slurm_id)
        sent.append(slurm_id)


def _hand_over(submission: Submission, job: JobSpec, words: list[str]) -> str:
    """Send one job, once; returns Slurm's id. An answer that was lost is looked for in the queue."""
    try:
        return sbatch(words, submission.folder / "site.toml", _flagged(submission, job))
    except LostAnswer as lost:
        why = "squeue does not answer either"
        with contextlib.suppress(TransientError):
            for pause in (0.0, *PAUSES_S):  # a busy controller shows it late
                time.sleep(pause)
                if ids := [slurm_id for (name, slurm_id), _ in _unrecorded(submission) if name == job.name]:
                    return ids[-1]
            why = "squeue shows no such job"
        mark_cancelled(submission, job.name, "Slurm has not said whether it took it")  # should it come up after all
        again = f"`bingo repair {quoted(submission.root)}`"
        raise UserError(f"{lost}; {why}; once Slurm answers, {again} goes on") from None


def _array(job: JobSpec, tasks: Sequence[int]) -> str | None:
    """`1,4%2` where only some tasks of an array are sent; the script itself says which there are."""
    if not job.array or len(tasks) == len(job.tasks):
        return None
    return ",".join(map(str, tasks)) + (f"%{job.limit}" if job.limit else "")


def _flagged(submission: Submission, job: JobSpec) -> frozenset[str]:
    """Keys of the site file that flags replaced for this job."""
    given = any(value is not None for value in submission.facts.get("overrides", {}).values())
    return cluster_of(submission).flagged(job.parallel) if given else frozenset()


def _take_back(submission: Submission, job: str, sent: list[str], why: str) -> str:
    """Cancel what was sent before a refusal; returns what to say where that is not possible now."""
    write_json(submission.folder / "refused", {"time": time.time(), "job": job, "reason": why})
    for line in submission.sent():
        if line.slurm_id in sent:
            mark_cancelled(submission, line.job, f"{job} was refused")
    try:
        scancel(sent)
    except UserError as error:
        return f"could not be cancelled ({error}); end them with `bingo cancel {quoted(submission.root)}`"
    return ""


def mark_cancelled(submission: Submission, job: str, reason: str) -> None:
    """Tell a job's next helper that it shall not be started again, before Slurm is told to end it."""
    write_json(submission.job_folder(job) / "cancelled", {"time": time.time(), "reason": reason})


def replace_script(submission: Submission, job: JobSpec, cluster: Cluster, code: Path) -> None:
    """Render a job's script again, for another snapshot."""
    folder = submission.job_folder(job.name)
    _write_like(cluster.path, folder / "script.sh", script_of(job, cluster, folder, code).encode())


def _write_like(site_file: Path, path: Path, content: bytes) -> None:
    """Write what holds values of a site file: nobody may read it who may not read that."""
    site = site_file.stat()
    with atomic_write(path) as file:
        own = os.fstat(file.fileno())
        others = 0o666 if own.st_gid == site.st_gid else 0o606  # another group's right is not this one's
        os.fchmod(file.fileno(), own.st_mode & site.st_mode & others | 0o600)
        file.write(content)
