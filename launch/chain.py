"""A chain of jobs through submitit's local executor: finished stages are skipped, one line is printed per stage."""

import contextlib
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from bingo.errors import UserError
from bingo.launch.job import StageJob
from bingo.stages import Stage, finished, stage_key


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
    """Run every unfinished stage; returns all records in order.

    gpus: GPUs of this machine to hand to the jobs (0: CPU, gloo). Raises `UserError` for what the user can fix and
    names the log of the failed rank otherwise. Interrupted, the running job is stopped and a new call resumes.
    """
    records = []
    for job in chain.jobs:
        pending = list(job.stages)
        # Stages are skipped here, without a process, for as long as the chain is unbroken.
        while pending and (record := _done(pending[0])):
            say(line(pending[0], record, skipped=True))
            records.append(record)
            pending.pop(0)
        if pending:
            fresh = _run_job(chain.root / "logs", Job(tuple(pending), job.ranks), gpus)
            for stage, record in zip(pending, fresh, strict=True):
                say(line(stage, record, skipped=record["skipped"]))
            records += fresh
    return records


def _done(stage: Stage) -> dict[str, Any] | None:
    with contextlib.suppress(UserError):  # an input is not there yet: not done
        return finished(stage, stage_key(stage))
    return None


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


def _run_job(logs: Path, job: Job, gpus: int) -> list[dict[str, Any]]:
    executor = submitit.LocalExecutor(folder=logs / "%j")
    executor.update_parameters(tasks_per_node=job.ranks, gpus_per_node=min(gpus, job.ranks), timeout_min=60 * 24 * 30)
    submitted = executor.submit(StageJob(tuple(stage.to_json() for stage in job.stages), free_port()))
    with _cancelled_on_exit(submitted), _spinner(job) as tick:
        while not submitted.done():
            tick()
            time.sleep(0.1)
    return _result(submitted, job)


def _result(submitted: Any, job: Job) -> list[dict[str, Any]]:
    names = ", ".join(stage.name for stage in job.stages)
    results: list[Any] = []
    cause: Exception | None = None
    try:
        results = submitted.results()
    except Exception as error:  # submitit raises several types; each carries the failed task's traceback
        cause = error
    told = next((r for r in results if isinstance(r, str)), None)
    if told:
        raise UserError(told)
    if cause is not None:
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[-1]
        raise UserError(
            f"job {submitted.job_id} ({names}) failed: {reason}; see {submitted.paths.folder}; "
            "run the same command to resume"
        )
    shutil.rmtree(submitted.paths.folder / "pickles", ignore_errors=True)
    return results[0]


@contextlib.contextmanager
def _cancelled_on_exit(job: Any) -> Iterator[None]:
    """Stop the job's processes when this process is interrupted: nothing goes on in the background unseen."""
    try:
        yield
    except BaseException:
        job.cancel(check=False)
        with contextlib.suppress(Exception):
            job._process.wait(timeout=30)
        raise


@contextlib.contextmanager
def _spinner(job: Job) -> Iterator[Callable[[], None]]:
    """On a terminal: which stage runs and its newest metrics line; elsewhere nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    with console.status("") as status:
        yield lambda: status.update(_status(job))


def _status(job: Job) -> str:
    current = next((s for s in job.stages if not (s.out / "config.json").exists() or not _recorded(s)), job.stages[-1])
    metrics = current.out / "metrics.jsonl"
    last = metrics.read_bytes()[-400:].decode().splitlines()[-1:] if metrics.exists() else []
    return f"{current.name} {last[0] if last else ''}"


def _recorded(stage: Stage) -> bool:
    record = stage.out / "stage.json"
    return record.exists() and '"outputs"' in record.read_text()


def free_port() -> int:
    """A TCP port that is free on loopback right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
