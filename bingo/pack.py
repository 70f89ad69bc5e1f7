"""Pack an image folder: one flat file of encoded images and an index, in place of a million small files.

Order of events, so that a kill at any moment leaves the old dataset or the new one: the flat file is written under a
temporary name, flushed to disk and renamed to a name that carries its content hash; then the index, which names it, is
replaced in one step; then whatever the index does not name is removed.
"""

import contextlib
import fcntl
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from bingo.check import FileVerdict, Inspection, Listing, Progress, inspect_images, list_images, to_rgb_png
from bingo.config import PackConfig
from bingo.dataset import (
    COLUMNS,
    INDEX,
    JPEG,
    KIND,
    PNG,
    VERSION,
    Dataset,
    content_hash,
    image_digest,
    json_column,
    read_index,
)
from bingo.errors import UserError
from bingo.files import HASH_BYTES, atomic_write
from bingo.progress import progress

if TYPE_CHECKING:
    from bingo.distributed import World

log = logging.getLogger(__name__)
LISTED = 10
FLAT_FILE = re.compile(r"images-[0-9a-f]{12}\.bin")
TEMPORARY = re.compile(r"\.images\.\d+\.tmp|\.index\.npz\.\d+\.tmp")


def pack_folder(
    source: Path,
    out: Path,
    *,
    convert: bool = False,
    allow_bad: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """Check every image below `source` and store the encoded files in `out`; returns the dataset, opened.

    `convert` stores convertible files: misnamed ones as they are, CMYK JPEGs and 16-bit, palette and alpha PNGs as RGB
    PNGs (`bingo.check.to_rgb_png`). `allow_bad` leaves bad files out. `workers` and `progress` as in `check_folder`.
    Each file is read once: the bytes checked are the bytes stored.
    Raises `UserError` for a bad folder (see `check_folder`), for bad or convertible files without the flag (nothing is
    written), for an `out` that holds something else, lies inside `source` or is being written, and for a full disk.
    """
    source, out = Path(source), Path(out)
    listing = list_images(source)
    _check_place(source, out)
    with _folder(out), _flat_file(out) as (file, temporary):
        rows = _Rows(convert, allow_bad)
        for inspection in inspect_images(listing, workers, progress):
            rows.add(inspection, file)
        _refuse(listing, rows)
        _commit(out, file, temporary, *_index(listing, rows))
    return Dataset.open(out)


@dataclass
class _Rows:
    """The index while it grows; once a file is refused nothing more is stored, the rest is only checked."""

    convert: bool
    allow_bad: bool
    columns: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    digests: bytearray = field(default_factory=bytearray)
    refused: list[FileVerdict] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    converted: dict[str, str] = field(default_factory=dict)
    end: int = 0

    def add(self, inspection: Inspection, file: BinaryIO) -> None:
        verdict = inspection.verdict
        allowed = {"ok": True, "convertible": self.convert, "bad": self.allow_bad}[verdict.verdict]
        if not allowed:
            self.refused.append(verdict)
        elif verdict.verdict == "bad":
            self.left_out[verdict.path] = verdict.reason
        elif not self.refused:
            if verdict.reason:
                self.converted[verdict.path] = verdict.reason
            self._store(verdict, to_rgb_png(inspection.data) if verdict.recode else inspection.data, file)

    def _store(self, verdict: FileVerdict, data: bytes, file: BinaryIO) -> None:
        file.write(data)
        row = {
            "offset": self.end,
            "size": len(data),
            "height": verdict.height,
            "width": verdict.width,
            "class": verdict.path.partition("/")[0],
            "format": PNG if verdict.recode or verdict.format == "png" else JPEG,
            "path": verdict.path,
        }
        for name, value in row.items():
            self.columns[name].append(value)
        self.digests += image_digest(data)
        self.end += len(data)


def _check_place(source: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"cannot pack into {out}: it is a file; name a new folder")
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"cannot pack into {out}: it lies inside the image folder {source}; name a folder elsewhere")
    if out.exists() and not (out / INDEX).exists():
        foreign = [name for name in sorted(os.listdir(out)) if not FLAT_FILE.fullmatch(name) and name[0] != "."]
        if foreign:
            raise UserError(
                f"cannot pack into {out}: it holds {foreign[0]!r} and no packed dataset; name a new or empty folder"
            )


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Make `out` if need be and hold its lock; afterwards it holds what its index names, or is gone if it was new."""
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write the folder {out}: {error.strerror}; choose another folder") from error
    try:
        _lock(descriptor, out)
        try:
            yield
        finally:
            _sweep(out)
            if new:
                with contextlib.suppress(OSError):  # not empty: the pack succeeded
                    out.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another pack is writing {out} now; wait for it or choose another folder") from None
    except OSError:
        pass  # file systems without locks (some NFS): then it is up to the user not to pack twice at once


@contextlib.contextmanager
def _flat_file(out: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file for the images. Errors in reading an image are verdicts, so an OSError here is about writing."""
    temporary = out / f".images.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file, temporary
    except OSError as error:
        kept = "; the previous dataset is intact" if (out / INDEX).exists() else ""
        reason = error.strerror or error
        raise UserError(
            f"cannot write the images to {out}: {reason}{kept}; free space or choose another folder"
        ) from error


