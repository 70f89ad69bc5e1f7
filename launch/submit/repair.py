"""Goes on with a submission (sends again what failed, was cancelled or never sent), or ends it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bingo.errors import TransientError, UserError, did_you_mean
from bingo.files import sync_folder
from bingo.identity import inputs_read_once
from bingo.launch.cluster.slurm import RUNNING, Row
from bingo.launch.job.sent import write_sent
from bingo.launch.layout import SUBMISSIONS
from bingo.launch.submit import snapshot
from bingo.launch.submit.claims import claimed
from bingo.launch.submit.folders import find_other_work, outs, stages_of
from bingo.launch.submit.graph import open_tasks
from bingo.launch.submit.sbatch import scancel
from bingo.launch.submit.send import (
    CODE,
    Tasks,
    alive,
    check_shell,
    mark_cancelled,
    replace_script,
    rows,
    send,
    writing,
)
from bingo.launch.submit.submission import Sent, Submission, cluster_of, newest
from bingo.paths import quoted

Living = Mapping[tuple[str, int], tuple[Sent, Row]]


@inputs_read_once()
def repair(root: Path, *, new_code: bool = False) -> list[str]:
    """Send again what is neither done nor alive, with what depends on it; returns one line per job.

    Jobs that run stay, and what is sent waits for them. new_code: what is sent runs the package as it is now, and goes
    on with what another version of bingo began. `UserError`, before anything is sent, if a folder holds other work, or
    if this shell lacks a variable of the site's pass_env: no file holds their values.
    """
    submission = of_root(root)
    with writing(root):
        living = rows(submission, fresh=True)
        # What ranks of the first snapshot did is done, whichever version looks at it now.
        unfinished = open_tasks(submission.jobs, any_version=True)
        todo = _to_send(submission, unfinished, living)
        if todo:
            check_shell(submission.facts.get("pass_env", ()))
        stages = stages_of(submission.jobs, todo)
        find_other_work(stages, made=outs(submission.jobs, unfinished), versions="begun" if new_code else "any")
        stays = {key: found for key, found in living.items() if key[1] not in todo.get(key[0], ())}
        replaced = {key: found for key, found in living.items() if key not in stays}
        with claimed(root, stages, alive):
            scancel(sorted({_slurm_id(submission, *key, line) for key, (line, _) in replaced.items()}))
            if todo and new_code:
                _take_code(submission, todo)
            for name in todo:
                folder, own = submission.job_folder(name), stages_of([submission.job(name)], todo)
                write_sent(folder, own, outs(submission.jobs, unfinished), any_version=new_code)
            (submission.folder / "refused").unlink(missing_ok=True)
            number = 1 + max((line.repair for line in submission.sent()), default=0)
            running, ending = _ids(submission, stays), _ids(submission, replaced)
            send(submission, todo, running=running, ending=ending, repair=number)
        return [_line(submission, job.name, todo, running) for job in submission.jobs]


def _to_send(submission: Submission, unfinished: Tasks, living: Living) -> dict[str, list[int]]:
    """Job -> tasks to send: not done, and neither running nor waiting for what is not sent again itself."""
    todo: dict[str, list[int]] = {}
    for job in submission.jobs:
        in_vain = any(need in todo for need in job.needs)
        cancelled = (submission.job_folder(job.name) / "cancelled").exists()
        for task in unfinished.get(job.name, ()):
            found = living.get((job.name, task))
            if found is None or cancelled or (in_vain and found[1].state not in RUNNING):
                todo.setdefault(job.name, []).append(task)
    return todo


def _take_code(submission: Submission, names: Iterable[str]) -> None:
    """A snapshot beside the earlier ones, and scripts of the named jobs that use it."""
    folder = submission.folder
    number = 2
    while (folder / f"{CODE}-{number}.json").exists():
        number += 1
    code = folder / f"{CODE}-{number}"
    staged = folder / f".{code.name}.staged"
    snapshot.take(staged)
    for suffix in ("", ".diff", ".json"):  # the description last: with it the snapshot is whole
        staged.with_name(staged.name + suffix).rename(code.with_name(code.name + suffix))
    sync_folder(folder)
    cluster = cluster_of(submission)
    for name in names:
        replace_script(submission, submission.job(name), cluster, code)


def cancel(root: Path, names: Sequence[str] = ()) -> list[str]:
    """End the named jobs (none: all) and what depends on them; returns one line per job that was alive."""
    submission = of_root(root)
    for name in names:
        if name not in {job.name for job in submission.jobs}:
            raise UserError(f"no job {name!r} in {root}; {did_you_mean(name, [job.name for job in submission.jobs])}")
    with writing(root):
        chosen = _with_dependents(submission, names or [job.name for job in submission.jobs])
        lines: dict[str, str] = {}
        try:
            living = {key: found for key, found in rows(submission).items() if key[0] in chosen}
            lines = {line.slurm_id: line.job for line, _ in living.values()}
            _mark(submission, set(lines.values()))
            scancel(list(lines))
        except TransientError as error:
            sent = {line.job for line in submission.sent()} & chosen
            _mark(submission, set(lines.values()) or sent)
            raise TransientError(
                f"{error}; until then jobs may still run, but they do not start again: repeat "
                f"`bingo cancel {quoted(root)}`"
            ) from None
        return [f"{name} ({slurm_id}) is cancelled" for slurm_id, name in lines.items()]


def _mark(submission: Submission, names: Iterable[str]) -> None:
    for name in names:
        mark_cancelled(submission, name, "bingo cancel")


def _with_dependents(submission: Submission, names: Iterable[str]) -> set[str]:
    chosen = set(names)
    for job in submission.jobs:
        if chosen.intersection(job.needs):
            chosen.add(job.name)
    return chosen


def of_root(root: Path) -> Submission:
    """The newest submission of a root, or a sentence."""
    found = newest(root)
    if found is None:
        raise UserError(f"{root} holds no submission (no {SUBMISSIONS} in it); name the folder of `bingo submit --out`")
    return found


def _slurm_id(submission: Submission, name: str, task: int, line: Sent) -> str:
    return f"{line.slurm_id}_{task}" if submission.job(name).array else line.slurm_id


def _ids(submission: Submission, living: Living) -> dict[str, list[str]]:
    """Job -> ids of its living hand-overs, for a dependency."""
    found: dict[str, list[str]] = {}
    for (name, task), (line, _) in living.items():
        found.setdefault(name, []).append(_slurm_id(submission, name, task, line))
    return found


def _brief(ids: Sequence[str]) -> str:
    """A few ids, or the first and the last of many and how many there are."""
    return ", ".join(ids) if len(ids) <= 4 else f"{ids[0]} to {ids[-1]}: {len(ids)} tasks"


def _line(submission: Submission, name: str, todo: Tasks, running: Mapping[str, Sequence[str]]) -> str:
    goes_on = f"goes on ({_brief(running[name])})" if name in running else ""
    if name not in todo:
        return f"{name:28s} {goes_on or 'done'}"
    line = next(line for line in reversed(submission.sent()) if line.job == name)
    part = f"{len(todo[name])} of {len(submission.job(name).tasks)} tasks " if submission.job(name).array else ""
    return f"{name:28s} {part}sent as {line.slurm_id}{goes_on and f'; {goes_on}'}"
