"""What one task of a job executes: a few stages in order, as one rank of a process group."""

import logging
import os
from dataclasses import dataclass
from typing import Any

from bingo.config_parts import Runtime
from bingo.errors import UserError


@dataclass(frozen=True)
class StageJob:
    """A picklable callable: stages as JSON, the port of rank 0, and whether old outputs may be replaced."""

    stages: tuple[dict[str, Any], ...]
    port: int

    def __call__(self) -> list[dict[str, Any]] | str:
        """Records of the stages, or the sentence of a user error (which no retry would mend)."""
        import submitit

        from bingo.distributed import world
        from bingo.stages import Stage, run_stage

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