def _refuse(listing: Listing, rows: _Rows) -> None:
    if not rows.refused:
        if rows.end == 0:
            raise UserError(f"every image of {listing.source} is bad, nothing is left to pack; see bingo check")
        return
    names = [f"  {verdict.path}: {verdict.reason} [{verdict.verdict}]" for verdict in rows.refused[:LISTED]]
    if len(rows.refused) > LISTED:
        names.append(f"  and {len(rows.refused) - LISTED} more (bingo check {listing.source} lists all)")
    bad = sum(verdict.verdict == "bad" for verdict in rows.refused)
    ways = [
        f"--allow-bad leaves out the bad files ({bad})" if bad else "",
        f"--convert stores the convertible ones ({len(rows.refused) - bad})" if bad < len(rows.refused) else "",
    ]
    raise UserError(
        f"{len(rows.refused)} of {len(listing.paths)} images in {listing.source} are not packed as they are:\n"
        + "\n".join(names)
        + f"\nnothing was written; {', '.join(filter(None, ways))}"
    )


def _index(listing: Listing, rows: _Rows) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the other columns of the index."""
    number = {name: label for label, name in enumerate(listing.classes)}
    columns: dict[str, Any] = {name: rows.columns[name] for name in ("offset", "size", "height", "width", "format")}
    columns["label"] = [number[name] for name in rows.columns["class"]]
    arrays = {name: np.array(values, dtype=COLUMNS[name]) for name, values in columns.items()}
    arrays["digest"] = np.frombuffer(rows.digests, dtype=np.uint8).reshape(-1, HASH_BYTES)
    arrays["paths"] = json_column(rows.columns["path"])
    content = content_hash(arrays["digest"], arrays["label"], listing.classes)
    header = {
        "kind": KIND,
        "version": VERSION,
        "hash": content,
        "classes": listing.classes,
        "bin": f"images-{content[:12]}.bin",
        "bin_bytes": rows.end,
        "left_out": rows.left_out,
        "converted": rows.converted,
    }
    return header, arrays


def _commit(out: Path, file: BinaryIO, temporary: Path, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
    os.replace(temporary, out / header["bin"])
    with atomic_write(out / INDEX) as index:
        np.savez(index, header=json_column(header), **arrays)


def _sweep(out: Path) -> None:
    """Remove temporaries, of killed runs too, and flat files that the index does not name (all, without an index)."""
    named: set[str] | None = set()
    if (out / INDEX).exists():
        try:
            named = {read_index(out)[0]["bin"]}
        except UserError:
            named = None  # a damaged index may be restored: keep every flat file
    for name in os.listdir(out):
        stale = named is not None and FLAT_FILE.fullmatch(name) and name not in named
        if stale or TEMPORARY.fullmatch(name):
            with contextlib.suppress(OSError):
                (out / name).unlink()


def run(config: PackConfig, key: str, world: "World") -> dict[str, Any]:
    """The `pack` stage."""
    with progress("pack") as advance:
        dataset = pack_folder(
            config.source,
            config.out,
            convert=config.convert,
            allow_bad=config.allow_bad,
            workers=config.workers,
            progress=advance,
        )
    for path, reason in dataset.left_out.items():
        log.warning("left out %s: %s", path, reason)
    return {"images": len(dataset), "classes": len(dataset.classes), "left out": len(dataset.left_out) or None}
