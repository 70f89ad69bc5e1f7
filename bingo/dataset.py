"""A packed dataset: one flat file of encoded images and one index. `bingo.pack` writes it, this file reads it.

The index, `index.npz`, is written last: it names the flat file and is what makes the dataset exist.
"""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bingo.errors import UserError
from bingo.files import HASH_BYTES, new_hash

KIND = "bingo packed images"
VERSION = 1
INDEX = "index.npz"
JPEG, PNG = 1, 2  # values of `formats`
COLUMNS = {
    "offset": np.int64,
    "size": np.int64,
    "height": np.int32,
    "width": np.int32,
    "label": np.int32,
    "format": np.uint8,
    "digest": np.uint8,
    "paths": np.uint8,
    "header": np.uint8,
}


def image_digest(data: bytes | npt.NDArray[np.uint8]) -> bytes:
    """Content hash of one encoded image, 16 bytes."""
    digest = new_hash()
    digest.update(data)
    return digest.digest()


def content_hash(digests: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32], classes: list[str]) -> str:
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
    `paths` where each image came from, relative to the source; `left_out` and `converted` map the path of a bad file
    that is not in the dataset, or of one stored on `--convert`, to the reason.
    """

    path: Path
    hash: str
    classes: list[str]
    labels: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    formats: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8]
    paths: list[str]
    left_out: dict[str, str]
    converted: dict[str, str]
    _offsets: npt.NDArray[np.int64]
    _lengths: npt.NDArray[np.int64]
    _bytes: npt.NDArray[np.uint8]

    @classmethod
    def open(cls, path: Path) -> "Dataset":
        """Map the dataset in folder `path`; a folder of class sub-folders is an `ImageFolder`.

        Raises `UserError` when it is missing, is no packed dataset, or when index and flat file do not fit together.
        The images themselves are not read: `verify` does that.
        """
        path = Path(path)
        if is_image_folder(path):
            from bingo.image_folder import ImageFolder  # a subclass of this class

            return ImageFolder(path)
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
            paths=json.loads(columns["paths"].tobytes()),
            left_out=header["left_out"],
            converted=header["converted"],
            _offsets=columns["offset"],
            _lengths=columns["size"],
            _bytes=_map_images(path / header["bin"], header["bin_bytes"]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> npt.NDArray[np.uint8]:
        """The encoded image `index` (uint8, read-only): a view of the mapped file, nothing is copied."""
        start = self._offsets[index]
        return self._bytes[start : start + self._lengths[index]]

    def verify(self) -> list[str]:
        """Hash every image again and return the paths of those whose bytes are no longer the ones packed."""
        return [
            path
            for index, path in enumerate(self.paths)
            if image_digest(self.encoded(index)) != self.digests[index].tobytes()
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by location: the default would copy the whole mapped file into the stream.
        return Dataset.open, (self.path,)


def read_index(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The header and the columns of the index in folder `path`; errors as for `Dataset.open`."""
    if not path.exists():
        raise UserError(f"the packed dataset {path} does not exist; make one with: bingo pack DIR {path}")
    index = path / INDEX
    if not index.is_file():
        raise UserError(_not_packed(path))
    try:
        with np.load(index, allow_pickle=False) as file:
            columns = {name: file[name] for name in COLUMNS}
        header = json.loads(columns["header"].tobytes())
    except PermissionError:
        raise UserError(f"{index} cannot be read: permission denied") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{index} is truncated or not an index written by bingo pack; pack the images again") from error
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise UserError(f"{index} was not written by bingo pack; name the folder of a packed dataset")
    if header.get("version") != VERSION:
        raise UserError(
            f"{index} has format version {header.get('version')}, this release reads {VERSION}; pack the images again"
        )
    return header, columns


def _not_packed(path: Path) -> str:
    if not path.is_dir():
        return f"{path} is a file, not a packed dataset; name the folder that bingo pack wrote, or an image folder"
    return f"{path} is not a packed dataset (no {INDEX} in it) and has no class sub-folders; name one of the two"


def is_image_folder(path: Path) -> bool:
    """Whether a folder looks like one of class sub-folders: there is a visible folder in it, and no index."""
    if not path.is_dir() or (path / INDEX).exists():
        return False
    with os.scandir(path) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


def _check_index(path: Path, header: dict[str, Any], columns: dict[str, npt.NDArray[Any]]) -> None:
    """Refuse an index that was changed after packing: its columns no longer give its own content hash."""
    rows = columns["label"].shape
    shapes = dict.fromkeys(("offset", "size", "height", "width", "label", "format"), rows)
    shapes["digest"] = (*rows, HASH_BYTES)
    sound = all(columns[name].shape == shape and columns[name].dtype == COLUMNS[name] for name, shape in shapes.items())
    if not sound or header["hash"] != content_hash(columns["digest"], columns["label"], header["classes"]):
        raise UserError(f"{path / INDEX} does not match its own content hash; pack the images again")


def _map_images(file: Path, size: int) -> npt.NDArray[np.uint8]:
    if not file.is_file():
        raise UserError(f"{file} is missing, the index beside it refers to it; restore it or pack the images again")
    if file.stat().st_size != size:
        raise UserError(f"{file} has {file.stat().st_size} bytes instead of {size}; copy it whole or pack again")
    try:
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
