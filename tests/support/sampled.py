"""A plugin of pytest: of many costly cases a few are run, other ones for each commit; `--whole` runs all.

`@pytest.mark.sampled(4)` keeps four cases of a parametrised test. `sampled(3, by="kind")` draws three values of that
parameter for all tests of the file, which may share a fixture of it; `sampled(1, group="chain")` keeps one case of the
tests of that name. With `--turns 3` the slow tests of one file in three are run, besides those marked so.
Which ones follows from the commit, or from $BINGO_CASES: so a run can be repeated, and over commits everything comes
up. Whoever names tests (`FILE::TEST`, `-k`) gets every case of theirs.
"""

import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="every case of the tests that are marked `sampled`")
    parser.addoption("--turns", type=int, default=1, metavar="N", help="the slow tests of one file in N alone")


def seed() -> str:
    """What chooses: $BINGO_CASES, or the commit of this checkout; without git a constant."""
    if given := os.environ.get("BINGO_CASES"):
        return given
    words = ["git", "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "0"
    return done.stdout.strip()


def is_whole(config: pytest.Config) -> bool:
    """Whether every case is wanted."""
    return bool(config.getoption("whole", False) or config.option.keyword or any("::" in arg for arg in config.args))


def pytest_report_header(config: pytest.Config) -> str:
    chosen = f"a part, repeated by BINGO_CASES={seed()}; --whole runs every one"
    return f"cases of sampled tests: {'all' if is_whole(config) else chosen}"


def left_out(items: Sequence[pytest.Item], chooser: str) -> set[pytest.Item]:
    """Those of the items that are not run."""
    kept: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, str], dict[str, list[pytest.Item]]] = {}
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark is not None and isinstance(item, pytest.Function):
            by, group = mark.kwargs.get("by"), mark.kwargs.get("group", item.originalname)
            key = (item.path.name, by or group)
            value = str(item.callspec.params[by]) if by else item.name
            found.setdefault(key, {}).setdefault(value, []).append(item)
            kept[key] = mark.args[0]
    return {
        item
        for key, values in found.items()
        for value in random.Random(f"{chooser} {key}").sample(list(values), max(0, len(values) - kept[key]))
        for item in values[value]
    }


def out_of_turn(items: Sequence[pytest.Item], chooser: str, turns: int) -> set[pytest.Item]:
    """Slow tests of the files whose turn is another commit's; those that are sampled anyway have none."""
    slow = [item for item in items if item.get_closest_marker("slow") and not item.get_closest_marker("sampled")]
    files = sorted({item.path for item in slow})
    now = set(files[random.Random(chooser).randrange(turns) :: turns])
    return {item for item in slow if item.path not in now}


@pytest.hookimpl(tryfirst=True)  # before the order follows from what is left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_whole(config):
        return
    found = left_out(items, seed()) | out_of_turn(items, seed(), config.getoption("turns", 1))
    config.hook.pytest_deselected(items=[item for item in items if item in found])
    items[:] = [item for item in items if item not in found]
