"""Python loads this by itself when its folder is on PYTHONPATH: one fault, at one step of one rank of a training.

$BINGO_FAULT is the fault as JSON (`tests.cluster.faults.Fault`). The product knows nothing of it: when
`bingo.train.metrics` and `bingo.files` are imported, two of their functions are wrapped.
"""

import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

SLOW_START_S = 8.0
FAULT: dict[str, Any] = json.loads(os.environ.get("BINGO_FAULT", "{}"))


ATTEMPT = int(os.environ.get("SLURM_RESTART_COUNT", 0))
MARKS = Path(FAULT.get("marks", ""))
MINE = bool(FAULT) and int(os.environ.get("SLURM_PROCID", 0)) == FAULT["rank"]
"""Whether this is the rank that the fault is for."""


def here() -> bool:
    """In the attempt and the rank that the fault is for, which it hits once: a job that is sent again counts anew."""
    return MINE and FAULT["attempt"] == ATTEMPT and not (MARKS / "fault").exists()


def mark(name: str) -> None:
    """Tell the test that the moment has come, and when it was; then wait for it, if this fault does."""
    path = MARKS / name
    path.with_suffix(".tmp").write_text(str(time.time()))
    path.with_suffix(".tmp").rename(path)
    while FAULT["waits"] and not (MARKS / "go").exists():
        time.sleep(0.02)


def fail(out: Path) -> None:
    raise RuntimeError("injected")


def refuse(out: Path) -> None:
    from bingo.errors import UserError

    raise UserError("injected")


def kill(out: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(out: Path) -> NoReturn:
    while True:
        time.sleep(3600)


def hang_deaf(out: Path) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    hang(out)


def stop(out: Path) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def eat_memory(out: Path) -> NoReturn:
    eaten = []
    while True:
        eaten.append(b"\1" * (64 << 20))


def fill_disk(out: Path) -> None:
    """All but `leave` bytes of the disk that the run writes to."""
    with open(out / ".filler", "wb") as file:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while os.write(file.fileno(), b"\0" * size):
                    pass
        os.truncate(file.fileno(), max(0, os.fstat(file.fileno()).st_size - FAULT["leave"]))


def wait_here(out: Path) -> None:
    """Arrive late: the other rank waits in a collective meanwhile."""
    time.sleep(FAULT["late_s"])


def nothing(out: Path) -> None:
    """The test does something from outside."""


ACTIONS: dict[str, Callable[[Path], None]] = {
    "raise": fail, "kill": kill, "hang": hang, "hang-deaf": hang_deaf, "stop": stop, "eat-memory": eat_memory,
    "fill-disk": fill_disk, "late": wait_here, "mark": nothing, "refuse": refuse,
}  # fmt: skip


def wrap_metrics(module: ModuleType) -> None:
    """`Metrics.step` is called once per step, after the optimiser and before anything of the step is on disk."""
    record = module.Metrics.step

    def step(self: Any, loss: Any, line: dict[str, Any], measures: Any = None) -> None:
        record(self, loss, line, measures)
        slow = FAULT["attempt"] == ATTEMPT and line["step"] > FAULT["step"]
        time.sleep(max(FAULT["pace_s"], FAULT["slow_s"] if slow else 0))
        if line["step"] == FAULT["step"] and FAULT["action"] in ACTIONS and here():
            mark("fault")
            ACTIONS[FAULT["action"]](self.path.parent)
        if (ATTEMPT, line["step"]) == (1, FAULT["again"]) and MINE:
            kill(self.path.parent)

    module.Metrics.step = step


def wrap_files(module: ModuleType) -> None:
    """Killed after some bytes of a checkpoint's temporary file."""
    whole = module.atomic_write

    class Torn:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> NoReturn:
            self.file.write(bytes(data)[: int(len(data) * FAULT["share"])])
            self.file.flush()
            mark("fault")
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("unreachable")

    @contextlib.contextmanager
    def atomic_write(path: Path) -> Iterator[Any]:
        number = path.stem.removeprefix("step-")
        torn = path.parent.name == "checkpoints" and number.isdigit() and int(number) > FAULT["step"] and here()
        with whole(path) as file:
            yield Torn(file) if torn else file

    if FAULT["action"] == "tear":
        module.atomic_write = atomic_write


def start_late(where: str) -> None:
    """One rank is behind the others: as soon as it begins, or in its imports, where it listens to signals already."""
    if (FAULT["action"], FAULT["variant"]) == ("slow-start", where) and MINE:
        time.sleep(SLOW_START_S)


WRAPPERS = {
    "bingo.train.metrics": wrap_metrics,
    "bingo.files": wrap_files,
    "bingo.distributed": lambda module: start_late("imports"),
}


class Finder(importlib.abc.MetaPathFinder):
    """Finds these modules as ever, and wraps them once they have run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in WRAPPERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            WRAPPERS[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FAULT and "SLURM_STEP_NODELIST" in os.environ:  # a batch script, too, has a SLURM_PROCID
    sys.meta_path.insert(0, Finder())
    start_late("at once")
