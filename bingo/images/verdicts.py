"""The verdicts on all files of a source: counts, a table, a JSON file. Columns, not objects: there may be millions.

`bingo check` says what a file is: ok, convertible or bad. `bingo pack` says what became of it: ok (stored as it is),
converted (stored in another form or in spite of its name), excluded.
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bingo.errors import escaped
from bingo.files import atomic_write
from bingo.images.digests import first_with_digest
from bingo.images.journal import BAD, OK
from bingo.images.listing import Listing
from bingo.images.names import printable, utf8

CHECK_WORDS = ("", "ok", "convertible", "bad")
PACK_WORDS = ("", "ok", "converted", "excluded")
FORMATS = ("", "jpeg", "png", "gif", "webp", "bmp", "tiff", "ppm")
ACTIONS = ("", "png", "baseline", "shrink")
NOTES = (
    "greyscale",
    "progressive or several scans",
    "EXIF-rotated",
    "unusual chroma sampling",
    "giant",
    "animated",
)
GROUPS_SHOWN = 20


@dataclass(frozen=True)
class Verdicts:
    """N rows (`journal.ROW`) about the images of a listing, in its order; `reasons` holds the phrases they refer to.

    `packed`: the words are those of `bingo pack`.
    """

    listing: Listing
    rows: npt.NDArray[Any]
    reasons: list[str]
    packed: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        return PACK_WORDS if self.packed else CHECK_WORDS

    @cached_property
    def codes(self) -> npt.NDArray[np.uint8]:
        """uint8 (N): index into `words`."""
        verdict = self.rows["verdict"]
        return np.where(verdict == BAD, 3, np.where(self.rows["converted"], 2, 1)) if self.packed else verdict

    @property
    def counts(self) -> dict[str, int]:
        """Number of files per word; all three are always there."""
        return dict(zip(self.words[1:], np.bincount(self.codes, minlength=4)[1:].tolist(), strict=True))

    @property
    def reason_counts(self) -> dict[str, dict[str, int]]:
        """Word -> reason without its details in brackets -> number of files."""
        found: dict[str, Counter[str]] = {word: Counter() for word in self.words[1:]}
        for code in range(1, 4):
            numbers, counts = np.unique(self.rows["reason"][self.codes == code], return_counts=True)
            for number, count in zip(numbers, counts, strict=True):
                if reason := self.reasons[number].partition(" (")[0]:
                    found[self.words[code]][reason] += int(count)
        return {word: dict(counter.most_common()) for word, counter in found.items() if counter}

    def next_command(self) -> str:
        """What to type after a check: how these files are packed; "" if none can be."""
        counts, given = self.counts, self.listing.selection
        if not counts["ok"] + counts["convertible"]:
            return ""
        flags = [f"--class-from {shlex.quote(given.class_from)}" if given.class_from else ""]
        flags += [f"--ext {shlex.quote(given.ext)}" if given.ext else ""]
        flags += ["--convert" if counts["convertible"] else "", "--allow-bad" if counts["bad"] else ""]
        return " ".join(filter(None, ["bingo pack", printable(shlex.quote(str(self.listing.source))), "OUT", *flags]))

    @property
    def note_counts(self) -> dict[str, int]:
        """Note -> number of files, where there are any."""
        counts = {note: int(np.count_nonzero(self.rows["notes"] >> bit & 1)) for bit, note in enumerate(NOTES)}
        return {note: count for note, count in counts.items() if count}

    @property
    def problems(self) -> Iterator[tuple[str, str, str]]:
        """Path, word and reason of each file that is not ok, or is ok with a reason."""
        for index in np.flatnonzero((self.codes != OK) | (self.rows["reason"] > 0)):
            yield self.listing.paths[int(index)], self.words[self.codes[index]], self._reason(int(index))

    @cached_property
    def _duplicates(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each usable file that has a duplicate: its index and the lowest one with the same bytes; by groups."""
        usable = np.flatnonzero(self.rows["verdict"] != BAD)
        first = first_with_digest(self.rows["digest"][usable])
        shared = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
        shared = shared[np.argsort(first[shared], kind="stable")]
        return usable[shared], usable[first[shared]]

    @property
    def duplicate_groups(self) -> Iterator[list[str]]:
        """The paths of files with the same bytes, group by group."""
        members, first = self._duplicates
        for group in np.split(members, np.flatnonzero(np.diff(first)) + 1) if len(members) else ():
            yield [self.listing.paths[int(index)] for index in group]

    @property
    def duplicate_counts(self) -> dict[str, int]:
        members, first = self._duplicates
        groups = len(np.unique(first))
        return {"groups": groups, "files beyond the first": len(members) - groups}

    def file(self, index: int) -> dict[str, Any]:
        """What is known about one file."""
        row = self.rows[index]
        return {
            "path": utf8(self.listing.paths[index]),
            "verdict": self.words[self.codes[index]],
            "reason": self._reason(index),
            "format": FORMATS[row["format"]],
            "height": int(row["height"]),
            "width": int(row["width"]),
            "bytes": int(row["bytes"]),
            "notes": [note for bit, note in enumerate(NOTES) if row["notes"] >> bit & 1],
        }

    def _reason(self, index: int) -> str:
        """Of a file converted although it is ok, what its notes say."""
        row = self.rows[index]
        if row["reason"] or self.codes[index] == OK:
            return self.reasons[row["reason"]]
        return ", ".join(note for note in ("giant", NOTES[1]) if row["notes"] >> NOTES.index(note) & 1)

    def summary(self) -> dict[str, Any]:
        """All counts, for JSON."""
        left_out = self.listing.left_out
        return {
            "source": printable(str(self.listing.source)),
            "classes": len(self.listing.classes),
            "images": len(self.rows),
            "ignored": self.listing.ignored,
            "left_out": {kind: {"files": count, "example": utf8(path)} for kind, (count, path) in left_out.items()},
            "empty_classes": self.listing.empty_classes,
            "warnings": list(self.listing.warnings),
            "counts": self.counts,
            "reasons": self.reason_counts,
            "notes": self.note_counts,
            "duplicates": self.duplicate_counts,
        }

    def lines(self) -> Iterator[str]:
        """The table: each problem, the first groups of duplicates, then counts of all kinds, then what to look at."""
        for path, word, reason in self.problems:
            yield f"{word:12s} {printable(path)}: {escaped(reason)}"
        for shown, group in enumerate(self.duplicate_groups):
            if shown == GROUPS_SHOWN:
                yield f"duplicates   and {self.duplicate_counts['groups'] - shown} more groups (the JSON file has all)"
                break
            yield f"duplicates   {'  '.join(printable(path) for path in group)}"
        reasons = self.reason_counts
        for word, count in self.counts.items():
            yield f"{word:12s} {count:9d}"
            yield from (f"{'':12s} {number:9d}  {escaped(reason)}" for reason, number in reasons.get(word, {}).items())
        yield from (f"{'note':12s} {number:9d}  {note}" for note, number in self.note_counts.items())
        counts = self.duplicate_counts
        if counts["groups"]:
            yield f"duplicates   {counts['files beyond the first']:9d}  in {counts['groups']} group(s)"
        yield f"{'images':12s} {len(self.rows):9d}"
        yield f"{'classes':12s} {len(self.listing.classes):9d}  from {self.listing.origin}"
        yield from self.listing.remarks()

    def write_json(self, path: Path, **more: Any) -> None:
        """Write `summary()` with `more` put in, then `duplicate_groups` and `files`, one a line, as one JSON object."""
        with atomic_write(path) as file:
            file.write((json.dumps({**self.summary(), **more}, indent=1).removesuffix("\n}") + ",\n").encode())
            lists = {"duplicate_groups": self.duplicate_groups, "files": map(self.file, range(len(self.rows)))}
            for name, values in lists.items():
                file.write(f' "{name}": [\n'.encode())
                for position, value in enumerate(values):
                    file.write((",\n" if position else "").encode() + json.dumps(value).encode())
                file.write(b"\n ]" + (b",\n" if name != "files" else b"\n}\n"))
