"""An image folder read in place, without packing: headers are scanned once, files are opened as DALI needs them.

Packing stays the better way to train often: it checks the pixels of every file and reads one large file instead of many
small ones. Here only headers are looked at, so a file that is cut off shows when it is decoded, and the content hash
follows names and byte sizes, not bytes.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bingo.check import Header, Listing, identify, in_order, list_images, quiet_pillow, read_regular
from bingo.config import Loader
from bingo.dataset import JPEG, PNG, Dataset, image_digest, json_column
from bingo.errors import UserError
from bingo.files import HASH_BYTES, atomic_write, hash_json

log = logging.getLogger(__name__)

SCAN_VERSION = 1
CHUNK = 500  # files per task: a task of one file would cost more than the file
MOST_THREADS = 32  # they wait for the file system, network ones above all

Scan = dict[str, tuple[int, int, int, str]]  # path -> height, width, format, reason why it cannot be used


class ImageFolder(Dataset):
    """N image files with labels, in the order of `bingo check`; what `Dataset` says of its fields holds here.

    `hash` covers relative paths, byte sizes, labels and class names; the content is not read, so a file that is
    replaced by another of the same size and name is not noticed. `left_out` names the files whose header says that
    they cannot be used. `digests` reads every file once, when first asked for.
    """

    def __init__(self, path: Path) -> None:
        """Scan the folder, or take the scan from the cache; errors as for `list_images`, or no usable file."""
        listing = list_images(path)
        status = _statuses(listing)
        scan = _cached_scan(listing, status)
        left_out = {name: scan[name][3] for name in listing.paths if scan[name][3]}
        paths = [name for name in listing.paths if name not in left_out]
        if not paths:
            raise UserError(f"none of the {len(listing.paths)} image files of {path} can be used: {_named(left_out)}")
        order = {name: label for label, name in enumerate(listing.classes)}
        labels = np.array([order[name.partition("/")[0]] for name in paths], np.int32)
        table = np.array([scan[name][:3] for name in paths], np.int32)
        content = [listing.classes, [[name, status[name][0]] for name in paths], labels.tolist()]
        fields: dict[str, Any] = {
            "path": Path(path), "hash": hash_json(["image folder", *content]), "classes": listing.classes,
            "labels": labels, "sizes": table[:, :2].copy(), "formats": table[:, 2].astype(np.uint8), "paths": paths,
            "left_out": left_out, "converted": {},
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

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageFolder, (self.path,)


def open_images(path: Path, settings: Loader, *, tell: bool = True) -> Dataset:
    """A packed dataset or an image folder. tell: say in the log what was left out (rank 0).

    `UserError` when a folder holds files that cannot be used and `allow_bad` is not set.
    """
    dataset = Dataset.open(path)
    if isinstance(dataset, ImageFolder) and dataset.left_out:
        many, named = len(dataset.left_out), _named(dataset.left_out)
        if not settings.allow_bad:
            raise UserError(
                f"{many} file(s) of {path} cannot be used: {named}; repair or delete them, or leave them out with "
                "--loader.allow-bad"
            )
        if tell:
            log.warning("%d file(s) of %s are left out: %s", many, path, named)
    return dataset


def _named(left_out: dict[str, str]) -> str:
    first = ", ".join(f"{name} ({reason})" for name, reason in list(left_out.items())[:5])
    return first + (", ..." if len(left_out) > 5 else "")


def _threads() -> int:
    return min(MOST_THREADS, 4 * len(os.sched_getaffinity(0)))


def _in_chunks(listing: Listing, look: Any) -> dict[str, Any]:
    """`look(path)` of every file, in parallel threads."""
    chunks = [listing.paths[first : first + CHUNK] for first in range(0, len(listing.paths), CHUNK)]
    with ThreadPoolExecutor(_threads()) as pool:
        found = in_order(pool, lambda chunk: [look(path) for path in chunk], chunks, 4 * _threads())
        return dict(zip(listing.paths, (item for part in found for item in part), strict=True))


def _statuses(listing: Listing) -> dict[str, tuple[int, int]]:
    """Path -> size in bytes and modification time in ns; of a link to nothing (-1, 0)."""

    def look(path: str) -> tuple[int, int]:
        try:
            status = os.stat(listing.source / path)
        except OSError:
            return -1, 0
        return status.st_size, status.st_mtime_ns

    return _in_chunks(listing, look)


def _scan(listing: Listing) -> Scan:
    def look(path: str) -> tuple[int, int, int, str]:
        header = read_regular(listing.source / path, _identify_file)
        if isinstance(header, str):
            return 0, 0, 0, header
        return header.height, header.width, PNG if header.kind == "png" else JPEG, header.reason

    with quiet_pillow():
        return _in_chunks(listing, look)


def _identify_file(path: Path) -> Header:
    with open(path, "rb") as file:
        return identify(file)


def _cached_scan(listing: Listing, status: dict[str, tuple[int, int]]) -> Scan:
    """The scan of exactly this listing, sizes and times; one process of a machine makes it, the others wait for it."""
    source = str(listing.source.resolve())
    key = hash_json([SCAN_VERSION, source, listing.classes, list(status.items())])
    base = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(base) if base else Path.home() / ".cache") / "bingo" / f"{hash_json(source)}.npz"
    with _turn(cache.with_suffix(".lock")):
        scan = _load(cache, key, listing.paths)
        if scan is None:
            scan = _scan(listing)
            _store(cache, key, scan)
    return scan


@contextlib.contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """One process at a time, where the cache folder can be written and has locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context(open(lock, "w")), fcntl.LOCK_EX)
        yield


def _load(cache: Path, key: str, paths: list[str]) -> Scan | None:
    try:
        with np.load(cache, allow_pickle=False) as file:
            if file["key"].tobytes().decode() != key:
                return None
            table, reasons = file["table"].tolist(), json.loads(file["reasons"].tobytes())
    except Exception:  # whatever is wrong with a cache, the answer is to do without it
        return None
    return {path: (h, w, kind, reasons.get(path, "")) for path, (h, w, kind) in zip(paths, table, strict=True)}


def _store(cache: Path, key: str, scan: Scan) -> None:
    reasons = {path: row[3] for path, row in scan.items() if row[3]}
    table = np.array([row[:3] for row in scan.values()], np.int32)
    with contextlib.suppress(UserError), atomic_write(cache) as file:
        np.savez(file, key=np.frombuffer(key.encode(), np.uint8), table=table, reasons=json_column(reasons))
