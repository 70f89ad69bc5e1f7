"""Goes on with a submission (sends again what failed, was cancelled or never sent), or ends it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bingo.errors import UserError, did_you_mean
from bingo.files import sync_folder
from bingo.launch.cluster.site import read_site, with_size
from bingo.launch.cluster.slurm import RUNNING, Row
from bingo.launch.layout import SUBMISSIONS
from bingo.launch.submit import snapshot
from bingo.launch.submit.graph import open_tasks
from bingo.launch.submit.sbatch import scancel
from bingo.launch.submit.send import CODE, Tasks, mark_cancelled, replace_script, rows, send, writing
from bingo.launch.submit.submission import Sent, Submission, newest

Living = Mapping[tuple[str, int], tuple[Sent, Row]]


def repair(root: Path, *, new_code: bool = False) -> list[str]:
    """Send again what is neither done nor alive, with what depends on it; returns one line per job.

    Jobs that run stay, and what is sent waits for them. new_code: what is sent runs the package as it is now.
    """
    submission = of_root(root)
    with writing(root):
        living = rows(submission, fresh=True)
        unfinished = open_tasks(submission.jobs)
        todo = _to_send(submission, unfinished, living)
        stays = {key: found for key, found in living.items() if key[1] not in todo.get(key[0], ())}
        replaced = {key: found for key, found in living.items() if key not in stays}
        scancel(sorted({_slurm_id(submission, *key, line) for key, (line, _) in replaced.items()}))
        if todo and new_code:
            _take_code(submission, todo)
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
    sizes = submission.facts["overrides"]
    cluster = with_size(read_site(folder / "site.toml"), sizes["nodes"], sizes["ranks_per_node"])
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
        living = {key: found for key, found in rows(submission).items() if key[0] in chosen}
        lines = {line.slurm_id: line.job for line, _ in living.values()}
        for name in set(lines.values()):
            mark_cancelled(submission, name, "bingo cancel")
        scancel(list(lines))
        return [f"{name} ({slurm_id}) is cancelled" for slurm_id, name in lines.items()]


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


def _line(submission: Submission, name: str, todo: Tasks, running: Mapping[str, Sequence[str]]) -> str:
    goes_on = f"goes on ({', '.join(running[name])})" if name in running else ""
    if name not in todo:
        return f"{name:28s} {goes_on or 'done'}"
    line = next(line for line in reversed(submission.sent()) if line.job == name)
    part = f"{len(todo[name])} of {len(submission.job(name).tasks)} tasks " if submission.job(name).array else ""
    return f"{name:28s} {part}sent as {line.slurm_id}{goes_on and f'; {goes_on}'}"
