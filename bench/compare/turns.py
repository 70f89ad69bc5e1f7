"""Two checkouts measured in fresh processes that take turns: A B, B A, A B, ..., so that drift favours neither."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from bingo.bench.keeper import Keeper
from bingo.bench.processes import OWN, merged, one, without
from bingo.bench.record import Result, Row
from bingo.errors import UserError

MARKS = ("bingo/__init__.py", "bench/command.py", "kernels/__init__.py")
"""Files by which a checkout is known."""


def measure_in_turns(a: Path, b: Path, words: Sequence[str], turns: int, keeper: Keeper) -> tuple[Result, Result]:
    """Run `bingo bench WORDS` so often in each; the rows of each side with a list of samples per process."""
    for folder in (a, b):
        if not all((folder / name).is_file() for name in MARKS):
            raise UserError(
                f"{folder} is no checkout of the project (no {MARKS[0]} in it); name a result file or a checkout"
            )
    if not words:
        raise UserError("two checkouts need a measurement to run: add -- and its words, such as -- step --device cpu")
    words = without(words, OWN)
    found: dict[str, list[Result]] = {"A": [], "B": []}
    for turn in range(turns):
        keeper.keep(*_so_far(found))
        for name, folder in [("A", a), ("B", b)][:: 1 if turn % 2 == 0 else -1]:
            keeper.say(f"turn {turn + 1} of {turns}, {name}")
            found[name].append(one(words, folder)[1])
    first, second = (cast(Result, {**results[0], "rows": merged(results)}) for results in found.values())
    return first, second


def _so_far(found: dict[str, list[Result]]) -> tuple[list[Row], None]:
    """The samples of both sides, for a file that a kill leaves."""
    rows = [(name, row) for name, results in found.items() for row in merged(results)]
    return [{**row, "variant": f"{name}: {row['variant']}"} for name, row in rows], None
