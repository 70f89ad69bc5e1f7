"""Pack images: flat files of encoded images and an index, in place of a million small files.

Order of events, so that a kill at any moment loses a few seconds of work and no dataset: images are appended to hidden
flat files, `.pack-000.bin`, ..., then the journal `.pack.journal` records where each lies (`bingo.images.journal`); at
the end the flat files are renamed to names that carry a hash, then the index, which names them, is replaced in one
step, then `verdicts.json` is written and whatever the index does not name is removed. What `--convert` would store
otherwise lies in flat files of its own, `.pack-c000.bin`, ...: adding the flag costs those images alone, and the
dataset is the same, byte for byte, after any number of interruptions.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bingo.config import PackConfig
from bingo.errors import UserError, file_error, remedy
from bingo.files import BEGUN, REPLACED, atomic_write, new_hash, sync_folder
from bingo.images.check import inspect_images
from bingo.images.convert import shrunk_size
from bingo.images.dataset import (
    COLUMNS,
    INDEX,
    JPEG,
    KIND,
    PNG,
    VERSION,
    Dataset,
    dataset_hash,
    json_column,
    read_index,
)
from bingo.images.flat_files import Packing, stream_sizes
from bingo.images.held_folder import held_folder
from bingo.images.journal import BAD, CONVERTIBLE, SAVE_SECONDS, Journal, depends_on_mode
from bingo.images.listing import Listing
from bingo.images.names import printable
from bingo.images.parallel import Advance
from bingo.images.sources import list_source
from bingo.images.verdicts import ACTIONS, CHECK_WORDS, FORMATS, Verdicts
from bingo.paths import quoted
from bingo.progress import progress_bar

if TYPE_CHECKING:
    from bingo.distributed import World

LISTED = 10
GIB = 2**30
SHARD_GIB = 64.0
VERDICTS = "verdicts.json"
JOURNAL = ".pack.journal"
FLAT_FILE = re.compile(r"images-[0-9a-f]{12}(-\d{3,})?\.bin")  # without a number: format 1
PARTIAL = re.compile(r"\.pack(\.journal|-c?\d{3,}\.bin)")


def pack_folder(source: Path, out: Path, **options: Any) -> Dataset:
    """`pack_source`, with its options, and the dataset opened."""
    pack_source(source, out, **options)
    return Dataset.from_index(out)


def pack_source(
    source: Path,
    out: Path,
    *,
    convert: bool = False,
    allow_bad: bool = False,
    workers: int = 0,
    shard_gib: float = SHARD_GIB,
    advance: Advance | None = None,
    class_from: str = "",
    ext: str = "",
) -> Verdicts:
    """Check every image of `source` (`bingo.images.sources`), store the encoded files in `out`; what became of each.

    `convert` and `allow_bad` decide about files that are not plainly ok, see the table in `bingo.images.check`;
    `workers`, `advance`, `class_from` and `ext` as in `check_folder`; no flat file is larger than `shard_gib` GiB,
    unless one image is.
    Each file is read once: the bytes checked are the bytes stored. An interrupted or refused pack of the same files
    goes on where it was; a dataset that is in `out` stays until the new one is whole.
    Raises `UserError` for a bad source (see `check_folder`), for bad or convertible files without the flag, for an
    `out` that holds something else, lies inside `source` or is being written, and for a full disk.
    """
    source, out = Path(source), Path(out)
    listing = list_source(source, class_from=class_from, ext=ext)
    _check_place(source, out)
    with held_folder(out, "pack"), contextlib.ExitStack() as after, _errors(out):
        after.callback(_sweep, out)
        limit = int(shard_gib * GIB)
        journal = Journal(out / JOURNAL, f"{listing.fingerprint} {limit}", str(convert), len(listing.paths))
        with contextlib.closing(journal), contextlib.closing(_resume(listing, journal, out, limit)) as packing:
            try:
                for index, inspection in inspect_images(listing, journal.pending, workers, advance, convert=convert):
                    packing.add(index, inspection)
                    packing.save(due=SAVE_SECONDS)
            finally:
                packing.save()
            verdicts = Verdicts(listing, journal.rows, journal.reasons, packed=True)
            _refuse(verdicts, convert, allow_bad)
            _commit(out, listing, packing, verdicts)
    return verdicts


def _resume(listing: Listing, journal: Journal, out: Path, limit: int) -> Packing:
    files = [] if len(journal.pending) else build_index(listing, journal.rows)[0]["files"]
    return Packing(journal, out, limit, [out / name for name, _ in files])


def build_index(listing: Listing, rows: npt.NDArray[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the columns of the index: the stored images in the order of the listing."""
    stored = np.flatnonzero(rows["stored"] > 0)
    rows = rows[stored]
    changed = depends_on_mode(rows)
    sizes = stream_sizes(rows[~changed])
    columns: dict[str, Any] = {
        "shard": rows["shard"] + np.where(changed, len(sizes), 0),
        "offset": rows["offset"],
        "size": rows["stored"],
        "height": rows["height"].copy(),
        "width": rows["width"].copy(),
        "format": np.full(len(rows), PNG),
        "label": listing.labels[stored],
        "digest": rows["digest"],
    }
    converted = rows["converted"] > 0
    for index in np.flatnonzero(converted & (rows["action"] == ACTIONS.index("shrink"))):
        size = shrunk_size(int(rows["width"][index]), int(rows["height"][index]))
        columns["width"][index], columns["height"][index] = size
    png = (rows["format"] == FORMATS.index("png")) | (converted & (rows["action"] == ACTIONS.index("png")))
    columns["format"][~png] = JPEG
    columns = {name: np.ascontiguousarray(values, dtype=COLUMNS[name]) for name, values in columns.items()}
    names = listing.paths.take(stored)
    columns["paths"], columns["path_ends"] = names.data, names.ends
    content = dataset_hash(columns["digest"], columns["label"], listing.classes)
    layout = new_hash()
    for part in (content.encode(), columns["shard"], columns["offset"]):
        layout.update(part)
    sizes += stream_sizes(rows[changed])
    header = {
        "kind": KIND,
        "version": VERSION,
        "hash": content,
        "classes": listing.classes,
        "files": [[f"images-{layout.hexdigest()[:12]}-{k:03d}.bin", size] for k, size in enumerate(sizes)],
    }
    return header, columns


