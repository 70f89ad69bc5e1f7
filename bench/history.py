"""`bingo bench history`: results over commits and machines, each beside the one before it on the same hardware.

A file counts once for every version of it that git has and this release reads: the file as it lies there is the newest.
"""

import argparse
import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bingo.bench.compare.verdict import THRESHOLD, judge_rows
from bingo.bench.record import Result, Row, check, read_result, rows_by_case
from bingo.bench.samples import of_processes, shown
from bingo.errors import UserError

RESULTS = Path(__file__).resolve().parents[1] / "bench" / "results"
Key = tuple[str, str, str, str]


class Version(NamedTuple):
    """One result at one commit."""

    result: Result
    date: str
    """ISO, or "" where nothing tells it."""

    @property
    def commit(self) -> str:
        return str(self.result["environment"].get("git") or "unknown")

    @property
    def hardware(self) -> str:
        """What results are compared within."""
        found = self.result["environment"]
        gpus = found.get("gpu") or []
        return f"{len(gpus)} x {gpus[0]}" if gpus else f"{found.get('cpu', 'unknown')}, {found.get('cores', '?')} cores"


def main(options: argparse.Namespace) -> int:
    """Print the table; 0."""
    paths = options.paths or [RESULTS]
    versions, left_out = list[Version](), 0
    for path in files(paths):
        found, unread = history_of(path)
        versions += [version for version in found if options.only in (None, version.result["measurement"])]
        left_out += unread
    if not versions:
        known = f" of {options.only!r}" if options.only else ""
        raise UserError(f"there is no result{known} in {', '.join(map(str, paths))}; measure one with --json FILE")
    print("\n".join(table(versions, options.threshold or THRESHOLD)))
    if left_out:
        print(f"{left_out} earlier version(s) of these files are of an older form and left out")
    return 0


def files(paths: Sequence[Path]) -> list[Path]:
    """The result files that are named, or lie in a folder that is."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; name result files, or folders of them")
        found += sorted(path.glob("*.json")) if path.is_dir() else [path]
    return found


def history_of(path: Path) -> tuple[list[Version], int]:
    """Every version of a file, oldest first, and how many are of another form; `UserError` if it is now no result."""
    now = read_result(path)
    found: dict[str, Version] = {}
    unread = 0
    for text in reversed(_versions(path)):
        result = _result(text)
        unread += result is None
        if result is not None:
            found[_identity(result)] = Version(result, _date(path, result))
    found[_identity(now)] = Version(now, _date(path, now))
    return list(found.values()), unread


def _identity(result: Result) -> str:
    """The same for two versions that hold the same figures."""
    return json.dumps([result["environment"].get("git"), result["rows"]], sort_keys=True)


def _versions(path: Path) -> list[str]:
    """What git has of a file, newest first; nothing where it is in no checkout."""
    commits = _git(path, "log", "--format=%H", "--", path.name).split()
    return [_git(path, "show", f"{commit}:./{path.name}") for commit in commits]


def _git(path: Path, *words: str) -> str:
    with contextlib.suppress(OSError):
        command = ["git", "-C", str(path.resolve().parent), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout
    return ""


def _result(text: str) -> Result | None:
    with contextlib.suppress(ValueError):
        value: Any = json.loads(text)
        if isinstance(value, dict) and not check(value):
            return value  # type: ignore[return-value]
    return None


def _date(path: Path, result: Result) -> str:
    """When it was measured, or its commit made."""
    commit = str(result["environment"].get("git") or "").partition("+")[0]
    return result.get("date") or (_git(path, "log", "-1", "--format=%cI", commit).strip() if commit else "")


def table(versions: Sequence[Version], threshold: float) -> list[str]:
    """A block per measurement and hardware, a line per row and commit, the oldest first."""
    groups: dict[tuple[str, str], list[Version]] = {}
    for version in sorted(versions, key=lambda version: version.date):
        groups.setdefault((version.result["measurement"], version.hardware), []).append(version)
    lines: list[str] = []
    for (measurement, hardware), group in sorted(groups.items()):
        lines += [f"{measurement}, {hardware}", *_group(group, threshold), ""]
    return lines[:-1]


def _group(group: Sequence[Version], threshold: float) -> Iterator[str]:
    keys = dict.fromkeys(key for version in group for key in rows_by_case(version.result["rows"]))
    heading = ""
    for key in keys:
        case, variant, metric, clock = key
        if case != heading:
            heading = case
            yield f"  {case}"
        yield f"    {variant}, {metric}" + ("" if clock == "none" else f" ({clock})")
        yield from (f"      {line}" for line in _lines(group, key, threshold))


def _lines(group: Sequence[Version], key: Key, threshold: float) -> Iterator[str]:
    before: Row | None = None
    for version in group:
        row = rows_by_case(version.result["rows"]).get(key)
        if row is None:
            continue
        filled = [samples for samples in row["processes"] if samples]
        said = shown(of_processes(filled), 1, ".4g") if filled else str(row.get("error"))
        against = _against(before, row, threshold) + ("  partial" if version.result["partial"] else "")
        yield f"{version.date[:10] or 'unknown':11}{version.commit[:18]:19}{said:34}{against}".rstrip()
        before = row if filled else before


def _against(before: Row | None, row: Row, threshold: float) -> str:
    """The verdict against the one before; nothing for the first, and for one without figures."""
    if before is None or not any(row["processes"]):
        return ""
    verdict = judge_rows(before, row, threshold, turns=False)
    return f"{verdict.ratio:.3f}  {verdict.word}" + (f": {verdict.why}" if verdict.why else "")
