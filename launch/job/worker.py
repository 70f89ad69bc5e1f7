"""One rank of a job: `python -u -m bingo.launch.job.worker JOBDIR`. A signal only sets a flag; the exit status says how
it ended: 0 done, 75 left at a step boundary because it was asked to, 65 a user error (no retry mends it), 74 storage
that may mend itself, 70 any other.
"""

import contextlib
import importlib
import json
import logging
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bingo.config_parts import Runtime
from bingo.errors import PASSING, PeerError, TransientError, UserError, denied, gone, of_peer
from bingo.files import hash_json, read_object
from bingo.launch.job.records import MARKER, newest_saved, read_records
from bingo.launch.job.sent import known_to_start, sent_of
from bingo.launch.job.spec import JobSpec, ReportOf, rank_variables
from bingo.launch.layout import ATTEMPTS, attempt_folder, rank_beat, rank_events
from bingo.paths import quoted
from bingo.recipes import PAGE, RECIPE
from bingo.stages import Stage
from bingo.streams import prepare, tell
from bingo.variables import place, whole
from bingo.watch import Leaving, Watch

DONE, LEFT, USER, TRANSIENT, FAILED = 0, 75, 65, 74, 70
BUSY_S = 120
"""How long to wait for a folder that an earlier attempt holds: its last process may still be dying elsewhere."""
# What gloo and NCCL say of GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME: an interface that is not there.
INTERFACE = re.compile(r"(?i)unable to find (?:address|interface) for:? ?(\S*)|no (?:socket )?interface found")
BEAT_BYTES = 160


