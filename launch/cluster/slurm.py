"""Asks Slurm: one squeue and one sacct per 10 s, however many calls and processes want to know.

squeue with `-t all` is the controller's own memory and always right: jobs that wait or run, and for MinJobAge (300 s by
default) those that ended. `sacct -D` has one row per attempt, but is a second late, shows no job that never became
eligible when asked by time, and some clusters have none. What both said is kept in a file of the cache folder, where
there is one.
"""

import contextlib
import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bingo.errors import TransientError, UserError
from bingo.files import hash_json, read_object, write_json
from bingo.launch.cluster.environment import clean_environment
from bingo.variables import cache_folder

INTERVAL_S = 10.0
NOWHERE = Path(os.devnull)  # no file can be made below it
_unwritten: dict[Path, dict[str, Any]] = {}
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
RUNNING = frozenset(
    {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
)
QUEUE_FIELDS = (
    "JobArrayID", "State", "Reason", "SubmitTime", "EligibleTime", "StartTime", "EndTime",
    "RestartCnt", "NodeList", "exit_code",
)  # fmt: skip
PAST_FIELDS = ("JobID", "State", "Reason", "Submit", "Eligible", "Start", "End", "NodeList", "ExitCode")
NOTHING = ("", "N/A", "None", "NONE", "Unknown", "(null)", "None assigned")


@dataclass(frozen=True)
class Row:
    """A job (or array task: id `12_3`) as squeue or sacct shows it; times in Unix seconds, None: not known.

    state: one word such as `PENDING`; reason: Slurm's word for why it waits or ended, "" for none; start: of a pending
    job Slurm's estimate; exit_code, signal: of the batch script.
    """

    id: str
    state: str
    reason: str = ""
    submit: float | None = None
    eligible: float | None = None
    start: float | None = None
    end: float | None = None
    restarts: int = 0
    nodes: str = ""
    exit_code: int = 0
    signal: int = 0

    @property
    def alive(self) -> bool:
        """It waits, runs, or will run again. NODE_FAIL, PREEMPTED and the like are ends only in squeue's own row."""
        return self.state in WAITING | RUNNING


@dataclass(frozen=True)
class Snapshot:
    """What the scheduler said at `time` about the jobs that were submitted since `since`."""

    time: float
    since: float = 0.0
    queue: dict[str, Row] | None = None
    """Jobs by id; None: squeue gave no answer, so that a job that is missing may well run."""
    past: dict[str, tuple[Row, ...]] | None = None
    """Attempts by job, oldest first; None: there is no accounting, or it gave no answer."""
    problems: tuple[str, ...] = field(default=())
    """A sentence for each of the two that did not answer."""


PAUSES_S = (2.0, 6.0, 12.0)
"""Between the tries of a command that can wait for the controller: each takes about ten seconds where there is none."""
# What commands of Slurm say, 22.05 to 25.05, when the controller (or its database, network, munge) is away, busy or
# changing places.
AWAY = re.compile(
    r"(?i)unable to contact slurm|(?:connect|connection|shutdown|message send|message receive) failure|"
    r"connection (?:refused|reset|limit)|timed out|zero bytes were transmitted|standby mode|"
    r"unexpected message received|transport endpoint is not connected|slurm_load_\w+ error: unable|"
    r"insane message length|header lengths are longer|protocol authentication error|"
    r"invalid authentication credential|munge \w+ failed|no route to host|network is unreachable"
)


def run(words: list[str], timeout: float = 60.0, pauses: Sequence[float] = ()) -> str:
    """Standard output of a Slurm command, with times as Unix seconds; `UserError`, one sentence, if it fails.

    `TransientError` where the controller does not answer; it is tried again after each of `pauses` seconds.
    """
    for pause in pauses:
        try:
            return _run(words, timeout)
        except TransientError:
            time.sleep(pause)
    return _run(words, timeout)


def _run(words: list[str], timeout: float) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
            env={**clean_environment(), "SLURM_TIME_FORMAT": "%s"},
        )  # fmt: skip
    except OSError:
        raise UserError(
            f"no Slurm here ({words[0]} is not on PATH); go to a login node of the cluster, or load its Slurm module"
        ) from None
    except subprocess.TimeoutExpired:
        raise TransientError(f"`{words[0]}` gave no answer in {timeout:.0f} s; {LATER}") from None
    if done.returncode:
        said = done.stderr or done.stdout
        raise (TransientError if AWAY.search(said) else UserError)(explain(words[0], said))
    return done.stdout


LATER = "jobs that run go on by themselves, ask again in a minute"