def _commit(out: Path, listing: Listing, packing: Packing, verdicts: Verdicts) -> None:
    header, columns = build_index(listing, verdicts.rows)
    header["counts"] = verdicts.counts
    for partial, (name, _) in zip(packing.files, header["files"], strict=True):
        if partial.exists():  # else a commit that was killed has renamed it
            os.replace(partial, out / name)
    sync_folder(out)  # the index must not reach the disk before the files that it names
    with atomic_write(out / INDEX) as index:
        np.savez(index, header=json_column(header), **columns)
    verdicts.write_json(out / VERDICTS, dataset=header["hash"], source=printable(listing.source.name))
    packing.journal.remove()


def _check_place(source: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"cannot pack into {out}: it is a file; name a new folder")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"cannot pack into {out}: it lies inside the image folder {source}; name a folder elsewhere")
    if out.exists() and not ((out / INDEX).exists() or (out / REPLACED).exists()):
        names = [name for name in sorted(os.listdir(out)) if name[0] != "." and name not in BEGUN]
        foreign = [name for name in names if not FLAT_FILE.fullmatch(name)]
        if foreign:
            raise UserError(
                f"cannot pack into {out}: it holds {foreign[0]!r} and no packed dataset; name a new or empty folder"
            )


@contextlib.contextmanager
def _errors(out: Path) -> Iterator[None]:
    """Errors in reading an image are verdicts, so an OSError here is about writing."""
    try:
        yield
    except OSError as error:
        kept = "; the previous dataset is intact" if (out / INDEX).exists() else ""
        reason = error.strerror or error
        raise file_error(
            error,
            f"cannot write the images to {out}: {reason}{kept}; {remedy(error)} and repeat the command to go on, "
            f"or delete {out}/.pack* and choose another folder",
        ) from error


def _refuse(verdicts: Verdicts, convert: bool, allow_bad: bool) -> None:
    """Raise if files are not packed as they are and the flag for them is missing."""
    verdict, source = verdicts.rows["verdict"], verdicts.listing.source
    asked = ((verdict == BAD) & (not allow_bad)) | ((verdict == CONVERTIBLE) & (not convert))
    refused = np.flatnonzero(asked)
    if not len(refused):
        if not verdicts.rows["stored"].any():
            raise UserError(f"every image of {source} is bad, nothing is left to pack; see bingo check")
        return
    names = [
        f"  {printable(verdicts.listing.paths[int(index)])}: "
        f"{verdicts.reasons[verdicts.rows['reason'][index]]} [{CHECK_WORDS[verdict[index]]}]"
        for index in refused[:LISTED]
    ]
    if len(refused) > LISTED:
        names.append(f"  and {len(refused) - LISTED} more (bingo check {quoted(source)} lists all)")
    bad = int(np.count_nonzero(verdict[refused] == BAD))
    ways = [
        f"--allow-bad leaves out the bad files ({bad})" if bad else "",
        f"--convert stores the convertible ones ({len(refused) - bad})" if bad < len(refused) else "",
    ]
    raise UserError(
        f"{len(refused)} of {len(verdict)} images in {source} are not packed as they are:\n"
        + "\n".join(names)
        + f"\nno dataset was written; {', '.join(filter(None, ways))}, and sound files are not read again"
    )


def _sweep(out: Path) -> None:
    """Remove flat files that the index does not name (all, without an index).

    While a pack can go on from a journal, what it needs stays: a commit that was killed may have renamed its files.
    """
    named: set[str] | None = set()
    if (out / INDEX).exists():
        try:
            named = {name for name, _ in read_index(out)[0]["files"]}
        except UserError:
            named = None  # a damaged index may be restored: keep every flat file
    resumable = (out / JOURNAL).exists()
    for name in os.listdir(out):
        stale = named is not None and FLAT_FILE.fullmatch(name) and name not in named
        if not resumable and (stale or PARTIAL.fullmatch(name)):
            with contextlib.suppress(OSError):
                (out / name).unlink()


def run(config: PackConfig, key: str, world: "World") -> dict[str, Any]:
    """The `pack` stage."""
    with progress_bar("pack", unit="images", images=1) as advance:
        verdicts = pack_source(
            config.source,
            config.out,
            convert=config.convert,
            allow_bad=config.allow_bad,
            workers=config.workers,
            shard_gib=config.shard_gib,
            advance=advance,
            class_from=config.class_from,
            ext=config.ext,
        )
    for line in verdicts.lines():
        print(line)
    return {"images": len(Dataset.from_index(config.out)), "classes": len(verdicts.listing.classes), **verdicts.counts}
