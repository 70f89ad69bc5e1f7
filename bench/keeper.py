"""What a measurement has so far: told on stderr, and kept in its --json FILE, so that a kill leaves what was done."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bingo.bench.record import Row, write_result

SAVE_SECONDS = 2.0
SAY_SECONDS = 10.0
"""At least so long between two files, and two lines, of a measurement that still runs."""


class Keeper:
    """One measurement under way. path: the value of --json, None where nothing is to be kept."""

    def __init__(self, path: Path | None, measurement: str) -> None:
        self.path, self.measurement = path, measurement
        self.began = self.saved = self.said = time.monotonic()

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self.began:5.0f} s] {self.measurement}: {text}", file=sys.stderr, flush=True)

    def keep(self, rows: Sequence[Row], detail: Any) -> None:
        """Tell and save what there is, marked as partial, if some seconds have gone by."""
        if time.monotonic() - self.said > SAY_SECONDS:
            self.said = time.monotonic()
            self.say(f"{sum(any(row['processes']) for row in rows)} of {len(rows)} rows have samples")
        if self.path and rows and time.monotonic() - self.saved > SAVE_SECONDS:
            write_result(self.path, self.measurement, rows, detail, partial=True)
            self.saved = time.monotonic()

    def finish(self, rows: Sequence[Row], detail: Any) -> int:
        """Save all of it; 0."""
        if self.path:
            write_result(self.path, self.measurement, rows, detail)
        return 0
