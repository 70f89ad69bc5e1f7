"""`bingo prune`: deletes old submissions with their snapshots and logs, and only shows them until it is told `--yes`.

A submission goes as a whole, or stays because it holds a file that the suite did not write. The newest one (it can be
repaired), those whose jobs may run and all results stay too. A folder gets a hidden name before it is deleted, so that
one of which half is gone is never taken for a submission; the next `bingo prune` deletes what is left of it.
"""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.arguments import Parser, positive, size
from bingo.aside import own_files
from bingo.errors import UserError
from bingo.files import sync_folder
from bingo.launch.layout import KNOWN, SUBMISSIONS
from bingo.launch.status.command import roots
from bingo.launch.status.states import SILENCE_S
from bingo.launch.submit.repair import of_root
from bingo.launch.submit.send import alive, writing
from bingo.launch.submit.submission import Submission, read, submissions
from bingo.progress import duration

ID = r"(?P<when>\d{8}-\d{6})(-\d+)?"
REST = re.compile(rf"\.{ID}\.(pruned|staged)")
"""What an interrupted `prune`, or a `submit` that was killed, left behind where only one of them writes at a time."""
REPLACED = re.compile(rf"(?P<name>.+)\.replaced-{ID}")
"""What `--replace` has moved aside: results of before, with whatever else lay in their folder."""
PRUNED = "pruned"
DAY_S = 86_400


@dataclass(frozen=True)
class Item:
    """A folder that goes, or (kept: why) stays."""

    path: Path
    what: str
    bytes: int
    kept: str = ""


def prune_flags() -> Parser:
    about = "Delete old submissions, with their snapshots of the code and their logs. Results are never touched."
    parser = Parser("bingo prune", about, "bingo prune runs/digits --older-than 30")
    parser.add_argument("root", type=Path, nargs="?", metavar="ROOT", help="default: every one below runs/")
    keep = "so many of the newest submissions stay (default: 1, the least)"
    parser.add_argument("--keep", type=size, default=1, metavar="N", help=keep)
    parser.add_argument("--older-than", type=positive, default=0.0, metavar="DAYS", help="what is younger stays")
    replaced = "also results that --replace moved aside (OUT.replaced-DATE)"
    parser.add_argument("--replaced", action="store_true", help=replaced)
    parser.add_argument("--yes", action="store_true", help="delete; without it this only shows what would go")
    return parser


def prune(argv: list[str]) -> int:
    """`bingo prune [ROOT] [--keep N] [--older-than DAYS] [--replaced] [--yes]`; 0, also where nothing goes."""
    options = prune_flags().parse_args(argv)
    gone = 0
    for root in map(Path, map(os.path.abspath, roots(options.root))):  # as Slurm knows the scripts in it
        of_root(root)
        with writing(root) if options.yes else contextlib.nullcontext():
            for item in list(plan(root, options, time.time())):
                print(_line(item, options.yes), flush=True)
                if not item.kept:
                    gone += item.bytes
                    if options.yes:
                        delete(item.path)
    if options.yes:
        print(f"{told(gone)} deleted")
    elif gone:
        print(f"{told(gone)} would go, nothing was deleted; next: {shlex.join(['bingo', 'prune', *argv, '--yes'])}")
    else:
        print("nothing to delete")
    return 0


def _line(item: Item, really: bool) -> str:
    what = f"stays: {item.kept}" if item.kept else "deleted" if really else "would go"
    return f"{item.what:13s} {item.path}  {told(item.bytes)}  {what}"


def told(count: int) -> str:
    """Bytes for people."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >> shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} bytes"


def plan(root: Path, options: Any, now: float) -> Iterator[Item]:
    """What goes and what stays, oldest first. `UserError` when Slurm does not say whether an old one's jobs run."""
    for path in sorted((root / SUBMISSIONS).iterdir()):
        if REST.fullmatch(path.name) and _ours(path):
            yield Item(path, "rest", weight(path))
    found = submissions(root)
    known: list[Submission] = []
    for at, folder in reversed(list(enumerate(found))):
        made: Submission | UserError
        try:
            made = read(folder)
            known.append(made)
        except UserError as error:
            made = error
        why = _why_kept(folder, made, at, options, now)
        yield Item(folder, "submission", weight(folder), why)
    yield from _replaced(known, options, now)


