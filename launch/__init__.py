"""Jobs: chains of stages as processes of this machine or jobs of Slurm. No torch at module level (login nodes)."""

from bingo.launch.local import Chain, Job, StageJob, run_chain

__all__ = ["Chain", "Job", "StageJob", "run_chain"]
