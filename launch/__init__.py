"""Jobs: chains of stages as processes of this machine or jobs of Slurm. No torch at module level (login nodes)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bingo.launch.local import Chain, Job, StageJob, run_chain

__all__ = ["Chain", "Job", "StageJob", "run_chain"]


def __getattr__(name: str) -> Any:
    """The names above when they are used: `python -m bingo.launch.job.worker` warns of a worker imported before it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bingo.launch import local

    return getattr(local, name)
