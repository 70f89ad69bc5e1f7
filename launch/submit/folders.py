"""What the folders of a chain hold of other work: refused before anything runs, or moved aside on request."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Literal

from bingo.aside import Moved, move_aside
from bingo.errors import UserError
from bingo.files import RECORD
from bingo.identity import Identity, identify, input_paths, inputs_read_once, lies_in, read_record
from bingo.launch.job.spec import JobSpec
from bingo.stages import Stage, finished, in_the_way

Versions = Literal["mine", "begun", "any"]
"""Work of another version of bingo: in the way; only where more than that differs; for the job itself to judge."""


@inputs_read_once()
def find_other_work(
    stages: Iterable[Stage], *, replace: bool = False, made: Set[Path] = frozenset(), versions: Versions = "mine"
) -> list[Stage]:
    """The stages, in order, whose folders hold what is to be moved aside: work of others, or of replaced inputs.

    made: folders that are written before these stages run. `UserError`, in the words of the stage's own verb, for the
    first such folder if not `replace`; always for one that holds files of others and no stage.
    """
    unfinished, replaced, found = set(made), set[Path](), []
    for stage in stages:
        if not stage.out.is_dir():
            unfinished.add(stage.out)
            continue
        identity = identify(stage.kind, stage.config, unfinished)
        held = _held(stage, identity, replace, versions)
        if held and not replace:
            raise UserError(held)
        stale = bool(held) or any(lies_in(path, replaced) for path in input_paths(stage.config).values())
        if stale:
            replaced.add(stage.out)
            found.append(stage)
        if stale or identity.unknown or not finished(stage, identity.key):
            unfinished.add(stage.out)
    return found


def _held(stage: Stage, identity: Identity, replace: bool, versions: Versions) -> str:
    try:
        if versions != "mine" and (stage.out / RECORD).exists():
            record = read_record(stage.out)
            another = record.get("version") != identity.version
            if another and (versions == "any" or identity.as_begun(record).is_of(record)):
                return ""
        return in_the_way(stage, identity)
    except UserError as error:
        if replace and (stage.out / RECORD).exists():  # a damaged record
            return str(error)
        raise


@contextlib.contextmanager
def replaced(stages: Sequence[Stage], say: Callable[[str], None]) -> Iterator[None]:
    """Move what their folders hold aside, one line for each; back again if what is inside raises a `UserError`."""
    moved: list[Moved] = []
    try:
        for stage in stages:
            if one := move_aside(stage.out, stage.kind):
                moved.append(one)
                say(str(one))
        yield
    except UserError as error:
        if not moved:
            raise
        raise UserError(f"{error}; {'; '.join(map(_back, reversed(moved)))}") from None


def _back(moved: Moved) -> str:
    try:
        moved.back()
    except UserError as error:
        return str(error)
    return f"{moved.out} is as it was"


def outs(jobs: Iterable[JobSpec], todo: Mapping[str, Sequence[int]]) -> set[Path]:
    """The folders that some tasks of jobs write."""
    return {stage.out for stage in stages_of(jobs, todo)}


def stages_of(jobs: Iterable[JobSpec], todo: Mapping[str, Sequence[int]]) -> list[Stage]:
    """The stages of some tasks (job name -> indices), in order."""
    return [stage for job in jobs for task in todo.get(job.name, ()) for stage in job.tasks[task]]


def everything(jobs: Iterable[JobSpec]) -> dict[str, Sequence[int]]:
    """All tasks of jobs."""
    return {job.name: range(len(job.tasks)) for job in jobs}