def _why_kept(folder: Path, made: Submission | UserError, at: int, options: Any, now: float) -> str:
    """Why a submission stays; at: its place, the newest is 0."""
    if at < options.keep:
        return "the newest" if at == 0 else f"one of the newest {options.keep}"
    if isinstance(made, UserError):
        return str(made)
    if not re.fullmatch(ID, folder.name):
        return "it was given another name"
    if not _ours(folder):
        return "a link, or another user's"
    age = now - max([made.facts["time"], *(line.time for line in made.sent())])
    if age < options.older_than * DAY_S:
        return f"sent {duration(age)} ago"
    if living := alive(made):
        names = ", ".join(dict.fromkeys(f"{line.job} ({line.slurm_id})" for line in living.values()))
        return f"its jobs may still run: {names}"
    if (silent := now - _last_sign(folder)) < SILENCE_S:  # of a cluster that is not asked here
        return f"a job of it wrote there {duration(silent)} ago"
    if other := next(strangers(folder), None):
        return _holds(other)
    return ""


def _ours(path: Path) -> bool:
    """Whether it is a folder, no link, and of this user: what is another's is theirs to delete."""
    return _is_folder(path) and path.stat().st_uid == os.getuid()


def _last_sign(folder: Path) -> float:
    """When a start without a recorded end last wrote something; 0 if none did."""
    starts = (start for start in folder.glob("jobs/*/attempts/*") if not (start / "end.json").exists())
    times = (path.lstat().st_mtime for start in starts for path in start.glob("*"))
    return max(times, default=0.0)


def strangers(folder: Path) -> Iterator[str]:
    """What lies in a submission's folder and is none of the suite's files, links to folders among it."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            path = os.path.relpath(os.path.join(place, name), folder)
            if not KNOWN.fullmatch(path):
                yield path


def weight(folder: Path) -> int:
    """Bytes that a folder takes on its disk; links are not followed."""
    total = 0
    for place, folders, files in os.walk(folder):
        for name in itertools.chain(folders, files):
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def _replaced(known: Sequence[Submission], options: Any, now: float) -> Iterator[Item]:
    """Results that were moved aside, beside the folders of the stages of these submissions."""
    stages = [stage for made in known for spec in made.jobs for task in spec.tasks for stage in task]
    kinds = {out: stage.kind for stage in stages for out in (stage.out, stage.out.resolve())}
    for parent in sorted({out.resolve().parent for out in kinds}):
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            begun = path.name[0] == "." and path.suffix == f".{PRUNED}"
            match = REPLACED.fullmatch(path.stem[1:] if begun else path.name)
            when = match and _when(match["when"])
            kind = match and kinds.get(parent / match["name"])
            if not kind or when is None or not _ours(path):
                continue
            why = "" if begun or options.replaced else "results of before; --replaced deletes them"
            if not (why or begun) and now - when < options.older_than * DAY_S:
                why = f"moved aside {duration(now - when)} ago"
            if not why and (other := next(_others(path, kind), None)):
                why = _holds(other)
            yield Item(path, "rest" if begun else "moved aside", weight(path), why)


def _others(folder: Path, kind: str) -> Iterator[str]:
    """What lies in a stage's folder and was not written by such a stage."""
    own = {folder / name for name in own_files(folder, kind)}
    paths = (Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files))
    yield from (str(path.relative_to(folder)) for path in paths if path not in own and not _is_folder(path))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _holds(name: str) -> str:
    return f"it holds {name}, which bingo did not write"


def _when(text: str) -> float | None:
    """The moment in a folder's name; None for digits that are none."""
    with contextlib.suppress(ValueError, OverflowError):
        return time.mktime(time.strptime(text, "%Y%m%d-%H%M%S"))
    return None


def delete(folder: Path) -> None:
    """Delete a folder; a process that is killed meanwhile leaves it whole, or what is left under a hidden name."""
    hidden = folder
    try:
        if not folder.name.startswith("."):
            hidden = folder.rename(folder.with_name(f".{folder.name}.{PRUNED}"))
            sync_folder(hidden.parent)
        shutil.rmtree(hidden)
    except OSError as error:
        raise UserError(
            f"cannot delete {error.filename or hidden}: {error.strerror}; mend that, then run the same command again"
        ) from None
