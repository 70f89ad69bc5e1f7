"""A profile of some steps of a training, taken by torch.profiler on chosen ranks: a trace that opens in Perfetto."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from bingo.config_parts import profile_window
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import PROFILE
from bingo.train.spans import STEP

log = logging.getLogger(__name__)


def trace_path(out: Path, rank: int) -> Path:
    """The trace of a rank: chrome's JSON, compressed, as chrome://tracing and Perfetto read it."""
    return out / PROFILE / f"trace-rank{rank}.json.gz"


class StepProfile:
    """Starts and ends the profiler between steps. text: `runtime.profile`, "" for none. steps: those still to do.

    `UserError` for steps or ranks that there are not. A trace that cannot be written is told of and stops nothing.
    """

    def __init__(self, text: str, out: Path, steps: range, world: World) -> None:
        self.out, self.world = out, world
        window, total = profile_window(text), steps.stop
        if window and window.past > total:
            raise UserError(
                f"runtime.profile={text}: this run has {total} steps, 0 to {total - 1}; set --runtime.profile (--steps "
                f"of bingo bench profile) to end at {total} at the latest"
            )
        if window and window.ranks[-1] >= world.size:
            there = f"ranks 0 to {world.size - 1}" if world.size > 1 else "rank 0 alone"
            raise UserError(
                f"runtime.profile={text}: there is no rank {window.ranks[-1]} here, this run has {there}; "
                "name others behind the @ (--ranks of bingo bench profile), or start the training with more ranks"
            )
        if window and window.first < steps.start and world.main:
            log.warning("nothing is profiled: the run goes on at step %d, behind the first of %s", steps.start, text)
        self.window = window if window and world.rank in window.ranks else None
        self._profiler: Any = None
        self._step: Any = None

    def at(self, step: int) -> None:
        """Called before each step with its number, and after the last one with the number of steps."""
        if self.window is None:
            return
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None
        if step == self.window.first:
            self._start()
        if self._profiler is not None and step == self.window.past:
            self._end()
        if self._profiler is not None:
            self._step = torch.profiler.record_function(f"{STEP}{step}")
            self._step.__enter__()

    def _start(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.world.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
            torch.cuda.synchronize(self.world.device)
        self._profiler = torch.profiler.profile(activities=kinds, acc_events=True)
        self._profiler.start()

    def _end(self) -> None:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize(self.world.device)
        self._profiler.stop()
        path = trace_path(self.out, self.world.rank)
        part = path.with_name(f".{path.name}")  # its end tells torch to compress it
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._profiler.export_chrome_trace(str(part))
            os.replace(part, path)
            log.info("%s has the profile; open it in Perfetto or chrome://tracing", path)
        except (OSError, RuntimeError) as error:
            log.warning("the profile cannot be written to %s: %s", path, error)
        self._profiler = None
