"""Stages as jobs of a submitit executor: local processes today. No torch at module level (login nodes)."""

from bingo.launch.job.spec import StageJob
from bingo.launch.local import Chain, Job, run_chain

__all__ = ["Chain", "Job", "StageJob", "run_chain"]
