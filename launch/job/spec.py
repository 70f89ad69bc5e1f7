"""What a job executes: a few stages in order, as the ranks of one process group."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bingo.config_json import from_json, to_json
from bingo.errors import UserError, brief
from bingo.files import read_json, write_json
from bingo.stages import Stage
from bingo.variables import RANKS, needed, whole

TIMEOUT_S = 300


@dataclass(frozen=True)
class ReportOf:
    """The page about a chain, which a job makes: the chain's root, and the hash of its recipe.json."""

    root: Path
    recipe: str


@dataclass(frozen=True)
class JobSpec:
    """One job of a submission, as job.json in its folder.

    tasks: the stages of each array task; a plain job has one task. nodes, min_nodes: it starts on any number of nodes
    between the two and counts as `nodes * ranks_per_node` ranks all the same. needs: names of the jobs that must have
    ended well. limit: array tasks at a time (0: all). report: what it makes in place of stages. max_starts, max_hours:
    no start after so many, or after so many hours of all starts together (0: no limit).
    """

    name: str
    tasks: tuple[tuple[Stage, ...], ...]
    parallel: bool = False
    nodes: int = 1
    min_nodes: int = 1
    ranks_per_node: int = 1
    needs: tuple[str, ...] = ()
    array: bool = False
    limit: int = 0
    collective_timeout_s: int = TIMEOUT_S
    preflight: bool = False
    max_starts: int = 0
    max_hours: float = 0.0
    report: ReportOf | None = None
    run: str = ""
    """Of a sweep over a chain: the combination that the job is of."""
    lane: int = 0
    """Of such a sweep with a limit: runs of one lane go one after another. 0: no limit."""

    def task(self, number: int) -> tuple[Stage, ...]:
        """The stages of one array task; `UserError` if there is no such one."""
        if number >= len(self.tasks):
            raise UserError(f"SLURM_ARRAY_TASK_ID={number}, but job {self.name} has {len(self.tasks)} task(s), from 0")
        return self.tasks[number]

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    def to_json(self) -> dict[str, Any]:
        rest = to_json(replace(self, tasks=()))
        return {**rest, "tasks": [[stage.to_json() for stage in task] for task in self.tasks]}

    @staticmethod
    def from_json(value: Any, where: str = "job") -> "JobSpec":
        """The job that `to_json` wrote; `UserError`, which begins with `where`, for anything else."""
        tasks = value.get("tasks") if isinstance(value, dict) else None
        if not (isinstance(tasks, list) and tasks and all(isinstance(task, list) for task in tasks)):
            raise UserError(f"{where}: {brief(value)} is no job: it must be an object with tasks, lists of stages")
        stages = tuple(tuple(_stage(stage, f"{where}.tasks[{n}]") for stage in task) for n, task in enumerate(tasks))
        spec = replace(from_json(JobSpec, {**value, "tasks": []}, where), tasks=stages)
        if min(spec.nodes, spec.min_nodes, spec.ranks_per_node, spec.collective_timeout_s) < 1:
            raise UserError(f"{where}: nodes, ranks and seconds must be at least 1")
        if not all(value >= 0 for value in (spec.limit, spec.max_starts, spec.max_hours)):
            raise UserError(f"{where}: limits must be at least 0")
        return spec

    def write(self, folder: Path) -> None:
        write_json(folder / "job.json", self.to_json())

    @staticmethod
    def read(folder: Path) -> "JobSpec":
        return JobSpec.from_json(read_json(folder / "job.json"), str(folder / "job.json"))


def _stage(value: Any, where: str) -> Stage:
    if not (isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("kind"), str)):
        raise UserError(f"{where}: {brief(value)} is no stage: it must be an object with name, kind and config")
    try:
        return Stage.from_json({"config": None, **value})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def rank_variables(environ: Mapping[str, str] = os.environ, shift: int = 0) -> dict[str, str]:
    """The standard variables of torch.distributed: as torchrun or the user set them, else from Slurm's, else one rank.

    The port is a function of the job and its restart, so that no attempt meets what an earlier one left behind; it lies
    below the ports that systems hand out. shift: another port of the same attempt, for a group before the job's own.
    `UserError` if Slurm's variables are not all there.
    """
    if "RANK" in environ or "SLURM_STEP_NODELIST" not in environ:  # a batch script has a SLURM_PROCID, and no ranks
        return {name: environ[name] for name in RANKS if name in environ}
    tasks, nodes = needed(environ, "SLURM_NTASKS"), needed(environ, "SLURM_STEP_NUM_NODES")
    attempt = needed(environ, "SLURM_JOB_ID") * 61 + (whole(environ, "SLURM_RESTART_COUNT") or 0) * 2 + shift
    return {
        "RANK": str(needed(environ, "SLURM_PROCID")),
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": str(needed(environ, "SLURM_LOCALID")),
        "LOCAL_WORLD_SIZE": str(math.ceil(tasks / max(1, nodes))),  # nodes may have different numbers
        "MASTER_ADDR": first_host(environ["SLURM_STEP_NODELIST"]) if nodes > 1 else "127.0.0.1",
        "MASTER_PORT": str(15_360 + attempt % 16_384),
    }


def first_host(nodelist: str) -> str:
    """`n[03-05,9]x,m1` -> `n03x`: rank 0's host."""
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", nodelist).split(",")[0]
