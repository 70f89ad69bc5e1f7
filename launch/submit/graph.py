"""What each job of a chain needs, and which are done. Job B needs job A where an input of B lies in an output of A."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bingo.errors import UserError
from bingo.identity import input_paths
from bingo.launch.cluster.site import Cluster
from bingo.launch.job.spec import JobSpec
from bingo.recipes import Group
from bingo.stages import Stage, finished, stage_key

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
    for group in groups:
        tasks = (tuple(replace(stage, config=absolute(stage.config)) for stage in group.stages),)
        job = JobSpec(group.name, tasks, collective_timeout_s=site.collective_timeout_s)
        if group.parallel:
            size = {"nodes": site.nodes, "min_nodes": least, "ranks_per_node": site.ranks_per_node}
            job = replace(job, parallel=True, preflight=preflight, **size)  # type: ignore[arg-type]
        jobs.append(replace(job, needs=tuple(before.name for before in jobs if _reads(job, before))))
    return jobs


def _reads(job: JobSpec, before: JobSpec) -> bool:
    """Some input of `job` is, or lies in, an output of `before`."""
    made = [stage.out for task in before.tasks for stage in task]
    read = [path for task in job.tasks for stage in task for path in input_paths(stage.config).values()]
    return any(path.is_relative_to(out) for path in read for out in made)


def done_stage(stage: Stage) -> dict[str, Any] | None:
    """The record of a stage that is done with these settings and inputs, by content hash."""
    with contextlib.suppress(UserError):  # an input is not there yet: not done
        return finished(stage, stage_key(stage))
    return None


def open_tasks(jobs: Sequence[JobSpec]) -> dict[str, list[int]]:
    """Job name -> indices of its tasks that are not done; jobs that are done are left out.

    A job that needs one that is not done is not done either: its inputs may yet change.
    """
    found: dict[str, list[int]] = {}
    for job in jobs:
        broken = any(need in found for need in job.needs)
        tasks = [at for at, task in enumerate(job.tasks) if broken or not all(done_stage(stage) for stage in task)]
        if tasks:
            found[job.name] = tasks
    return found
