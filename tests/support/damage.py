"""Damage to one file, its times kept, and what its reader makes of each kind: the campaign of flips and truncations."""

import collections
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bingo.errors import UserError

HEAD, TAIL = 160, 400
"""Bytes at the beginning and the end that get flips of their own: headers and directories are small."""


@dataclass(frozen=True)
class Artefact:
    """A file and what reads it. read: gives what a user would get from it, for comparison by `==`."""

    path: Path
    read: Callable[[], object]


@dataclass
class Outcome:
    """How often each happened, and what was wrong."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        return f"{name:34}" + "".join(
            f"{kind} {self.counts[kind]:3}  " for kind in ("refused", "same", "silent", "traceback")
        )


def flips(data: bytes) -> Iterator[tuple[str, bytes]]:
    """64 single-bit flips: 40 spread over the file, 12 in its beginning, 12 in its end."""
    size = len(data)
    head, tail = min(HEAD, size), min(TAIL, size)
    places = [size * i // 40 for i in range(40)]
    places += [head * i // 12 for i in range(12)] + [size - tail + tail * i // 12 for i in range(12)]
    for number, place in enumerate(places):
        bit = number * 5 % 8
        yield f"bit {bit} of byte {place}", data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def truncations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """12 lengths from nothing to all but one byte."""
    for length in [0, 1, 7, *(len(data) * i // 9 for i in range(1, 9)), len(data) - 1]:
        yield f"cut to {length} of {len(data)}", data[:length]


@contextmanager
def holding(path: Path, data: bytes) -> Iterator[None]:
    """`path` with other bytes and its old times; afterwards as it was."""
    kept, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    try:
        path.write_bytes(data)
        os.utime(path, ns=times)
        yield
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=times)


def campaign(artefact: Artefact) -> Outcome:
    """Read the file under every damage: each is "refused" in one sentence, or gives the "same"; else it is wrong."""
    expected, outcome = artefact.read(), Outcome()
    data = artefact.path.read_bytes()
    for name, damaged in [*flips(data), *truncations(data)]:
        with holding(artefact.path, damaged):
            try:
                kind = "same" if artefact.read() == expected else "silent"
            except UserError as error:
                kind = "refused" if "\n" not in str(error) and artefact.path.name in str(error) else "traceback"
                name = f"{name}: {error}"
            except Exception as error:  # what a user would see as a traceback
                kind, name = "traceback", f"{name}: {type(error).__name__} {error}"
        outcome.counts[kind] += 1
        if kind in ("silent", "traceback"):
            outcome.wrong.append(f"{kind}, {name}")
    assert artefact.read() == expected, "the file is whole again"
    return outcome
