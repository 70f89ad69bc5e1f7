"""`bingo logs`: what ranks and batch script of a job printed, across its starts; -f follows the chain.

Lines come from the shared folder alone. The scheduler is asked, at most once per 10 s, which job is meant and whether
the chain has ended.
"""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bingo.errors import UserError, did_you_mean
from bingo.files import open_file
from bingo.launch.cluster import slurm
from bingo.launch.job.records import MARKER, MOST_LINE
from bingo.launch.status.attempts import read_attempts
from bingo.launch.status.states import State, look, states
from bingo.launch.status.summary import name, summary_of
from bingo.launch.submit.submission import Submission

POLL_S = 0.5
TAIL_LINES = 20
TAIL_BYTES = 65_536
LIVE = ("running", "starting", "ending")
PENDING = ("requeued", "waiting", "unknown")
FILE = re.compile(r"(?P<id>\d+(_\d+)?|local)_(?:(?P<rank>\d+)_log\.out|batch\.log)")


class Source:
    """One log file that is read as it grows, never more of it than a line. A half-written last line waits for its end;
    one that is longer than `MOST_LINE` bytes comes in pieces."""

    def __init__(self, path: Path, label: str, slurm_id: str) -> None:
        self.path, self.label, self.slurm_id = path, label, slurm_id
        self.place, self.part = 0, b""

    def lines(self) -> Iterator[str]:
        """Lines that are new since the last call."""
        with contextlib.suppress(OSError), open_file(self.path) as file:
            file.seek(self.place)
            while new := file.readline(MOST_LINE - len(self.part)):
                self.place += len(new)
                self.part += new
                if new.endswith(b"\n") or len(self.part) >= MOST_LINE:
                    line, self.part = self.part.removesuffix(b"\n"), b""
                    yield f"{self.label} | {line.decode(errors='replace')}"

    def rest(self) -> Iterator[str]:
        """A last line without its end."""
        if self.part:
            yield f"{self.label} | {self.part.decode(errors='replace')}"
            self.part = b""


def show_logs(options: Any, submission: Submission) -> int:
    """Print the logs that the options of `bingo logs` ask for; 1 if there are none yet."""
    if options.follow:
        return follow(options, submission)
    found = ask(submission)
    chosen = choose(options.job, found)
    sources = list(find(submission, chosen, options.rank))
    if not sources:
        print(f"{name(chosen)} has printed nothing yet: {chosen.state}, {chosen.text}")
        return 1
    start = None if options.attempt is None else nth_start(submission, chosen, options.attempt)
    for source in sources:
        for line in of_start(source, start):
            print(line)
    return 0


def nth_start(submission: Submission, state: State, wanted: int) -> tuple[str, int]:
    """Slurm's id and the restart count of the start that `bingo history` gives this number."""
    at = state.task or 0
    lines = [line for line in submission.sent() if line.job == state.job and at in line.tasks]
    starts = read_attempts(submission.job_folder(state.job), lines, state.task, None)
    if not 1 <= wanted <= len(starts):
        raise UserError(f"{name(state)} has started {len(starts)} times: there is no start {wanted}; see bingo history")
    return starts[wanted - 1].slurm_id, starts[wanted - 1].restart


def ask(submission: Submission) -> list[State]:
    """The state of every job, at most 10 s old."""
    return states(submission, look(submission), time.time())


def choose(wanted: str | None, found: Sequence[State]) -> State:
    """The job (or task: `sweep[3]`) that is asked for; else the newest that runs, then failed, then started last."""
    if wanted is not None:
        named = [state for state in found if wanted in (state.job, name(state), name(state).replace(" [", "["))]
        if not named:
            raise UserError(f"no job {wanted!r} here; {did_you_mean(wanted, [state.job for state in found])}")
        found = named
    for kinds in (LIVE, ("failed",), ("requeued",)):
        if fitting := [state for state in found if state.state in kinds]:
            return max(fitting, key=lambda state: state.since or 0)
    started = [state for state in found if state.attempts]
    return max(started or found[:1], key=lambda state: state.since or 0)


def find(submission: Submission, state: State, rank: int | None) -> Iterator[Source]:
    """The log files of a job or task: the batch script's first, then the ranks'."""
    folder = submission.job_folder(state.job)
    files = [(match, path) for path in folder.glob("*") if (match := FILE.fullmatch(path.name))]
    for match, path in sorted(files, key=lambda pair: (_changed(pair[1]), int(pair[0]["rank"] or -1))):
        task = match["id"].partition("_")[2]
        ours = state.task is None or task == str(state.task)
        if ours and (rank is None or match["rank"] == str(rank)):
            label = "batch" if match["rank"] is None else f"rank {match['rank']}"
            yield Source(path, f"{name(state)} {label}", match["id"])


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # a link that leads nowhere: there is nothing to print
        return 0.0


def of_start(source: Source, start: tuple[str, int] | None) -> Iterator[str]:
    """The lines of a log; of one start alone where that is asked for: all starts of a job append to the same file."""
    at = None
    for line in itertools.chain(source.lines(), source.rest()):
        text = line.partition(" | ")[2]
        if begins := re.match(MARKER + r"(\d{1,9}) ", text):
            at = int(begins[1])
        if start is None or (source.slurm_id, at) == start:
            yield line


def follow(options: Any, submission: Submission) -> int:
    """Print what is written from now on, with the last lines before it, until the chain (or the job) has ended."""
    sources: dict[Path, Source] = {}
    asked = float("-inf")
    while True:
        first = asked < 0
        if time.monotonic() - asked > slurm.INTERVAL_S:
            found, asked = ask(submission), time.monotonic()
            mine = [choose(options.job, found)] if options.job else found
            over = not any(state.state in (*LIVE, *PENDING) for state in mine)
        for state in mine:
            for source in find(submission, state, options.rank):
                if source.path not in sources:
                    sources[source.path] = source
                    if first:
                        skip_to_tail(source, state.state in LIVE or over)
        for source in sources.values():
            for line in source.lines():
                print(line, flush=True)
        if over:
            for source in sources.values():
                for line in source.rest():
                    print(line, flush=True)
            told = summary_of(found, submission.root)
            print(told.line, flush=True)
            return 0 if told.fine else 1
        time.sleep(POLL_S)


def skip_to_tail(source: Source, fresh: bool) -> None:
    """Begin with the last lines of a job that runs; a job that ended earlier has been seen, or can be asked for."""
    with contextlib.suppress(OSError), open_file(source.path) as file:
        source.place = file.seek(0, os.SEEK_END)
        if fresh:
            begin = file.seek(max(0, source.place - TAIL_BYTES))
            data = file.read(source.place - begin)
            source.place -= sum(map(len, data.splitlines(keepends=True)[-TAIL_LINES:]))
