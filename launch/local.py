"""A chain of jobs as processes here, by submitit: what is done is skipped, a line is printed per stage."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.launch.job.causes import find_cause
from bingo.launch.job.records import read_beats, read_events
from bingo.launch.job.spec import TIMEOUT_S
from bingo.launch.job.worker import Recorder, work
from bingo.launch.live import live_line, position
from bingo.launch.submit.graph import done_stage
from bingo.stages import Stage, run_stage
from bingo.watch import Leaving

LEAVE_S, OTHERS_S = 60, 20
"""Seconds that ranks have to leave when asked to, and to end once another one has failed."""


@dataclass(frozen=True)
class Job:
    """Stages that share one set of ranks, in order."""

    stages: tuple[Stage, ...]
    ranks: int = 1


@dataclass(frozen=True)
class Chain:
    """Jobs in order; each may use what the ones before it made."""

    root: Path
    jobs: tuple[Job, ...]


def run_chain(chain: Chain, *, gpus: int = 0, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run every unfinished stage; returns all records in order and says one line per stage as it finishes.

    gpus: GPUs of this machine to hand to the jobs (0: CPU, gloo). Raises `UserError` for what the user can fix and
    names the rank that failed first otherwise. On SIGTERM and Ctrl-C the ranks leave with a checkpoint (`Leaving` and
    `KeyboardInterrupt`; a second signal kills them), and a new call resumes.
    """
    records: list[dict[str, Any]] = []
    count = sum(len(job.stages) for job in chain.jobs)
    for job in chain.jobs:
        pending = list(job.stages)
        # A stage that is done is skipped here, without a process, for as long as the chain is unbroken.
        while pending and (record := done_stage(pending[0])):
            say(line(pending.pop(0), record, skipped=True))
            records.append({**record, "skipped": True})
        if pending:
            job, place = Job(tuple(pending), job.ranks), (len(records) + 1, count)
            records += _run_job(chain.root / "logs", job, gpus, say, place)
    return records


def run_inline(chain: Chain, *, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run every stage in this process, as one rank: a debugger stops where it is told. Records as `run_chain`'s."""
    records = []
    for stage in (stage for job in chain.jobs for stage in job.stages):
        records.append(record := run_stage(stage))
        say(line(stage, record, skipped=record["skipped"]))
    return records


def line(stage: Stage, record: dict[str, Any], *, skipped: bool) -> str:
    """One line for people: name, time or `done before`, figures."""
    figures = "  ".join(
        f"{name} {_show(value)}"
        for name, value in record["figures"].items()
        if name not in ("weights", "resumed_from") and value is not None
    )
    took = "done before" if skipped else f"{record['seconds']:.1f} s"
    return f"{stage.name:28s} {took:>11s}   {figures}".rstrip()


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def import_submitit() -> Any:
    """The module, or a sentence that says how to get it."""
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            f"submitit is needed to start jobs but does not import ({error}); pip install submitit, "
            "or run the verbs one by one (they work under torchrun too)"
        ) from None
    return submitit


@dataclass(frozen=True)
class StageJob:
    """A picklable callable for submitit's local executor: stages as JSON, the port of rank 0, where ranks record."""

    stages: tuple[dict[str, Any], ...]
    port: int
    folder: Path

    def __call__(self) -> list[dict[str, Any]]:
        """Records of the stages; a rank that fails or is asked to leave ends its process, as `worker.work` says."""
        job = import_submitit().JobEnvironment()
        recorder = Recorder(self.folder, job.global_rank)
        recorder.start()  # in place of submitit's handlers, which would requeue
        os.environ.update(rank_environment(job, self.port))
        stages = [Stage.from_json(value) for value in self.stages]
        return work(stages, recorder, timeout_s=TIMEOUT_S, ranks=job.num_tasks)