def explain(command: str, text: str) -> str:
    """What a failed Slurm command printed, as one sentence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lower = text.lower()
    if "configuration source" in lower or "fetch_config" in lower:
        return "Slurm is installed here but knows no cluster (no slurm.conf); go to a login node, or set SLURM_CONF"
    if "accounting storage is disabled" in lower or "accounting_storage/none" in lower:
        return "this cluster keeps no accounting (sacct: Slurm accounting storage is disabled)"
    if command in ("sacct", "sacctmgr") and ("refused" in lower or "slurmdbd" in lower or "database" in lower):
        return f"the accounting of this cluster does not answer now ({lines[-1]})"
    if AWAY.search(text) or "slurm_load_jobs" in lower:
        return f"the controller of this cluster does not answer now ({lines[-1]}); {LATER}"
    return f"`{command}` failed: {' / '.join(lines[:3]) or 'it printed no reason'}"


def ask(since: float, newer: float = 0.0, uid: int | None = None) -> Snapshot:
    """The state of all jobs of a user (default: this one) that were submitted at or after `since`, at most 10 s old.

    newer: the answer must be at least this new, such as the time at which a job was submitted. If what is known is not,
    or does not reach back to `since`, this waits until 10 s have passed since the scheduler was asked last.
    """
    uid = os.getuid() if uid is None else uid
    newer = min(newer, time.time())  # the clock of the machine that submitted may be ahead
    path = _cache_path(uid)
    while True:
        known = _read(path)
        rest = 0.0 if known is None else min(known["answered"] - time.time() + INTERVAL_S, INTERVAL_S)
        if known and rest > 0 and known["since"] <= since and known["time"] >= newer:
            return snapshot(known)
        if rest > 0:
            time.sleep(rest)
            continue
        with _lock(path):
            if _read(path) == known:  # otherwise another process has asked meanwhile
                said = query(since if known is None else min(since, known["since"]), uid)
                _write(path, said)
                return snapshot(said)


def query(since: float, uid: int) -> dict[str, Any]:
    """Ask squeue, then sacct, now: {time, answered, since, squeue, sacct, problems}; None for one without an answer."""
    began = time.time()
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
    commands = {
        "squeue": ["-r", "-h", "-a", "-t", "all", "-O", ",".join(f"{name}:|" for name in QUEUE_FIELDS)],
        "sacct": ["-D", "-X", "-n", "-P", "-S", start, "-o", ",".join(PAST_FIELDS)],
    }
    said: dict[str, str | None] = {}
    problems = []
    for name, words in commands.items():
        try:
            said[name] = run([name, "-u", str(uid), *words])
        except UserError as error:
            said[name] = None
            problems.append(str(error))
    problems = problems[:1] if problems and problems[0].startswith("no Slurm") else problems
    return {"time": began, "answered": time.time(), "since": since, **said, "problems": problems}


def snapshot(said: dict[str, Any]) -> Snapshot:
    """A `query`'s answer, parsed."""
    queue = None if said["squeue"] is None else parse_queue(said["squeue"])
    past = None if said["sacct"] is None else parse_past(said["sacct"])
    return Snapshot(said["time"], said["since"], queue, past, tuple(said["problems"]))


def parse_queue(text: str) -> dict[str, Row]:
    """squeue's rows by job id; lines that are no rows (names of clusters, warnings) are passed over."""
    rows = {}
    for line in text.splitlines():
        values = [value.strip() for value in line.split("|")][:-1]
        if len(values) == len(QUEUE_FIELDS):
            status = _number(values[9])  # as wait() has it: the exit code in the high byte, the signal in the low one
            row = replace(_row(values[:7]), restarts=_number(values[7]), nodes=_word(values[8]))
            rows[row.id] = replace(row, exit_code=status >> 8, signal=status & 127)
    return rows


def parse_past(text: str) -> dict[str, tuple[Row, ...]]:
    """sacct's rows by job id, each job's attempts oldest first; tasks that still wait in one row (`12_[3-9]`) too."""
    found: dict[str, list[Row]] = {}
    for line in text.splitlines():
        values = [value.strip() for value in line.split("|")]
        if len(values) == len(PAST_FIELDS):
            exit_code, _, signal = values[8].partition(":")
            row = replace(_row(values[:7]), nodes=_word(values[7]))
            row = replace(row, exit_code=_number(exit_code), signal=_number(signal))
            found.setdefault(row.id, []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row.submit or 0)
    return {job: tuple(replace(row, restarts=n) for n, row in enumerate(rows)) for job, rows in found.items()}


def _row(values: list[str]) -> Row:
    submit, eligible, start, end = (float(_number(value)) or None for value in values[3:])
    return Row(values[0], values[1].split(" ")[0], _word(values[2]), submit, eligible, start, end)


def _number(value: str) -> int:
    return int(value) if value.isdigit() else 0


def _word(value: str) -> str:
    return "" if value in NOTHING else value


def _cache_path(uid: int) -> Path:
    """One file per cluster and user asked about."""
    cluster = [os.environ.get("SLURM_CONF"), uid]
    return (cache_folder() or NOWHERE) / f"slurm-{hash_json(cluster)[:12]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    """What was answered last; None for never, for a damaged file, and for one from the future or of long ago."""
    number, text = (int, float), (str, type(None))
    fields = {"answered": number, "since": number, "time": number, "squeue": text, "sacct": text, "problems": list}
    with contextlib.suppress(UserError):
        known = _unwritten.get(path) or read_object(path, fields)
        said = known["squeue"] is not None or (known["problems"] and isinstance(known["problems"][0], str))
        said = said and 0 <= known["since"] < 1e11  # a calendar can show it
        return known if said and -1 < time.time() - known["answered"] < 600 else None
    return None


def _write(path: Path, answer: dict[str, Any]) -> None:
    """Keep an answer, for this process alone where there is no folder for it or no room."""
    try:
        write_json(path, answer)
        _unwritten.pop(path, None)
    except UserError:
        _unwritten[path] = answer


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait until no other process asks; where the file system has no locks, two may ask at once."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(open(path.with_suffix(".lock"), "a")), fcntl.LOCK_EX)
        yield
