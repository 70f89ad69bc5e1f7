"""What a run is told and what it tells: the wish that it leaves, events for its ledger, a heartbeat.

Whoever starts a run on a cluster may be gone while it runs, so both directions go through this small object. The plain
one only hears signals; `bingo.launch` puts one in its place that also writes what it is told to files.
"""

import signal
from pathlib import Path
from typing import Any

LEAVE_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class Leaving(Exception):
    """Every rank leaves at the same step boundary because one was asked to; all work so far is on disk."""


class Watch:
    """Hears the signals that ask a run to leave; what it is told goes nowhere."""

    def __init__(self) -> None:
        self.asked: str | None = None
        """Name of the first signal that asked this process to leave (`SIGUSR2`, `SIGTERM`); once agreed, in all."""

    def listen(self) -> None:
        """From now on these signals only set a flag: a handler that did more could run in the middle of anything."""
        for number in LEAVE_SIGNALS:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: object) -> None:
        if self.asked is None:
            self.asked = signal.Signals(number).name

    def event(self, name: str, /, **facts: Any) -> None:
        """Something that belongs in the ledger: `joined`, `stage`, `resumed`, `checkpoint`, `left`, ..."""

    def beat(self, step: int) -> None:
        """The run is alive and has done `step` steps (or blocks) of its stage; cheap, called at every step."""

    def saved(self, key: str, out: Path) -> int | None:
        """The step of the newest checkpoint that earlier attempts of this run have written to `out`, where known."""
        return None