class Recorder(Watch):
    """Hears as `Watch` does, and writes what it is told into an attempt's folder. Recording never fails a run.

    The file of the beat has one size, so that it can be written on a full disk and is never seen half empty.
    """

    def __init__(self, attempt: Path, rank: int) -> None:
        super().__init__()
        self.attempt, self.rank = attempt, rank
        self.stage, self.step = "", 0
        self._begun = False
        self._told = 0.0
        with contextlib.suppress(OSError):
            attempt.mkdir(parents=True, exist_ok=True)

    def event(self, name: str, /, **facts: Any) -> None:
        if name == "stage":
            self.stage, self.step, self._begun = facts["name"], 0, False
        line = json.dumps({"time": round(time.time(), 3), "event": name, **facts})
        with contextlib.suppress(OSError), open(rank_events(self.attempt, self.rank), "a") as file:
            file.write(line + "\n")

    def beat(self, step: int) -> None:
        self.step = step
        if not self._begun:
            self._begun = True
            self.event("step", step=step)
        if time.monotonic() - self._told < 1:
            return
        self._told = time.monotonic()
        line = f"{step} {time.time():.3f} {self.stage}".encode()[: BEAT_BYTES - 1].ljust(BEAT_BYTES - 1) + b"\n"
        with contextlib.suppress(OSError):
            descriptor = os.open(rank_beat(self.attempt, self.rank), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(descriptor, line, 0)
            finally:
                os.close(descriptor)

    def saved(self, key: str, out: Path) -> int | None:
        """As the events of this job's attempts say, of which this one is the newest."""
        return newest_saved(self.attempt.parent, key, out) if self.attempt.parent.name == ATTEMPTS else None

    def start(self) -> None:
        """Hear and write from now on, in the log too."""
        self.listen()
        host = os.environ.get("SLURMD_NODENAME", socket.gethostname())
        self.event("start", host=host, pid=os.getpid())
        # All starts of a job append to one log.
        with contextlib.suppress(OSError):  # a log on a full disk
            print(f"{MARKER}{os.environ.get('SLURM_RESTART_COUNT', 0)} on {host}, process {os.getpid()}", flush=True)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def has_written(self) -> bool:
        """Whether this job has worked on before: here, or in an earlier start or as another of its ranks."""
        if self.step or self._begun:
            return True
        starts = self.attempt.parent.glob(f"{self.attempt.name.rpartition('-')[0]}-*")
        worked = ("step", "checkpoint", "resumed", "training", "finished")
        found = (read_records(start).events.values() for start in starts)
        return any(e["event"] in worked for ranks in found for events in ranks for e in events)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """End the process with the exit status of whatever is raised inside."""
        try:
            yield
        except BaseException as error:
            end(self.failed(error))

    def failed(self, error: BaseException) -> int:
        """Record how this rank ended, say it in its log, and return its exit status."""
        if isinstance(error, Leaving):
            tell(str(error))
            return LEFT
        error = in_words(error)
        status, kind = classify(error)
        away = kind in ("user", "exception") and (denied(error) or (kind == "user" and gone(error)))
        if away and self.has_written():
            status, kind = TRANSIENT, "transient"  # a mount that is gone or came back wrong, no mistake of the user's
        text = f"{type(error).__name__}: {error}".strip()
        tell(text if isinstance(error, UserError) else "".join(traceback.format_exception(error)))
        self.event(
            "failed", kind=kind, error=text, step=self.step, stage=self.stage,
            traceback="".join(traceback.format_exception(error)),
        )  # fmt: skip
        return status


def in_words(error: BaseException) -> BaseException:
    """The error, or a sentence in its place where a setting of the machine is behind it."""
    if not (isinstance(error, Exception) and INTERFACE.search(str(error))):
        return error
    names = [name for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if os.environ.get(name)]
    set_to = " and ".join(f"{name}={os.environ[name]}" for name in names) or "GLOO_SOCKET_IFNAME is not set, but"
    there = ", ".join(name for _, name in socket.if_nameindex())
    return UserError(
        f"{set_to}: there is no such network interface on {socket.gethostname()} (there are: {there}); correct it in "
        "[env] of the site file, or leave it out"
    ).with_traceback(error.__traceback__)


def classify(error: BaseException) -> tuple[int, str]:
    """Exit status and kind of a failure; `peer` is what another rank's end does to this one."""
    if isinstance(error, PeerError):
        return FAILED, "peer"
    if isinstance(error, TransientError):
        return TRANSIENT, "transient"
    if isinstance(error, UserError):
        return USER, "user"
    if isinstance(error, OSError) and error.errno in PASSING:
        return TRANSIENT, "transient"
    return FAILED, "peer" if of_peer(error) else "exception"


def main(folder: Path) -> NoReturn:
    """Run this rank's share of the job in `folder`; the process ends here, whatever a destructor would wait for."""
    prepare()
    try:
        os.environ.update(rank_variables())
        rank = place().rank
    except UserError as error:  # whose file could it be recorded in?
        tell(str(error))
        end(USER)
    recorder = Recorder(attempt_folder(folder), rank)
    recorder.start()
    with recorder.ending():
        spec, sent = read_job(folder)
        if spec.report is not None:
            make_report(spec.name, spec.report, recorder)
            end(DONE)
        work(
            spec.task(whole(os.environ, "SLURM_ARRAY_TASK_ID") or 0),
            recorder,
            timeout_s=spec.collective_timeout_s,
            ranks=spec.ranks,
            sent=sent,
        )
    end(DONE)


def read_job(folder: Path) -> tuple[JobSpec, dict[str, Any] | None]:
    """What was sent. Each rank reads it before it knows of others: what one node does not see yet is no user error."""
    try:
        return JobSpec.read(folder), known_to_start(folder)
    except UserError as error:
        if place().size == 1:
            raise
        raise TransientError(str(error)) from error


def work(
    stages: Sequence[Stage], recorder: Recorder, *, timeout_s: int, ranks: int, sent: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Run stages as one rank and return their records. A rank that does not get through them ends its process here:
    to leave the group would wait for ranks that may be gone. sent: see `bingo.launch.job.sent`."""
    with recorder.ending():
        leave_early(recorder)
        from bingo.distributed import world
        from bingo.stages import run_stage

        leave_early(recorder)
        runtime = next((s.config.runtime for s in stages if hasattr(s.config, "runtime")), Runtime())
        with world(runtime, recorder, timeout_s, ranks) as peers, recorder.ending():
            peers.agree("the content of job.json", hash_json([[stage.to_json() for stage in stages], sent]))
            records = [
                run_stage(stage, world=peers, patience_s=BUSY_S, sent=sent and sent_of(sent, stage)) for stage in stages
            ]
    recorder.event("done")
    return records


def make_report(name: str, of: ReportOf, recorder: Recorder) -> None:
    """Write the page about a chain that is done. `UserError` if its recipe.json is another one by now."""
    leave_early(recorder)
    recorder.event("stage", name=name)
    if hash_json(read_object(of.root / RECIPE)) != of.recipe:
        own = f"`bingo report {quoted(of.root)}`"
        raise UserError(f"{of.root / RECIPE} is of another chain by now; {own} makes its page")
    page = importlib.import_module("bingo.bench.report.page")  # by name: jobs and measurements do not know each other
    print("\n".join(page.write_report(of.root, of.root / PAGE)))
    recorder.event("done")


def leave_early(recorder: Recorder) -> None:
    """Before there is work there is nothing to save: whoever is asked to leave during start-up goes at once."""
    if recorder.asked:
        recorder.event("left", step=None, signal=recorder.asked)
        raise Leaving(f"left before it had started because of {recorder.asked}")


def end(status: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
