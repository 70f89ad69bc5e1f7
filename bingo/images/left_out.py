"""What of a source is not read, and why: counted by kind with one example each. And names that belong to systems."""

import re
from collections.abc import Iterator, Mapping

from bingo.images.names import printable

SYSTEM_NAMES = frozenset({
    "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "~snapshot", "lost+found",
    "$recycle.bin", "recycler", "found.000", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    "system volume information", "network trash folder", "temporary items",
})  # fmt: skip
"""Folders and files that macOS, Windows, NAS boxes and file systems put between others; in lower case."""
HIDDEN = "hidden"
SYSTEM = "of the operating system"
OUTSIDE = "image outside any class folder"
ENDING = re.compile(r"\.[a-z][a-z0-9_.-]{0,15}")
KINDS_NAMED, MOST_KINDS = 12, 200


def foreign(name: str) -> str:
    """The kind of a file or folder that is skipped because of its name alone; "" for any other."""
    if name.startswith("."):
        return HIDDEN
    return SYSTEM if name.lower() in SYSTEM_NAMES else ""


def ending_kind(ending: str) -> str:
    """The kind of a file by its ending, such as `.heic`; few kinds, however many endings there are."""
    ending = ending.lower()
    if not ending.strip("."):
        return "without an ending"
    return ending if ENDING.fullmatch(ending) else "with another ending"


class LeftOut:
    """Counts what is left out while a source is listed; `kinds`: kind -> (how many, the first one's path)."""

    def __init__(self) -> None:
        self.kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, *path: str, count: int = 1) -> None:
        """So many more of a kind; path: the parts of the first one's."""
        if len(self.kinds) >= MOST_KINDS and kind not in self.kinds:
            kind = "of more kinds"
        before, first = self.kinds.get(kind) or (0, "/".join(part for part in path if part))
        self.kinds[kind] = (before + count, first)


def left_out_line(kinds: Mapping[str, tuple[int, str]]) -> str:
    """`left out 4: 3 .heic (a/x.heic), 1 hidden (.DS_Store)`; "" when nothing is."""
    if not kinds:
        return ""
    return f"left out {sum(count for count, _ in kinds.values())}: {', '.join(_named(kinds))}"


def _named(kinds: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    ordered = sorted(kinds.items(), key=lambda item: -item[1][0])
    for kind, (count, example) in ordered[:KINDS_NAMED]:
        yield f"{count} {kind} ({printable(example)})"
    if rest := ordered[KINDS_NAMED:]:
        yield f"{sum(count for _, (count, _) in rest)} of {len(rest)} more kinds"
