"""An image folder read in place: headers are scanned once, files are opened as DALI needs them.

Packing stays the better way to train often: it checks the pixels of every file and reads one large file instead of many
small ones. Here only headers are looked at, so a file that is cut off shows when it is decoded, and the content hash
follows names and byte sizes, not bytes.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from bingo.errors import PASSING, TransientError, UserError, of_process
from bingo.files import HASH_BYTES, atomic_write, hash_json, new_hash
from bingo.images.dataset import JPEG, PNG, Dataset, json_column
from bingo.images.digests import image_digest
from bingo.images.headers import CONVERTIBLE_FORMATS, identify, quiet_pillow, too_many_pixels, unidentified
from bingo.images.listing import Listing, Unreadable, read_regular
from bingo.images.names import first_few, printable
from bingo.images.parallel import Advance, in_order
from bingo.images.sources import list_source
from bingo.paths import quoted
from bingo.variables import cache_folder

SCAN_VERSION = 2
CHUNK = 500  # files per task: a task of one file would cost more than the file
MOST_THREADS = 32  # they wait for the file system, network ones above all


class Scan(NamedTuple):
    """What the headers of N files say.

    table int64 (N x 4): height, width, format, size in bytes; reasons: why a file cannot be used, by its number.
    """

    table: npt.NDArray[np.int64]
    reasons: dict[int, str]


class ImageFolder(Dataset):
    """N image files with labels, in the order of `bingo check`; what `Dataset` says of its fields holds here.

    `hash` covers relative paths, byte sizes, labels and class names; the content is not read, so a file that is
    replaced by another of the same size and name is not noticed. `left_out` names the files whose header says that
    they cannot be used, `remarks` what else should be known (`Listing.remarks`). `digests` reads every file once, when
    first asked for.
    """

    left_out: dict[str, str]
    remarks: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        """Scan the folder, or take the scan from the cache; errors as for `list_source`, or no usable file."""
        listing = list_source(path)
        scan = _cached_scan(listing)
        left_out = {listing.paths[number]: reason for number, reason in scan.reasons.items()}
        usable = np.flatnonzero(scan.table[:, 2])
        if not len(usable):
            raise UserError(
                f"none of the {len(listing.paths)} image files of {printable(path)} can be used: {first_few(left_out)}"
            )
        paths, table, labels = listing.paths.take(usable), scan.table[usable], listing.labels[usable]
        digest = new_hash()
        for part in (paths.data, paths.ends, table[:, 3], labels):
            digest.update(np.ascontiguousarray(part))
        fields: dict[str, Any] = {
            "path": Path(path), "hash": hash_json(["image folder", listing.classes, digest.hexdigest()]),
            "classes": listing.classes, "labels": labels, "sizes": table[:, :2].astype(np.int32),
            "formats": table[:, 2].astype(np.uint8), "paths": paths, "left_out": left_out,
            "remarks": tuple(listing.remarks()),
            "counts": {"ok": len(usable), "converted": 0, "excluded": len(left_out)},
        }  # fmt: skip
        for name, value in fields.items():
            object.__setattr__(self, name, value)  # the base is frozen

    def file(self, index: int) -> str:
        """Where image `index` lies."""
        return f"{self.path}/{self.paths[index]}"

    def encoded(self, index: int) -> npt.NDArray[np.uint8]:
        """The encoded image `index` (uint8), read from its file; OSError if that is not possible."""
        return np.fromfile(self.file(index), np.uint8)

    @cached_property
    def digests(self) -> npt.NDArray[np.uint8]:
        with ThreadPoolExecutor(_threads()) as pool:
            found = b"".join(pool.map(lambda i: image_digest(self.encoded(i)), range(len(self))))
        return np.frombuffer(found, np.uint8).reshape(-1, HASH_BYTES)

    def damaged(self, images: Iterable[int], threads: int = 1) -> set[int]:
        """None: nothing is known about the files of a folder that they could be compared with."""
        return set()

    def verify(self, *, workers: int = 0, advance: Advance | None = None) -> list[str]:
        """`UserError`: nothing is known about the files of a folder that they could be compared with."""
        raise UserError(
            f"{self.path} is not packed, so nothing to verify it with; type `bingo check {quoted(self.path)}`"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageFolder, (self.path,)


def _threads() -> int:
    return min(MOST_THREADS, 4 * len(os.sched_getaffinity(0)))


def _scan(listing: Listing) -> Scan:
    """Read the header of every file, in parallel threads."""

    def look(first: int) -> list[tuple[int, int, int, int, str]]:
        return [_header(f"{listing.source}/{path}") for path in listing.paths[first : first + CHUNK]]

    table, reasons = np.empty((len(listing.paths), 4), np.int64), dict[int, str]()
    with quiet_pillow(), ThreadPoolExecutor(_threads()) as pool:
        firsts = range(0, len(table), CHUNK)
        for first, rows in zip(firsts, in_order(pool, look, firsts, 4 * _threads()), strict=True):
            table[first : first + len(rows)] = [row[:4] for row in rows]
            reasons |= {number: row[4] for number, row in enumerate(rows, first) if row[4]}
    return Scan(table, reasons)


def _header(path: str) -> tuple[int, int, int, int, str]:
    """Height, width, format, size in bytes, ""; or zeros and why the file cannot be used."""
    try:
        return read_regular(path, _identify)
    except Unreadable as error:
        if error.number in PASSING:  # to leave it out would be another dataset, and the cache would keep that
            raise TransientError(f"{printable(path)} {error}; repeat the command once it can be read") from error
        return 0, 0, 0, 0, str(error)


def _identify(file: BinaryIO) -> tuple[int, int, int, int, str]:
    try:
        found, _, width, height, _ = identify(file, ("JPEG", "PNG"))
        size = os.fstat(file.fileno()).st_size
    except Exception as error:  # Pillow lets anything out on hostile bytes: struct.error, SyntaxError, ValueError, ...
        if of_process(error) or (isinstance(error, OSError) and error.errno in PASSING):
            raise
        file.seek(0)
        start = file.read(4)
        return 0, 0, 0, 0, unidentified(start, error) if start else "zero bytes"
    known = {"JPEG": JPEG, "MPO": JPEG, "PNG": PNG}.get(found)  # MPO: a JPEG that carries a second one behind it
    taken = "which only bingo pack --convert takes" if found in CONVERTIBLE_FORMATS else "which is not read"
    wrong = too_many_pixels(height, width) if known else f"{found} content, {taken}"
    return (0, 0, 0, 0, wrong) if wrong or known is None else (height, width, known, size, "")


def _cached_scan(listing: Listing) -> Scan:
    """The scan of exactly this listing, sizes and times; one process of a machine makes it, the others wait for it."""
    source = str(listing.source.resolve())
    key = hash_json([SCAN_VERSION, source, listing.fingerprint])
    folder = cache_folder()
    if folder is None:
        return _scan(listing)
    cache = folder / f"{hash_json(source)}.npz"
    with _turn(cache.with_suffix(".lock")):
        scan = _load(cache, key)
        if scan is None:
            scan = _scan(listing)
            _store(cache, key, scan)
    return scan


@contextlib.contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """One process at a time, where the cache folder can be written and has locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(open(lock, "w")), fcntl.LOCK_EX)
        yield


def _load(cache: Path, key: str) -> Scan | None:
    try:
        with np.load(cache, allow_pickle=False) as file:
            if file["key"].tobytes().decode() != key:
                return None
            reasons = json.loads(file["reasons"].tobytes())
            return Scan(file["table"], {int(number): reason for number, reason in reasons.items()})
    except Exception:  # whatever is wrong with a cache, the answer is to do without it
        return None


def _store(cache: Path, key: str, scan: Scan) -> None:
    name = np.frombuffer(key.encode(), np.uint8)
    with contextlib.suppress(UserError), atomic_write(cache) as file:
        np.savez(file, key=name, table=scan.table, reasons=json_column(scan.reasons))
