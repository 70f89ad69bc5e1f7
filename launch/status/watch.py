"""`bingo status --watch`: the same page again and again on a terminal, a line for every change elsewhere.

It ends when every job has ended. Until then nothing stops it but the user: neither a scheduler that gives no answer nor
a folder that cannot be read for a while, as both come back.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo.errors import TransientError, UserError, escaped, file_error
from bingo.launch.cluster.slurm import Snapshot
from bingo.launch.status.attempts import some
from bingo.launch.status.states import DONE, State
from bingo.launch.status.summary import Summary, table
from bingo.launch.submit.submission import Submission

if TYPE_CHECKING:
    from rich.console import RenderableType

ENDED = (*DONE, "failed", "cancelled", "never sent")
PERIOD_S = 10
Report = tuple[Submission, Snapshot, list[State], Summary]
Look = Callable[[Path], Report]


class Rounds:
    """Looks at the folders of chains, time after time; where one cannot be read the last report stands.

    look: reads one; roots: which there are now.
    """

    def __init__(self, roots: Callable[[], Sequence[Path]], look: Look) -> None:
        self.roots, self.look = roots, look
        self.known: dict[Path, Report] = {}
        self.problems: tuple[str, ...] = ()
        """A sentence for each folder that could not be read in the last round."""

    def next(self) -> list[Report]:
        """The newest report of every chain. `UserError` only where nothing could be read yet and time mends nothing."""
        problems = []
        try:
            found = list(self.roots())
        except (UserError, OSError) as error:
            found = []
            problems.append(self._sentence(error))
        for root in dict.fromkeys([*self.known, *found]):  # one that is missing now has not ended
            try:
                self.known[root] = self.look(root)
            except (UserError, OSError) as error:
                problems.append(self._sentence(error, root))
        self.problems = tuple(problems)
        return list(self.known.values())

    def _sentence(self, error: Exception, root: Path | None = None) -> str:
        told = error
        if isinstance(error, OSError):
            told = file_error(error, f"cannot read {error.filename or root}: {error.strerror or error}")
        seen = bool(self.known) if root is None else root in self.known
        if not (seen or isinstance(told, TransientError)):
            raise told
        return str(told)


def over(reports: Sequence[Report]) -> bool:
    """Whether every job has ended; one that is stuck has not, since somebody may yet let it go."""
    return bool(reports) and all(state.state in ENDED for _, _, found, _ in reports for state in found)


def watch(
    rounds: Rounds,
    page: Callable[[Sequence[Report], Sequence[str]], "RenderableType"],
    every: float = PERIOD_S,
    *,
    show: Callable[[Report], None],
    lines: Callable[[Sequence[Report], Sequence[str]], Iterable[str]] | None = None,
) -> int:
    """Show what becomes of chains until all jobs have ended; exit status 0 if all ended well, 1 if not, 130 on Ctrl-C.

    page: all reports and problems for a terminal; show: prints a last report there; lines: what to print of a round
    (default: `Changes`, or the page where standard output is a terminal). every: seconds between two looks.
    """
    from rich.console import Console

    console = Console()
    reports: list[Report] = []
    try:
        if lines is None and console.is_terminal and not console.is_dumb_terminal:
            from rich.live import Live

            # A screen of its own: after a change of the terminal's size nothing of the old page is left standing.
            with Live(console=console, screen=True, auto_refresh=False) as live:
                for reports in _until_over(rounds, every):
                    live.update(page(reports, rounds.problems), refresh=True)
        else:
            lines = lines or Changes()
            for reports in _until_over(rounds, every):
                for line in lines(reports, rounds.problems):
                    print(line, flush=True)
    except KeyboardInterrupt:
        status = 130
    else:
        status = _status(reports)
    for report in reports if lines is None else ():
        show(report)
    return status


def _until_over(rounds: Rounds, every: float) -> Iterator[list[Report]]:
    while True:
        reports = rounds.next()
        yield reports
        if over(reports) and not rounds.problems:
            return
        time.sleep(every)


def _status(reports: Sequence[Report]) -> int:
    return 0 if all(summary.fine for *_, summary in reports) else 1


class Changes:
    """What is new since the last round, as lines with the time of day."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.jobs: dict[tuple[Path, str, int | None], tuple[Any, ...]] = {}
        self.verdicts: dict[Path, str] = {}
        self.problems: set[str] = set()

    def __call__(self, reports: Sequence[Report], problems: Sequence[str]) -> Iterator[str]:
        """The lines of a round: jobs in another state, verdicts on chains, problems that came or went."""
        now = self.clock()
        at = time.strftime("%H:%M:%S", time.localtime(now))
        for report in reports:
            submission, _, found, summary = report
            where = f"{submission.root}  " if len(reports) > 1 else ""
            for row in table([state for state in found if self._changed(submission, state)], now):
                words = f"{where}{row.job:22s} {row.state:12s} {row.nodes:10s} {row.text}"
                yield escaped(f"{at}  {words}".rstrip())
            if self.verdicts.get(submission.root) != summary.state:
                self.verdicts[submission.root] = summary.state
                yield escaped(f"{at}  {where}{summary.line}")
        damaged = some(note for _, _, found, _ in reports for state in found for note in state.notes)
        told = {problem for _, snapshot, *_ in reports for problem in snapshot.problems} | {*damaged, *problems}
        yield from (escaped(f"{at}  note: {problem}") for problem in sorted(told - self.problems))
        yield from (escaped(f"{at}  no longer: {problem}") for problem in sorted(self.problems - told))
        self.problems = told

    def _changed(self, submission: Submission, state: State) -> bool:
        """Steps, losses and expected times change all the time: they are no news."""
        why = state.text.partition(";")[0] if state.state in ("waiting", "stuck", "failed", "cancelled") else ""
        news = (submission.id, state.state, state.attempts, state.stage, why)
        key = (submission.root, state.job, state.task)
        changed = self.jobs.get(key) != news
        self.jobs[key] = news
        return changed


class Objects:
    """A line of JSON, as `status --json` has it, whenever `Changes` would print something."""

    def __init__(self, as_json: Callable[..., Mapping[str, Any]]) -> None:
        self.as_json, self.changes = as_json, Changes()

    def __call__(self, reports: Sequence[Report], problems: Sequence[str]) -> Iterator[str]:
        import json

        if list(self.changes(reports, problems)):
            for report in reports:
                value = dict(self.as_json(*report))
                yield json.dumps({**value, "problems": [*value["problems"], *problems]})
