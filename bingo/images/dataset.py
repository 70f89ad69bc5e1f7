"""A packed dataset: flat files of encoded images and one index. `bingo.images.pack` writes it, this file reads it.

The index, `index.npz`, is written last: it names the flat files and is what makes the dataset exist.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bingo.errors import UserError, file_error
from bingo.files import HASH_BYTES, new_hash
from bingo.images.digests import first_with_digest, image_digest
from bingo.images.names import Names
from bingo.images.parallel import Advance, in_order

KIND = "bingo packed images"
VERSION = 2
INDEX = "index.npz"
JPEG, PNG = 1, 2  # values of `formats`
COLUMNS = {
    "shard": np.int32,
    "offset": np.int64,
    "size": np.int64,
    "height": np.int32,
    "width": np.int32,
    "label": np.int32,
    "format": np.uint8,
    "digest": np.uint8,
    "paths": np.uint8,
    "path_ends": np.int64,
}
PER_IMAGE = ("shard", "offset", "size", "height", "width", "label", "format", "path_ends")
VERIFIED_AT_ONCE = 256  # images
INTACT, DAMAGED = 1, 2
WORTH_THREADS = 1 << 20  # bytes to hash below which threads cost more than they save


def dataset_hash(digests: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32], classes: list[str]) -> str:
    """Hex hash of digests (N×16), labels (N) and class names; folder and file names play no part."""
    digest = new_hash()
    digest.update(json.dumps([VERSION, classes, len(labels)]).encode())
    digest.update(np.ascontiguousarray(labels, dtype="<i4").tobytes())
    digest.update(np.ascontiguousarray(digests, dtype=np.uint8).tobytes())
    return digest.hexdigest()


def json_column(value: Any) -> npt.NDArray[np.uint8]:
    """A JSON value as UTF-8 bytes in an array, so that the index needs no pickling."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Dataset:
    """N encoded images with labels, memory-mapped.

    `hash` is the content hash; `labels` int32 (N), an index into `classes`; `sizes` int32 (N×2), height and width in
    pixels as stored (EXIF orientation ignored); `formats` uint8 (N), `JPEG` or `PNG`; `digests` uint8 (N×16);
    `paths` where each image came from, relative to the source; `counts` how many files of the source are stored as
    they are ("ok"), "converted" or "excluded" (`verdicts.json` beside the index says which).
    """

    path: Path
    hash: str
    classes: list[str]
    labels: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    formats: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8]
    paths: Names
    counts: dict[str, int]
    _shards: npt.NDArray[np.int32]
    _offsets: npt.NDArray[np.int64]
    _lengths: npt.NDArray[np.int64]
    _files: tuple[Path, ...]
    _maps: tuple[npt.NDArray[np.uint8], ...]

    @classmethod
    def from_index(cls, path: Path) -> "Dataset":
        """Map the packed dataset in folder `path`; `bingo.images.open` also opens image folders.

        Raises `UserError` when it is missing, is no packed dataset, or when index and flat file do not fit together.
        The images themselves are not read: `verify` does that.
        """
        path = Path(path)
        header, columns = read_index(path)
        _check_index(path, header, columns)
        return cls(
            path=path,
            hash=header["hash"],
            classes=header["classes"],
            labels=columns["label"],
            sizes=np.stack([columns["height"], columns["width"]], axis=1),
            formats=columns["format"],
            digests=columns["digest"],
            paths=Names(columns["paths"], columns["path_ends"]),
            counts=header["counts"],
            _shards=columns["shard"],
            _offsets=columns["offset"],
            _lengths=columns["size"],
            _files=tuple(path / name for name, _ in header["files"]),
            _maps=tuple(_map_images(path / name, size) for name, size in header["files"]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> npt.NDArray[np.uint8]:
        """The encoded image `index` (uint8, read-only): a view of the mapped file, nothing is copied."""
        start = self._offsets[index]
        return self._maps[self._shards[index]][start : start + self._lengths[index]]

    @cached_property
    def duplicates(self) -> npt.NDArray[np.int64]:
        """For each image the lowest index with the same bytes (its own, unless it is a duplicate): int64 (N)."""
        return first_with_digest(self.digests)

    def damaged(self, images: Iterable[int], threads: int = 1) -> set[int]:
        """Which of these images are not, or no longer, the bytes that were packed.

        Each is hashed at its first call only, on so many threads, and remembered in this process.
        """
        wanted = list(dict.fromkeys(int(image) for image in images))
        new = [image for image in wanted if not self._looked_at[image]]
        if sum(int(self._lengths[image]) for image in new) < WORTH_THREADS:
            threads = 1
        for image, same in zip(new, _map(self._is_intact, new, threads), strict=True):
            self._looked_at[image] = INTACT if same else DAMAGED
        return {image for image in wanted if self._looked_at[image] == DAMAGED}

    @cached_property
    def _looked_at(self) -> npt.NDArray[np.uint8]:
        return np.zeros(len(self), np.uint8)

    def _is_intact(self, image: int) -> bool:
        return image_digest(self.encoded(image)) == self.digests[image].tobytes()

    def verify(self, *, workers: int = 0, advance: Advance | None = None) -> list[str]:
        """Hash every image again and return the paths of those whose bytes are not, or no longer, the ones packed.

        `workers` threads, 0 = one per available core; `advance(done, total)` is called from the calling thread.
        """
        workers = workers or len(os.sched_getaffinity(0))
        damaged = []
        with ThreadPoolExecutor(workers) as pool:
            for part in in_order(pool, self._damaged, range(0, len(self), VERIFIED_AT_ONCE), 2 * workers):
                damaged += part[1]
                if advance is not None:
                    advance(part[0], len(self))
        return [self.paths[index] for index in damaged]

    def _damaged(self, start: int) -> tuple[int, list[int]]:
        """Where a batch that begins at `start` ends, and which images of it are damaged.

        Read, not mapped: an unreadable block is then an error that can be named, and no page stays in memory.
        """
        stop, damaged = min(start + VERIFIED_AT_ONCE, len(self)), []
        with contextlib.ExitStack() as stack:
            files = {k: stack.enter_context(open(self._files[k], "rb", 0)) for k in set(self._shards[start:stop])}
            for index in range(start, stop):
                place = int(self._lengths[index]), int(self._offsets[index])
                try:
                    data = os.pread(files[self._shards[index]].fileno(), *place)
                except OSError:
                    data = b""
                if image_digest(data) != self.digests[index].tobytes():
                    damaged.append(index)
        return stop, damaged

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by location: the default would copy the whole mapped file into the stream.
        return Dataset.from_index, (self.path,)


def _map(function: Callable[[int], bool], numbers: list[int], threads: int) -> Iterator[bool]:
    """`map`, on several threads."""
    if threads == 1:
        yield from map(function, numbers)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, numbers)


def read_index(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The header and the columns of the index in folder `path`; errors as for `Dataset.from_index`."""
    if not path.exists():
        raise UserError(f"the packed dataset {path} does not exist; make one with: bingo pack DIR {path}")
    index = path / INDEX
    if not index.is_file():
        raise UserError(_not_packed(path))
    try:
        with np.load(index, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            known = isinstance(header, dict) and (header.get("kind"), header.get("version")) == (KIND, VERSION)
            columns = {name: file[name] for name in COLUMNS} if known else {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno:
            raise file_error(error, f"{index} cannot be read: {error.strerror}") from error
        raise UserError(f"{index} is truncated or not an index written by bingo pack; pack the images again") from error
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise UserError(f"{index} was not written by bingo pack; name the folder of a packed dataset")
    if not known:
        raise UserError(
            f"{index} has format version {header.get('version')}, this release reads {VERSION}; pack the images again"
        )
    return header, columns


def _not_packed(path: Path) -> str:
    if not path.is_dir():
        return f"{path} is a file, not a packed dataset; name the folder that bingo pack wrote, or an image folder"
    return f"{path} is not a packed dataset (no {INDEX} in it) and has no class sub-folders; name one of the two"


def _check_index(path: Path, header: dict[str, Any], columns: dict[str, npt.NDArray[Any]]) -> None:
    """Refuse an index that was changed after packing: its columns no longer give its own content hash."""
    rows = columns["label"].shape
    shapes = dict.fromkeys(PER_IMAGE, rows)
    shapes["digest"] = (*rows, HASH_BYTES)
    sound = all(columns[name].shape == shape and columns[name].dtype == COLUMNS[name] for name, shape in shapes.items())
    if not sound or header["hash"] != dataset_hash(columns["digest"], columns["label"], header["classes"]):
        raise UserError(f"{path / INDEX} does not match its own content hash; pack the images again")


def _map_images(file: Path, size: int) -> npt.NDArray[np.uint8]:
    if not file.is_file():
        raise UserError(f"{file} is missing, the index beside it refers to it; restore it or pack the images again")
    if file.stat().st_size != size:
        raise UserError(f"{file} has {file.stat().st_size} bytes instead of {size}; copy it whole or pack again")
    try:
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise file_error(error, f"{file} cannot be read: {error.strerror}") from error
