"""`bingo status`, `bingo logs`, `bingo history`: flags, a root's newest submission, tables and JSON."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bingo.arguments import Parser, whole
from bingo.errors import UserError, did_you_mean
from bingo.launch.cluster import slurm
from bingo.launch.cluster.reasons import clock
from bingo.launch.layout import SUBMISSIONS
from bingo.launch.status.states import State, look, states
from bingo.launch.status.summary import Summary, summary_of, table
from bingo.launch.submit.repair import of_root
from bingo.launch.submit.submission import Submission, read, submissions

SUBMISSION = "another submission than the newest (default: the newest)"


def status_flags() -> Parser:
    parser = Parser("bingo status", "What every job of a chain does now, and why.", "bingo status runs/digits")
    root = "the folder of the chain (default: every one below runs/)"
    parser.add_argument("root", type=Path, nargs="?", metavar="ROOT", help=root)
    parser.add_argument("--submission", metavar="ID", help=SUBMISSION)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def status(argv: list[str]) -> int:
    """`bingo status [ROOT] [--submission ID] [--json]`: 0 fine, 1 something failed or somebody must act."""
    options = status_flags().parse_args(argv)
    if options.submission and options.root is None:
        raise UserError("--submission needs the folder that it is in: bingo status ROOT --submission ID")
    chosen = [(root, submission_of(root, options.submission)) for root in roots(options.root)]
    reports = [report(root, submission) for root, submission in chosen]
    if options.json:
        values = [as_json(*each) for each in reports]
        print(json.dumps(values if options.root is None else values[0], indent=2))
    else:
        for each in reports:
            show(*each)
    return 0 if all(found.fine for _, _, _, found in reports) else 1


def roots(root: Path | None) -> list[Path]:
    """The root that is asked for, or all below runs/ that hold a submission."""
    if root is not None:
        return [root]
    found = sorted({path.parent.parent.parent for path in Path("runs").glob(f"*/{SUBMISSIONS}/*/submission.json")})
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


Report = tuple[Submission, slurm.Snapshot, list[State], Summary]


def report(root: Path, submission: Submission) -> Report:
    """Ask the scheduler and judge every job."""
    snapshot = look(submission)
    found = states(submission, snapshot, time.time())
    return submission, snapshot, found, summary_of(found, root)


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


def show(submission: Submission, snapshot: slurm.Snapshot, found: Sequence[State], summary: Summary) -> None:
    """A table on a terminal, plain rows elsewhere; then the summary."""
    now = time.time()
    rows = table(found, now)
    print(f"{submission.root}  submission {submission.id}, as of {clock(snapshot.time, now)}")
    if sys.stdout.isatty():
        show_table(("job", "state", "time", "nodes", ""), rows)
    else:
        for row in rows:
            print(f"{row.job:22s} {row.state:12s} {row.time:12s} {row.nodes:10s} {row.text}".rstrip())
    for problem in snapshot.problems:
        print(f"note: {problem}")
    print(summary.line)
    if summary.next:
        print("next: " + "   or   ".join(summary.next))


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows as a table as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    Console().print(grid)


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
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def history(argv: list[str]) -> int:
    """`bingo history ROOT [JOB] [--submission ID] [--json]`."""
    options = history_flags().parse_args(argv)
    from bingo.launch.status.history import show_history

    return show_history(submission_of(options.root, options.submission), options.job, options.json)
