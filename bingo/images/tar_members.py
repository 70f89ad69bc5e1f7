"""The members of an uncompressed tar file: names and places. Nothing in a header is believed before it is checked.

Python's own reader acts on sizes and maps as they stand: it allocates what a header announces, and some releases read
for ever where a size is negative (CVE-2025-8194). So headers are walked here: every size must fit into the file, every
step leads forward, and what describes a member (long names, pax records, maps of sparse files) has a limit.
"""

import os
import re
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from bingo.errors import UserError, file_error
from bingo.images.listing import NO_FILE
from bingo.images.names import printable

BLOCK = tarfile.BLOCKSIZE
MOST_DESCRIPTION = 1 << 20
"""Bytes of a long name, of pax records or of a sparse file's map."""
MOST_NAME = 4096
"""Bytes of a path that Linux takes."""
LOOKED_AT_BEHIND = 1 << 20
LONG_NAME, LONG_LINK, SPARSE = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE
PAX, PAX_GLOBAL = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE), tarfile.XGLTYPE
WITHOUT_DATA = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE,
)  # fmt: skip
PAX_RECORD = re.compile(rb"([0-9]{1,7}) ([^=]{1,100})=")
SIZE = re.compile(rb"[0-9]{1,18}")


class Member(NamedTuple):
    """A member that is no folder: its name as tar would extract it, where its bytes lie; size `NO_FILE` for links."""

    name: str
    offset: int
    size: int


class _Damage(Exception):
    """What is wrong with a header, in a few words."""


def members(path: Path, file: BinaryIO) -> Iterator[Member]:
    """The members of the tar file `path`, opened as `file`, in its order; a damaged or hostile one is a `UserError`."""
    reader = _Reader(file)
    try:
        yield from reader.members()
        if behind := reader.behind():
            raise UserError(
                f"the tar file {printable(path)} goes on at byte {behind}, behind its end mark: it is damaged, or "
                "several files were joined; join them with tar --concatenate, or name them one by one"
            )
    except _Damage as damage:
        _refuse(path, reader.at, str(damage))
    except OSError as error:
        raise unreadable(path, error) from error


def open_tar(path: Path) -> BinaryIO:
    """Open a tar file; `UserError` if it is none or cannot be read. No pipe is opened: that would wait for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{printable(path)} is not a regular file; name a .tar file")
        return open(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    return file_error(error, f"cannot read the tar file {printable(path)}: {error.strerror or error}")


def _refuse(path: Path, at: int, damage: str) -> NoReturn:
    what = f"truncated or corrupt at byte {at}" if at else "truncated or no uncompressed tar"
    raise UserError(f"the tar file {printable(path)} is {what} ({damage}); fetch it again")


class _Reader:
    """Walks headers. `at`: where the header that is looked at begins."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.at, self.end = file, 0, os.fstat(file.fileno()).st_size

    def members(self) -> Iterator[Member]:
        common: dict[bytes, bytes] = {}  # pax records that hold for all that follow
        known: dict[bytes, bytes] = {}  # what was said about the next member
        while (header := self._header()) is not None:
            start = self.at + BLOCK
            if header.type in (*PAX, PAX_GLOBAL):
                records = _pax_records(self._description(start, header.size))
                (common if header.type == PAX_GLOBAL else known).update(records)
                self.at = _after(start, header.size)
                continue
            if header.type in (LONG_NAME, LONG_LINK):
                text = self._description(start, header.size).partition(b"\0")[0]
                if header.type == LONG_NAME:
                    known[b"path"] = text
                self.at = _after(start, header.size)
                continue
            said, known = {**common, **known}, {}
            size = _number(said[b"size"]) if b"size" in said else header.size
            if header.type in WITHOUT_DATA:
                size = 0
            if header.type == SPARSE:
                start = self._behind_map(start)
            self._require(start, size)
            name = said.get(b"GNU.sparse.name", said.get(b"path"))
            if name is not None and len(name) > MOST_NAME:
                raise _Damage(f"a name of {len(name)} bytes, the limit is {MOST_NAME}")
            if header.type != tarfile.DIRTYPE:
                sparse = header.type == SPARSE or any(record.startswith(b"GNU.sparse.") for record in said)
                plain = header.type in tarfile.REGULAR_TYPES and not sparse
                yield Member(
                    _clean(header.name if name is None else os.fsdecode(name)), start, size if plain else NO_FILE
                )
            self.at = _after(start, size)

    def behind(self) -> int:
        """Where something stands behind the end mark; 0 if there are zeros only, as far as is looked."""
        self.file.seek(self.at)
        rest = self.file.read(LOOKED_AT_BEHIND)
        return self.at + len(rest) - len(rest.lstrip(b"\0")) if rest.strip(b"\0") else 0

    def _header(self) -> tarfile.TarInfo | None:
        """The header at `at`; None at the end mark."""
        self.file.seek(self.at)
        try:
            header = tarfile.TarInfo.frombuf(self.file.read(BLOCK), sys.getfilesystemencoding(), "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return None
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise _Damage(str(error)) from None
        if header.size < 0:
            raise _Damage(f"a negative size, {header.size}")
        return header

    def _require(self, start: int, size: int) -> None:
        if start + size > self.end:
            raise _Damage(f"{size} bytes are announced, {max(self.end - start, 0)} follow")

    def _description(self, start: int, size: int) -> bytes:
        self._require(start, size)
        if size > MOST_DESCRIPTION:
            raise _Damage(f"{size} bytes describe a member, the limit is {MOST_DESCRIPTION}")
        self.file.seek(start)
        return self.file.read(size)

    def _behind_map(self, start: int) -> int:
        """Where the data of an old GNU sparse member begins: its header may go on in more blocks."""
        self.file.seek(self.at)
        more, at = self.file.read(BLOCK)[482], start
        while more:
            self._require(at, BLOCK)
            if at - start >= MOST_DESCRIPTION:
                raise _Damage(f"the map of a sparse file has more than {MOST_DESCRIPTION} bytes")
            more, at = self.file.read(BLOCK)[504], at + BLOCK
        return at


def _after(start: int, size: int) -> int:
    """Where the next header begins."""
    return start + -(-size // BLOCK) * BLOCK


def _number(text: bytes) -> int:
    if not SIZE.fullmatch(text):
        raise _Damage(f"a size of {text[:20]!r}")
    return int(text)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """`LENGTH KEY=VALUE\\n`, one after the other; the length is that of the record."""
    found, at = {}, 0
    while at < len(data) and data[at]:
        record = PAX_RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if record is None or end <= record.end() or data[end - 1 : end] != b"\n":
            raise _Damage("a pax record that cannot be read")
        found[record[2]] = data[record.end() : end - 1]
        at = end
    return found


def _clean(name: str) -> str:
    """A name as tar extracts it: no `/` or `..` at its beginning, no `.` and `..` inside."""
    return re.sub(r"^(\.\.(/|$))+", "", os.path.normpath(name.lstrip("/")))
