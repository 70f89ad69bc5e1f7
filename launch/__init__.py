"""Stages as jobs of a submitit executor: local processes today. No torch at module level (login nodes)."""

from bingo.launch.chain import Chain, Job, run_chain
from bingo.launch.job import StageJob

__all__ = ["Chain", "Job", "StageJob", "run_chain"]
