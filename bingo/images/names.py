"""Millions of file names as one array of bytes: Python strings would take four times the memory."""

import io
import itertools
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from bingo.errors import escaped


class Names(Sequence[str]):
    """An immutable sequence of strings; `data` uint8 holds them one after the other, `ends` int64 (N) where each ends.

    The bytes are those of the file names, whatever the locale; as strings they are what `os.fsdecode` makes of them.
    """

    def __init__(self, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        builder = NamesBuilder()
        for name in names:
            builder.append(name)
        return builder.build()

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = self.ends[position - 1] if position else 0
        return os.fsdecode(self.data[start : self.ends[position]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[position] for position in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return NotImplemented
        return np.array_equal(self.ends, other.ends) and np.array_equal(self.data, other.data)

    def take(self, indices: npt.NDArray[np.int64]) -> "Names":
        """The names at `indices` (M), ascending and distinct."""
        if len(indices) == len(self):
            return self
        return Names.of(self[int(index)] for index in indices)


class NamesBuilder:
    """Collects names one by one."""

    def __init__(self) -> None:
        self._data, self._ends = io.BytesIO(), array("q")

    def append(self, name: str) -> None:
        self._data.write(os.fsencode(name))
        self._ends.append(self._data.tell())

    def build(self) -> Names:
        return Names(np.frombuffer(self._data.getbuffer(), np.uint8), np.frombuffer(self._ends, np.int64))


def first_few(reasons: Mapping[str, str], most: int = 5) -> str:
    """`a (why), b (why), ...` of path -> reason, as it can be printed."""
    named = ", ".join(
        f"{printable(name)} ({escaped(reason)})" for name, reason in itertools.islice(reasons.items(), most)
    )
    return named + (", ..." if len(reasons) > most else "")


def utf8(name: str) -> str:
    """A file name as text: its bytes read as UTF-8 in every locale, so that what is recorded does not depend on one."""
    return os.fsencode(name).decode(errors="surrogateescape")


def printable(name: object) -> str:
    """A file name or path as it can be printed: one line, without control characters, bidi marks and foreign bytes."""
    return escaped(utf8(str(name)))
