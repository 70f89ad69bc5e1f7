"""A measurement in several fresh processes, one after the other: what they share by luck (memory layout, threads, the
machine's mood) differs between them, and no interval of one process knows of it.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bingo.bench import fresh_process
from bingo.bench.keeper import Keeper
from bingo.bench.record import Result, Row, read_result, rows_by_case
from bingo.bench.summary import table
from bingo.errors import UserError

OWN = ("--processes", "--json")
"""Flags that are ours and not a process's."""


def repeat(name: str, words: Sequence[str], count: int, path: Path | None) -> int:
    """Run a measurement `count` times and print all together; 1 if one of them said so. words: its flags."""
    keeper, found, status = Keeper(path, name), list[Result](), 0
    words = without(words, OWN)
    for number in range(1, count + 1):
        keeper.say(f"process {number} of {count}")
        done, result = one([name, *words])
        status = max(status, done)
        found.append(result)
        keeper.keep(merged(found), [each["detail"] for each in found])
    print("\n".join(table(merged(found))))
    keeper.finish(merged(found), [each["detail"] for each in found])
    return status


def one(words: Sequence[str], checkout: Path | None = None) -> tuple[int, Result]:
    """Exit status (0 or 1) and result of `bingo bench WORDS` in a fresh process; of another checkout, if one is named.

    `UserError` with its last line where it did not get so far.
    """
    where, typed = f" in {checkout}" if checkout else "", shlex.join(words)
    with tempfile.TemporaryDirectory(prefix="bingo-bench-") as folder:
        path = Path(folder) / "result.json"
        # -P: the folder it is typed in must not come before the checkout.
        command = [sys.executable, "-P", "-m", "bingo", "bench", *words, "--json", str(path)]
        environment = fresh_process.environment() if checkout is None else _environment(checkout)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1) or not path.exists():
            last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise UserError(f"`bingo bench {typed}`{where}: {last.removeprefix('bingo: ')}")
        try:
            return done.returncode, read_result(path)
        except UserError as error:
            raise UserError(f"`bingo bench {typed}`{where} wrote what cannot be read here: {error}") from None


def merged(results: Sequence[Result]) -> list[Row]:
    """The rows of several processes as one: each process's samples a list of their own, in order.

    A row that is missing or failed in some of them says in how many.
    """
    rows: dict[tuple[str, str, str, str], Row] = {}
    for result in results:
        for key, row in rows_by_case(result["rows"]).items():
            kept = rows.setdefault(key, {**row, "processes": []})
            kept["processes"] = kept["processes"] + [samples for samples in row["processes"] if samples]
            if "error" in row:
                kept["error"] = row["error"]
    for row in rows.values():
        if row["processes"] and "error" in row:
            told = f"in {len(results) - len(row['processes'])} of {len(results)} processes: {row.pop('error')}"
            row["notes"] = [*row.get("notes", []), told]
    return list(rows.values())


def without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Words of a command line without some flags and their values."""
    kept, skip = [], False
    for word in words:
        name = word.partition("=")[0].replace("_", "-") if word.startswith("--") else ""
        if not skip and name not in flags:
            kept.append(word)
        skip = not skip and name in flags and "=" not in word
    return kept


def _environment(checkout: Path) -> dict[str, str]:
    """This one's, with another checkout's package in place of ours."""
    return os.environ | {"PYTHONPATH": str(checkout.resolve())}
