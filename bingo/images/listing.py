"""The images of a source before any is opened: where each lies, its label, and what is left out."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from bingo.errors import escaped, of_process
from bingo.images.left_out import left_out_line
from bingo.images.names import Names
from bingo.images.selection import Selection

LAYOUT = (
    "put images in one sub-folder per class, {0}/<class>/<image>.jpg (unlabelled images in a single sub-folder), "
    "or name .tar files"
)
MOST_BYTES = 1 << 29  # of one image: 89 megapixels of 16-bit RGB fit in
NO_FILE = -1  # `sizes` of a tar member that is a link
SPLITS = frozenset(["train", "training", "val", "valid", "validation", "test", "testing", "dev"])
NAMED = 5
Value = TypeVar("Value")


class Unreadable(Exception):
    """One image cannot be read; says why in a short phrase. number: of the system's error, where there is one."""

    def __init__(self, why: str, number: int | None = None) -> None:
        super().__init__(why)
        self.number = number


@dataclass(frozen=True)
class Listing:
    """N images before any is opened.

    `labels` int32 (N), an index into `classes`; `origin` says where the classes come from, in words; `fingerprint` is a
    hash of names, sizes and modification times; `left_out`: kind of what is not read -> how many, and the path of one.
    In tar files `shards` has their paths, `shard` int32, `offsets` and `sizes` int64 (N) say where an image lies.
    `warnings`: what looks as if another source was meant; `selection`: what was asked for.
    """

    source: Path
    classes: list[str]
    paths: Names
    labels: npt.NDArray[np.int32]
    origin: str
    fingerprint: str
    left_out: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    shards: tuple[Path, ...] = ()
    shard: npt.NDArray[np.int32] | None = None
    offsets: npt.NDArray[np.int64] | None = None
    sizes: npt.NDArray[np.int64] | None = None

    @property
    def ignored(self) -> int:
        """How many files are not read."""
        return sum(count for count, _ in self.left_out.values())

    @property
    def empty_classes(self) -> list[str]:
        """The classes without an image."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return [self.classes[label] for label in np.flatnonzero(counts == 0)]

    def remarks(self) -> Iterator[str]:
        """What should be known before the images are used: left out, empty classes, warnings."""
        if line := left_out_line(self.left_out):
            yield line
        if empty := self.empty_classes:
            what = "class number(s) have" if self.origin.endswith("members") else "class folder(s) hold"
            yield f"{len(empty)} {what} no image: {some(empty)}"
        yield from (f"warning: {text}" for text in self.warnings)

    def read(self, index: int) -> bytes:
        """The bytes of one image. Raises `Unreadable`."""
        return self._read_member(index) if self.shards else self._read_file(index)

    def _read_file(self, index: int) -> bytes:
        return read_regular(os.path.join(self.source, self.paths[index]), lambda file: file.read())

    def _read_member(self, index: int) -> bytes:
        assert self.shard is not None
        assert self.offsets is not None
        assert self.sizes is not None
        size = int(self.sizes[index])
        if size == NO_FILE:
            raise Unreadable("not a plain file in the tar file")
        require_size(size)
        try:
            return _part(self.shards[self.shard[index]], int(self.offsets[index]), size)
        except FileNotFoundError:
            raise Unreadable("the tar file is gone") from None
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror})", error.errno) from None


def read_regular(path: str, read: Callable[[BinaryIO], Value]) -> Value:
    """What `read` makes of a file. Raises `Unreadable`; no pipe is opened: that would wait for ever."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        require_size(status.st_size)
        with open(path, "rb") as file:
            return read(file)
    except FileNotFoundError:
        raise Unreadable("a link to nothing") from None
    except OSError as error:
        if of_process(error):
            raise
        link = error.errno == errno.ELOOP
        raise Unreadable("a link to itself" if link else f"cannot be read ({error.strerror})", error.errno) from None


def require_size(size: int) -> None:
    """Raise `Unreadable` for a file that is larger than any image."""
    if size > MOST_BYTES:
        raise Unreadable(f"too large ({size} bytes, the limit is {MOST_BYTES >> 20} MiB)")


def some(names: list[str]) -> str:
    """The first few of some class names, as they can be printed."""
    return ", ".join(map(escaped, names[:NAMED])) + (", ..." if len(names) > NAMED else "")


def class_warnings(classes: list[str], below: set[str], remedy: Callable[[str], str]) -> Iterator[str]:
    """Classes that look like splits; or a single class with several folders of images, `below`, in it.

    remedy: what to do about a class.
    """
    splits = [name for name in classes if name.lower() in SPLITS]
    if len(splits) > 1 or len(splits) == len(classes):
        yield f"the classes are called {some(splits)}, as splits are; {remedy(splits[0])}"
    elif len(classes) == 1 and len(below) > 1:
        names = some(sorted(below))
        yield (
            f"the only class, {escaped(classes[0])}, has {len(below)} sub-folders with images ({names}); "
            f"if they are the classes, {remedy(classes[0])}"
        )


def _part(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, offset)
        while 0 < len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset + len(data))):
            data += more
    return data
