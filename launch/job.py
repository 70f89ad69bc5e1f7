"""What a job executes: a few stages in order, as the ranks of one process group."""

import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bingo.config_parts import Runtime
from bingo.errors import UserError
from bingo.files import read_json, write_json
from bingo.stages import Stage


@dataclass(frozen=True)
class JobSpec:
    """One job of a submission, as job.json in its folder.

    tasks: the stages of each array task; a plain job has one task. nodes, min_nodes: it starts on any number of nodes
    between the two and counts as `nodes * ranks_per_node` ranks all the same. needs: names of the jobs that must have
    ended well. limit: array tasks at a time (0: all).
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
    collective_timeout_s: int = 300
    preflight: bool = False

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    def to_json(self) -> dict[str, Any]:
        rest = asdict(replace(self, tasks=()))
        return {**rest, "tasks": [[stage.to_json() for stage in task] for task in self.tasks]}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "JobSpec":
        tasks = tuple(tuple(Stage.from_json(stage) for stage in task) for task in value["tasks"])
        return JobSpec(**{**value, "tasks": tasks, "needs": tuple(value["needs"])})

    def write(self, folder: Path) -> None:
        write_json(folder / "job.json", self.to_json())

    @staticmethod
    def read(folder: Path) -> "JobSpec":
        return JobSpec.from_json(read_json(folder / "job.json"))


@dataclass(frozen=True)
class StageJob:
    """A picklable callable: stages as JSON, the port of rank 0, and whether old outputs may be replaced."""

    stages: tuple[dict[str, Any], ...]
    port: int

    def __call__(self) -> list[dict[str, Any]] | str:
        """Records of the stages, or the sentence of a user error (which no retry would mend)."""
        import submitit

        from bingo.distributed import world
        from bingo.stages import run_stage

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        os.environ.update(rank_environment(submitit.JobEnvironment(), self.port))
        stages = [Stage.from_json(value) for value in self.stages]
        try:
            with world(next((s.config.runtime for s in stages if hasattr(s.config, "runtime")), Runtime())) as peers:
                return [run_stage(stage, world=peers, replace=True) for stage in stages]
        except UserError as error:
            return str(error)

    def checkpoint(self) -> Any:
        """Called by submitit before a requeue: the stages resume from what is on disk."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def rank_environment(job: Any, port: int) -> dict[str, str]:
    """The standard variables of torch.distributed for this task."""
    return {
        "RANK": str(job.global_rank),
        "WORLD_SIZE": str(job.num_tasks),
        "LOCAL_RANK": str(job.local_rank),
        "LOCAL_WORLD_SIZE": str(job.num_tasks // job.num_nodes),
        "MASTER_ADDR": job.hostnames[0] if job.num_nodes > 1 else "127.0.0.1",
        "MASTER_PORT": str(port),
    }