def rank_environment(job: Any, port: int) -> dict[str, str]:
    """The standard variables of torch.distributed for a task of submitit's local executor."""
    return {
        "RANK": str(job.global_rank),
        "WORLD_SIZE": str(job.num_tasks),
        "LOCAL_RANK": str(job.local_rank),
        "LOCAL_WORLD_SIZE": str(job.num_tasks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _run_job(
    logs: Path, job: Job, gpus: int, say: Callable[[str], None], place: tuple[int, int]
) -> list[dict[str, Any]]:
    """place: the first stage's number in the chain, from 1, and the number of stages."""
    # A folder of its own for every job: process ids come again, and with them another job's result.
    folder = logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{job.stages[0].out.name}"
    executor = import_submitit().LocalExecutor(folder=folder)
    executor.update_parameters(tasks_per_node=job.ranks, gpus_per_node=min(gpus, job.ranks), timeout_min=60 * 24 * 30)
    call = StageJob(tuple(stage.to_json() for stage in job.stages), free_port(), folder)
    told = 0
    with _signals() as asked, live_line() as show:
        submitted = _submit(executor, call)
        with _ended_on_exit(submitted, folder):
            wait = _Patience(submitted, folder, asked)
            while not submitted.done():
                while told < len(job.stages) and (record := done_stage(job.stages[told])):
                    say(line(job.stages[told], record, skipped=False))
                    told += 1
                at = min(told, len(job.stages) - 1)
                show(job.stages[at], partial(position, job.stages[at], place[0] + at, place[1], folder, time.time()))
                wait.half_a_second()
    records = _result(submitted, job, folder, asked)
    for stage, record in list(zip(job.stages, records, strict=True))[told:]:
        say(line(stage, record, skipped=record["skipped"]))
    return records


def _submit(executor: Any, call: StageJob) -> Any:
    """Start the job so that Ctrl-C on the terminal reaches this process alone, which then ends the job in order."""
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited
    try:
        return executor.submit(call)
    finally:
        signal.signal(signal.SIGINT, heard)


@contextlib.contextmanager
def _signals() -> Iterator[list[str]]:
    """Names of the signals that ask this process to end, as they come."""
    asked: list[str] = []
    old = {
        number: signal.signal(number, lambda n, frame: asked.append(signal.Signals(n).name))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Patience:
    """Waits for a local job; passes a wish to end on to its ranks, and kills those that do not end when they should."""

    def __init__(self, job: Any, folder: Path, asked: list[str]) -> None:
        self.job, self.folder, self.asked = job, folder, asked
        self.deadline: float | None = None

    def half_a_second(self) -> None:
        time.sleep(0.5)
        if self.deadline is None and self.asked:
            self.job._process.send_signal(signal.SIGTERM)  # the controller passes it on to every rank
            self.deadline = time.monotonic() + LEAVE_S
        elif self.deadline is None and any(e["event"] == "failed" for e in _events(self.folder)):
            self.deadline = time.monotonic() + OTHERS_S
        elif self.deadline and (len(self.asked) > 1 or time.monotonic() > self.deadline):
            _kill(self.job, self.folder)


def _events(folder: Path) -> list[dict[str, Any]]:
    return [event for rank in read_events(folder).values() for event in rank]


def _kill(job: Any, folder: Path) -> None:
    """Kill the ranks; their controller, whose children they are, then ends by itself."""
    if job._process.poll() is None:
        for event in _events(folder):
            if event["event"] == "start":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(event["pid"], signal.SIGKILL)


@contextlib.contextmanager
def _ended_on_exit(job: Any, folder: Path) -> Iterator[None]:
    """End the job when this process cannot go on: nothing goes on in the background unseen."""
    try:
        yield
    except BaseException:
        job._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            job._process.wait(timeout=OTHERS_S)
        _kill(job, folder)
        raise


def _result(submitted: Any, job: Job, folder: Path, asked: list[str]) -> list[dict[str, Any]]:
    """Rank 0's records; otherwise why there are none, in one sentence."""
    events = read_events(folder)
    ended = [any(e["event"] == "done" for e in events.get(rank, ())) for rank in range(job.ranks)]
    if asked and asked[0] == "SIGINT":
        raise KeyboardInterrupt
    names = ", ".join(stage.name for stage in job.stages)
    cause = find_cause(events, read_beats(folder), rc=0 if all(ended) else None)
    if asked:
        raise Leaving(f"{names}: {cause.sentence}")
    if all(ended):
        return submitted.task(0).result()
    if cause.kind == "user":
        raise UserError(cause.sentence)
    why = _first_error(submitted, job) if cause.kind == "unknown" else cause.sentence
    raise UserError(f"job {submitted.job_id} ({names}) failed: {why}; see {folder}; run the same command to resume")


def _first_error(submitted: Any, job: Job) -> str:
    """What submitit knows of a job whose ranks did not come as far as to record anything."""
    for rank in range(job.ranks):
        try:
            submitted.task(rank).result()
        except Exception as error:  # submitit raises several types; each carries the failed rank's traceback
            return f"rank {rank}: {last_exception(str(error))}"
    return "nothing is recorded"


def last_exception(text: str) -> str:
    """The line of a traceback that names the exception."""
    lines = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt|Exit)\b", line)]
    return lines[-1] if lines else (text.strip().splitlines() or ["no message"])[0]


def free_port() -> int:
    """A TCP port that is free on loopback right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
