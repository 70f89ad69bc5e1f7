"""Whether `bingo status` told the truth, judged by what Slurm itself said at about the same time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STALE_S = 13.0
"""Slurm is asked at most once per 10 s, so an answer may be so old; accounting lags by a second more."""


@dataclass(frozen=True)
class Seen:
    """What Slurm said (state, restarts) or what `bingo status --json` said (status), at a unix time."""

    time: float
    state: str = ""
    restarts: int = 0
    status: dict[str, Any] | None = None


def lies(seen: Sequence[Seen], submission: str) -> list[str]:
    """Every false statement."""
    return []
