"""Stages run by forked ranks, which spare the seconds that imports take; any of them may be killed on its way."""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bingo.stages import Stage, run_stage
from tests.support.ranks import wait_for
from tests.support.stage_examples import CONTEXT


class Ranks:
    """Processes that run one stage together. As `subprocess.Popen` has them: `poll` of each, for `wait_for`."""

    def __init__(self, stage: Stage, count: int, log: Path, run: Callable[[Stage], Any] = run_stage) -> None:
        """log: a folder for what they print; run: what runs the stage."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        log.mkdir(parents=True, exist_ok=True)
        self.args, self.logs = f"{count} ranks of {stage.name}", [log / f"rank-{rank}.log" for rank in range(count)]
        self.children = [
            CONTEXT.Process(target=_rank, args=(stage, {**shared, "RANK": r, "LOCAL_RANK": r}, self.logs[r], run))
            for r in range(count)
        ]
        for child in self.children:
            child.start()

    def poll(self) -> int | None:
        return next((child.exitcode for child in self.children if child.exitcode is not None), None)

    def end(self) -> None:
        """Wait for their end, which must be a good one."""
        for child in self.children:
            child.join()
        codes = [child.exitcode for child in self.children]
        assert set(codes) == {0}, [codes, *(log.read_text()[-2000:] for log in self.logs)]

    def kill_once(self, there: Path) -> None:
        """SIGKILL to all of them as soon as a file is there."""
        wait_for(there.exists, self)  # type: ignore[arg-type]
        for child in self.children:
            os.kill(child.pid, signal.SIGKILL)
        for child in self.children:
            child.join()
        assert {child.exitcode for child in self.children} == {-signal.SIGKILL}


def _rank(stage: Stage, variables: dict[str, Any], log: Path, run: Callable[[Stage], Any]) -> None:
    out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update({name: str(value) for name, value in variables.items()})
    run(stage)


def run_ranks(stage: Stage, count: int, log: Path, run: Callable[[Stage], Any] = run_stage) -> None:
    """Run a stage with so many ranks to its end."""
    Ranks(stage, count, log, run).end()


def checkpoints(out: Path) -> Sequence[Path]:
    return sorted((out / "checkpoints").glob("step-*.pt"))
