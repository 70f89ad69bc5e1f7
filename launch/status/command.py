"""`bingo status`, `bingo logs`, `bingo history`: flags, a root's newest submission, tables and JSON."""

import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo.arguments import Parser, between, whole
from bingo.errors import UserError, did_you_mean
from bingo.launch.cluster import slurm
from bingo.launch.cluster.reasons import clock
from bingo.launch.layout import SUBMISSIONS
from bingo.launch.status.attempts import some
from bingo.launch.status.states import State, look, states
from bingo.launch.status.summary import Summary, summary_of, table
from bingo.launch.status.watch import PERIOD_S, Objects, Report, Rounds, watch
from bingo.launch.submit.repair import of_root
from bingo.launch.submit.submission import Submission, read, submissions
from bingo.paths import quoted
from bingo.streams import tell

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SUBMISSION = "another submission than the newest (default: the newest)"


def status_flags() -> Parser:
    parser = Parser("bingo status", "What every job of a chain does now, and why.", "bingo status runs/digits")
    root = "the folder of the chain (default: every one below runs/)"
    parser.add_argument("root", type=Path, nargs="?", metavar="ROOT", help=root)
    parser.add_argument("--submission", metavar="ID", help=SUBMISSION)
    parser.add_argument("--json", action="store_true", help="print JSON")
    again = f"look again every so often until all has ended (default: {PERIOD_S} s); Ctrl-C ends it"
    parser.add_argument("--watch", nargs="?", type=between(1, 86_400), const=PERIOD_S, metavar="SECONDS", help=again)
    told = "run the site file's `notify` for a chain that failed, is stuck or is done, once each"
    parser.add_argument("--notify", action="store_true", help=told)
    return parser


def status(argv: list[str]) -> int:
    """`bingo status [ROOT] [--submission ID] [--json] [--watch [SECONDS]] [--notify]`: 0 fine, 1 something failed or
    somebody must act."""
    options = status_flags().parse_args(_folder_is_no_period(argv))
    if options.submission and options.root is None:
        raise UserError("--submission needs the folder that it is in: bingo status ROOT --submission ID")
    if options.watch:
        rounds = Rounds(lambda: roots(options.root), lambda root: _look(root, options))
        return watch(rounds, page, options.watch, show=show, lines=Objects(as_json) if options.json else None)
    reports, broken = [], []
    for root in roots(options.root):
        try:
            reports.append(_look(root, options))
        except UserError as error:
            if options.root is not None:
                raise
            broken.append(str(error))  # and the other chains are told of
    if options.json:
        values = [as_json(*each) for each in reports]
        print(json.dumps(values if options.root is None else values[0], indent=2))
    else:
        for each in reports:
            show(each)
    for text in broken:
        tell(f"bingo status: {text}")
    return 0 if all(found.fine for _, _, _, found in reports) and not broken else 1


def _look(root: Path, options: Any) -> Report:
    """The report on a root that the flags of `status` ask for."""
    submission = submission_of(root, options.submission)
    if not options.notify:
        return report(root, submission)
    from bingo.launch.status.notify import command_of, noted

    if options.root is not None and not command_of(submission):
        site = submission.folder / "site.toml"
        raise UserError(f'{site} has no notify; write one above its first table: notify = "COMMAND" (docs/cluster.md)')
    return noted(report(root, submission))


def _folder_is_no_period(argv: Sequence[str]) -> list[str]:
    """Between `--watch` and a word that is no number stands the period that is meant: `status --watch runs/digits`."""
    words = []
    for word, after in itertools.zip_longest(argv, argv[1:], fillvalue="-"):
        plain = word == "--watch" and not (after.startswith("-") or re.fullmatch(r"[\d.]+", after))
        words.append(f"--watch={PERIOD_S}" if plain else word)
    return words


def roots(root: Path | None) -> list[Path]:
    """The root that is asked for, or all below runs/ that hold a submission."""
    if root is not None:
        return [root]
    found = [path.parent for path in sorted(Path("runs").glob(f"*/{SUBMISSIONS}")) if submissions(path.parent)]
    if not found:
        raise UserError("no submission below runs/; name the folder of one: bingo status ROOT")
    return found


def submission_of(root: Path, wanted: str | None = None) -> Submission:
    """The newest submission of a root, or the one with this id."""
    if wanted is None:
        return of_root(root)
    found = {folder.name: folder for folder in submissions(root)}
    if wanted not in found:
        raise UserError(f"{root} holds no submission {wanted!r}; {did_you_mean(wanted, found)}")
    return read(found[wanted])


def report(root: Path, submission: Submission) -> Report:
    """Ask the scheduler and judge every job."""
    snapshot = look(submission)
    found = states(submission, snapshot, time.time())
    summary = summary_of(found, root)
    if submission.folder != submissions(root)[0]:  # repair and cancel go on with the newest
        logs = (f"{word} --submission {submission.id}" for word in summary.next if word.startswith("bingo logs "))
        summary = summary._replace(next=tuple(logs))
    return submission, _with_lost(submission, snapshot), found, summary


