"""What each job of a chain needs, and which are done. Job B needs job A where an input of B lies in an output of A."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bingo.errors import UserError
from bingo.files import hash_json
from bingo.identity import input_paths, inputs_read_once
from bingo.launch.cluster.site import Cluster
from bingo.launch.job.spec import JobSpec, ReportOf
from bingo.recipes import Group, reported
from bingo.stages import Stage, finished, identity_of

C = TypeVar("C")


def absolute(config: C) -> C:
    """The same settings with every path absolute, links kept: a job runs in another folder."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, Path):
            changes[field.name] = Path(os.path.abspath(value))
        elif dataclasses.is_dataclass(value):
            changes[field.name] = absolute(value)
    return replace(config, **changes)  # type: ignore[type-var]


def jobs_of(groups: Iterable[Group], cluster: Cluster, *, min_nodes: int | None, preflight: bool) -> list[JobSpec]:
    """The groups as jobs of a cluster, with their needs. `UserError` if `min_nodes` is not between 1 and all nodes."""
    site = cluster.jobs
    least = site.nodes if min_nodes is None else min_nodes
    if not 1 <= least <= site.nodes:
        raise UserError(f"--min-nodes {least} is not allowed: it must be between 1 and the {site.nodes} nodes of a job")
    jobs: list[JobSpec] = []
    made: dict[Path, list[str]] = {}
    for group in groups:
        tasks = (tuple(replace(stage, config=absolute(stage.config)) for stage in group.stages),)
        own = cluster.site(group.parallel)
        limits = {"max_starts": own.max_starts, "max_hours": own.max_hours}
        job = JobSpec(group.name, tasks, collective_timeout_s=site.collective_timeout_s, **limits)  # type: ignore[arg-type]
        if group.parallel:
            size = {"nodes": site.nodes, "min_nodes": least, "ranks_per_node": site.ranks_per_node}
            job = replace(job, parallel=True, preflight=preflight, **size)  # type: ignore[arg-type]
        needed = _made_by(made, [path for stage in tasks[0] for path in input_paths(stage.config).values()])
        jobs.append(replace(job, needs=tuple(before.name for before in jobs if before.name in needed)))
        for stage in tasks[0]:
            made.setdefault(stage.out, []).append(job.name)
    return jobs


def _made_by(made: Mapping[Path, Sequence[str]], read: Iterable[Path]) -> set[str]:
    """Names of the jobs in whose outputs (`made`: output -> names) one of these paths lies."""
    return {name for path in read for place in (path, *path.parents) for name in made.get(place, ())}


def report_job(jobs: Sequence[JobSpec], root: Path, recipe: Mapping[str, Any]) -> JobSpec:
    """The last job of a chain, which makes the page about it. recipe: what its recipe.json says."""
    needed = {name for job in jobs for name in job.needs}
    ends = tuple(job.name for job in jobs if job.name not in needed)
    return JobSpec("report", ((),), needs=ends, report=ReportOf(root, hash_json(recipe)))


def turns(jobs: Sequence[JobSpec], todo: Container[str], running: Container[str] = ()) -> dict[str, list[str]]:
    """Job to send -> jobs of other runs in its lane whose end it waits for, however they end.

    Those are the jobs of the run before it that is sent too, which wait for the ones before them, and those that run.
    """
    found: dict[str, list[str]] = {}
    for lane in sorted({job.lane for job in jobs} - {0}):
        members = [job for job in jobs if job.lane == lane]
        before: list[str] = []
        for run, group in itertools.groupby((job for job in members if job.name in todo), key=lambda job: job.run):
            names = [job.name for job in group]
            living = [job.name for job in members if job.run != run and job.name in running and job.name not in todo]
            found |= {name: [*before, *living] for name in names}
            before = names
    return found


def done_stage(stage: Stage, *, any_version: bool = False) -> dict[str, Any] | None:
    """The record of a stage that is done with these settings and inputs, by content hash.

    any_version: by whichever version of bingo, if nothing else differs. None where a record is damaged, too: whoever
    sends or runs the stage then looks into its folder and says so, see `find_other_work`.
    """
    with contextlib.suppress(UserError):  # an input is not there yet: not done
        return finished(stage, identity_of(stage, any_version=any_version).key)
    return None


@inputs_read_once()
def open_tasks(jobs: Sequence[JobSpec], *, any_version: bool = False) -> dict[str, list[int]]:
    """Job name -> indices of its tasks that are not done, see `done_stage`; jobs that are done are left out.

    A job that needs one that is not done is not done either: its inputs may yet change.
    """

    def done(task: Sequence[Stage]) -> bool:
        return all(done_stage(stage, any_version=any_version) for stage in task)

    found: dict[str, list[int]] = {}
    for job in jobs:
        broken = any(need in found for need in job.needs)
        broken = broken or not (job.report is None or reported(job.report.root, job.report.recipe))
        tasks = [at for at, task in enumerate(job.tasks) if broken or not done(task)]
        if tasks:
            found[job.name] = tasks
    return found
