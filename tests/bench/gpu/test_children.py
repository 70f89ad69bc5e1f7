"""Children that die, hang or never start cost one item each."""

import time
from collections.abc import Callable
from pathlib import Path

from bingo.bench.gpu.children import Child, work_through
from tests.support import fake_group
from tests.support.fake_group import ITEMS


def children(
    work: Callable[..., None], groups: dict[str, list[str]], folder: Path, *, seconds: float, silence: float
) -> list[tuple]:
    heard: list[tuple] = []

    def start(group: str, first: int, path: Path) -> Child:
        return Child(work, [first, str(path)], path.with_suffix(".log"))

    work_through(
        groups, start, folder, parallel=2, deadline=time.monotonic() + seconds, silence=lambda item: silence,
        ended=lambda group, item, record: heard.append((group, item, record["seconds"])),
        lost=lambda *loss: heard.append(loss),
    )  # fmt: skip
    return heard


def test_children_that_die_or_hang_cost_one_item_each(tmp_path: Path) -> None:
    heard = children(fake_group.work, {"g": ITEMS}, tmp_path, seconds=900, silence=10)
    assert [entry[1] for entry in heard] == ITEMS
    assert [entry for entry in heard if len(entry) == 3] == [("g", "good", 0), ("g", "last", 3)]
    died, hung = (entry for entry in heard if len(entry) == 4)
    assert died[2:] == ("the process died: exit status 11, last output: something about memory", True)
    assert hung[2:] == ("no answer for 10 s", True)


def test_a_child_that_never_starts_and_a_deadline(tmp_path: Path) -> None:
    lost = children(fake_group.never_starts, {"g": ["a", "b"]}, tmp_path, seconds=900, silence=900)
    assert [entry[1] for entry in lost] == ["a", "b"]
    assert all("exit status 1, last output: no such device" in entry[2] and entry[3] for entry in lost)
    (tmp_path / "late").mkdir()
    groups = {"g": ["a", "b"], "h": ["c"], "i": ["d"]}
    late = children(fake_group.sleeps, groups, tmp_path / "late", seconds=1, silence=900)
    assert sorted(entry[1] for entry in late) == ["a", "b", "c", "d"]
    assert all(entry[2:] == ("the time was up", False) for entry in late)