def as_json(
    submission: Submission, snapshot: slurm.Snapshot, found: Sequence[State], summary: Summary
) -> dict[str, Any]:
    """Stable keys: more may come, none of these goes."""
    return {
        "root": str(submission.root),
        "submission": submission.id,
        "time": snapshot.time,
        "state": summary.state,
        "verdict": summary.line,
        "next": list(summary.next),
        "problems": list(snapshot.problems),
        "jobs": [asdict(state) for state in found],
    }


def show(report: Report) -> None:
    """A table on a terminal, plain rows elsewhere; then the summary."""
    _, _, found, summary = report
    now = time.time()
    print(_head(report, now))
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_grid(found, now))
    else:
        for row in table(found, now):
            print(f"{row.job:22s} {row.state:12s} {row.time:12s} {row.nodes:10s} {row.text}".rstrip())
    for line in (*_notes(_problems(report)), *_verdict(summary)):
        print(line)


def _head(report: Report, now: float) -> str:
    submission, snapshot, *_ = report
    return f"{submission.root}  submission {submission.id}, as of {clock(snapshot.time, now)}"


def _notes(problems: Sequence[str]) -> list[str]:
    return [f"note: {problem}" for problem in problems]


def _problems(report: Report) -> list[str]:
    """What Slurm did not answer, and which files are damaged."""
    return [*report[1].problems, *some(note for state in report[2] for note in state.notes)]


def _with_lost(submission: Submission, snapshot: slurm.Snapshot) -> slurm.Snapshot:
    """With a sentence where jobs may run that the submission does not know any more."""
    lost = submission.lost()
    told = f"{lost}; `bingo repair {quoted(submission.root)}` asks Slurm for it and goes on with the rest"
    return replace(snapshot, problems=(*snapshot.problems, told)) if lost else snapshot


def _verdict(summary: Summary) -> list[str]:
    return [summary.line, *(["next: " + "   or   ".join(summary.next)] if summary.next else [])]


def _grid(found: Sequence[State], now: float) -> "Table":
    """The rows of a chain as a table as wide as the terminal."""
    from rich.table import Table
    from rich.text import Text

    grid = Table("job", "state", "time", "nodes", "", box=None, pad_edge=False, header_style="bold")
    for row in table(found, now):
        grid.add_row(*(Text(cell) for cell in row))
    return grid


def page(reports: Sequence[Report], problems: Sequence[str]) -> "RenderableType":
    """All chains on one screen; what must not be cut off at its end stands before the tables."""
    from rich.console import Group
    from rich.text import Text

    now = time.time()
    parts: list[RenderableType] = [Text(line) for line in _notes(problems)]
    for each in reports:
        _, _, found, summary = each
        head = (_head(each, now), *_notes(_problems(each)), *_verdict(summary))
        parts += [*(Text(line) for line in head), _grid(found, now), Text("")]
    return Group(*parts)


def logs_flags() -> Parser:
    about = "What the ranks and the batch script of a job printed."
    parser = Parser("bingo logs", about, "bingo logs runs/digits teacher --rank 0")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder of the chain")
    job = "a job, or a task of it as JOB[3] (default: what runs or failed last)"
    parser.add_argument("job", nargs="?", metavar="JOB", help=job)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the chain has ended")
    parser.add_argument("--rank", type=whole, metavar="R", help="this rank alone (default: all)")
    attempt = "the lines of start N of `bingo history` (default: all)"
    parser.add_argument("--attempt", type=whole, metavar="N", help=attempt)
    parser.add_argument("--submission", metavar="ID", help=SUBMISSION)
    return parser


def logs(argv: list[str]) -> int:
    """`bingo logs ROOT [JOB] [--rank R] [-f] [--attempt N]`."""
    options = logs_flags().parse_args(argv)
    if options.follow and options.attempt is not None:
        raise UserError("--attempt names one start, and --follow goes on with the next: leave one of them out")
    from bingo.launch.status.logs import show_logs

    try:
        return show_logs(options, submission_of(options.root, options.submission))
    except KeyboardInterrupt:
        return 130


def history_flags() -> Parser:
    about = "Every start of every job: where its time went, what was lost, why it ended."
    parser = Parser("bingo history", about, "bingo history runs/digits teacher")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder of the chain")
    parser.add_argument("job", nargs="?", metavar="JOB", help="this job alone (default: all)")
    parser.add_argument("--submission", metavar="ID", help=SUBMISSION)
    parser.add_argument("--all", action="store_true", help="every submission of this folder, and the hours of all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def history(argv: list[str]) -> int:
    """`bingo history ROOT [JOB] [--submission ID | --all] [--json]`."""
    options = history_flags().parse_args(argv)
    if options.all and options.submission:
        raise UserError("--submission names one, and --all means every one: leave one of them out")
    from bingo.launch.status.history import show_history

    chosen = [submission_of(options.root, options.submission)]
    if options.all:
        chosen = [read(folder) for folder in reversed(submissions(options.root))]
    return show_history(chosen, options.job, options.json)
