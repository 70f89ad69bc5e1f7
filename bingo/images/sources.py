"""Where images come from: a folder of class folders, or uncompressed tar files. Lists them; opens none.

| source | class of an image |
|---|---|
| `DIR/<class>/.../<image>` | first folder; every folder is a class even without images, so that two splits agree |
| tar members `key.jpg` + `key.cls` (or `key.json` with "label"), as WebDataset writes them | that number |
| tar members `<class>/.../<image>` | first folder |
| tar members without folders, as ILSVRC's `n01440764.tar` | name of the tar file |

Tar files are named as one file, a folder of them, or a pattern, `train-{000..146}.tar`. Folders are listed in
torchvision's ImageFolder order, tar files in the order of their names and members. Hidden files are skipped.
"""

import itertools
import json
import os
import re
import stat
import tarfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from bingo.errors import UserError
from bingo.files import new_hash
from bingo.images.names import Names, NamesBuilder

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")  # those of ImageFolder
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
LAYOUT = (
    "put images in one sub-folder per class, {0}/<class>/<image>.jpg (unlabelled images in a single sub-folder), "
    "or name .tar files"
)
BRACES = re.compile(r"\{([^{}]*)\}")
MOST_CLASSES = 1_000_000
Value = TypeVar("Value")
NO_FILE = -1  # `sizes` of a tar member that is a link


class Unreadable(Exception):
    """One image cannot be read; says why in a short phrase."""


@dataclass(frozen=True)
class Listing:
    """N images before any is opened.

    `labels` int32 (N), an index into `classes`; `ignored` counts files of other kinds; `fingerprint` is a hash of
    names, sizes and modification times. In tar files `shards` has their paths, `shard` int32, `offsets` and `sizes`
    int64 (N) say where an image lies.
    """

    source: Path
    classes: list[str]
    paths: Names
    labels: npt.NDArray[np.int32]
    ignored: int
    fingerprint: str
    shards: tuple[Path, ...] = ()
    shard: npt.NDArray[np.int32] | None = None
    offsets: npt.NDArray[np.int64] | None = None
    sizes: npt.NDArray[np.int64] | None = None

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
        try:
            return _part(self.shards[self.shard[index]], int(self.offsets[index]), size)
        except FileNotFoundError:
            raise Unreadable("the tar file is gone") from None
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror})") from None


def read_regular(path: str, read: Callable[[BinaryIO], Value]) -> Value:
    """What `read` makes of a file. Raises `Unreadable`; no pipe is opened: that would wait for ever."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise Unreadable("a folder" if stat.S_ISDIR(mode) else "not a regular file")
        with open(path, "rb") as file:
            return read(file)
    except FileNotFoundError:
        raise Unreadable("a link to nothing") from None
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None


def list_source(source: Path) -> Listing:
    """Find the images of a source; raises `UserError` when it is missing, empty, damaged or laid out otherwise."""
    tars = _tar_files(source)
    return _list_tars(source, tars) if tars else _list_folder(source)


def fingerprint(source: Path) -> str:
    """The fingerprint of a source's listing; tar files are not opened for it."""
    tars = _tar_files(source)
    return _fingerprint(tars) if tars else _list_folder(source).fingerprint


def _tar_files(source: Path) -> list[Path]:
    """The tar files that a source consists of; none if it is a folder of images."""
    if not source.exists():
        if BRACES.search(source.name):
            return _expand(source)
        raise UserError(f"the image folder {source} does not exist")
    if not source.is_dir():
        if source.name.lower().endswith((".tar", *COMPRESSED)):
            return [source]
        raise UserError(f"{source} is a file, not an image folder; {LAYOUT.format('DIR')}")
    folders, names = _scan(source)
    return [] if folders else [source / name for name in names if name.lower().endswith((".tar", *COMPRESSED))]


def _list_folder(source: Path) -> Listing:
    classes, others = _scan(source)
    if not classes and (source / "index.npz").exists():
        raise UserError(f"{source} is a packed dataset; to look for damage in it: bingo pack --verify {source}")
    if not classes:
        state = "has no class sub-folders" if others else "is empty"
        raise UserError(f"the image folder {source} {state}; {LAYOUT.format(source)}")
    paths, labels, ignored, digest = NamesBuilder(), array("i"), len(others), new_hash()
    for label, name in enumerate(classes):
        for folder, files in sorted(_walk(source / name, name, ())):
            for file in files.split("/") if files else ():
                if not file.lower().endswith(SUFFIXES):
                    ignored += 1
                    continue
                path = f"{folder}/{file}"
                paths.append(path)
                labels.append(label)
                digest.update(f"{path}\0{_state(os.path.join(source, path))}\0".encode(errors="surrogateescape"))
    if not labels:
        raise UserError(f"no {', '.join(SUFFIXES)} file in any class folder of {source}; {LAYOUT.format(source)}")
    digest.update(json.dumps(classes).encode())
    return Listing(
        source, classes, paths.build(), np.frombuffer(labels, np.int32), ignored, fingerprint=digest.hexdigest()
    )


def _state(path: str | Path) -> str:
    """Size and modification time; links followed, dangling ones allowed."""
    try:
        found = os.stat(path)
    except OSError:
        return "-"
    return f"{found.st_size} {found.st_mtime_ns}"


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders in a folder (also those behind links) and of all else; hidden ones skipped."""
    folders: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if entry.is_dir() else others).append(entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(folders), sorted(others)


def _walk(folder: Path, relative: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """Each folder below and its files, joined by `/`; links followed, but not back to a folder they lie in."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    folders, files = _scan(folder)
    named_as_images = [name for name in folders if name.lower().endswith(SUFFIXES)]
    yield relative, "/".join(sorted(files + named_as_images))
    for name in folders:
        if name not in named_as_images:
            yield from _walk(folder / name, f"{relative}/{name}", (*above, here))


def _expand(pattern: Path) -> list[Path]:
    """`a-{0..2}-{x,y}.tar` -> six paths; every one must exist."""
    pieces = BRACES.split(str(pattern))
    options = [_options(piece) if odd % 2 else [piece] for odd, piece in enumerate(pieces)]
    paths = [Path("".join(words)) for words in itertools.product(*options)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of the {len(paths)} tar files {pattern} do not exist, first {missing[0]}")
    return paths


def _options(text: str) -> list[str]:
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", text):
        low, high = span.groups()
        return [f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1)]
    return text.split(",")


class _Tars:
    """What is found in tar files, member by member."""

    def __init__(self) -> None:
        self.paths, self.shard, self.offsets, self.sizes = NamesBuilder(), array("i"), array("q"), array("q")
        self.labels, self.folders = array("i"), dict[str, int]()  # class folder -> its number, by first appearance
        self.labelled: set[bool] = set()  # whether a tar file has WebDataset labels
        self.ignored = 0

    def add(self, number: int, path: Path) -> None:
        """All images of one tar file."""
        first, keys, labels = len(self.labels), list[str](), dict[str, int]()
        for name, offset, size in _members(path):
            parent, _, file = name.rpartition("/")
            key, _, ending = file.partition(".")
            key = f"{parent}/{key}"
            if name.lower().endswith(SUFFIXES):
                folder = name.partition("/")[0] if parent else path.name[: -len(".tar")]
                self.labels.append(self.folders.setdefault(folder, len(self.folders)))
                self.paths.append(f"{path.name}/{name}")
                self.shard.append(number)
                self.offsets.append(offset)
                self.sizes.append(size)
                keys.append(key)
            elif ending in ("cls", "json") and (label := _label(path, name, offset, size)) is not None:
                labels[key] = label
            else:
                self.ignored += 1
        self.labelled.add(bool(labels))
        for position, key in enumerate(keys if labels else (), first):
            if key not in labels:
                name = key.removeprefix("/")
                raise UserError(f"the image {name} in {path} has no label; add {name}.cls or take the image out")
            self.labels[position] = labels[key]

    def classes(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        """Class names and the label of each image: numbers if the tar files have them, else sorted folder names."""
        labels = np.frombuffer(self.labels, np.int32)
        if True in self.labelled:
            return [str(label) for label in range(int(labels.max()) + 1)], labels
        names = sorted(self.folders)
        order = {name: label for label, name in enumerate(names)}
        return names, np.array([order[name] for name in self.folders], np.int32)[labels]


def _list_tars(source: Path, shards: list[Path]) -> Listing:
    found = _Tars()
    for number, path in enumerate(shards):
        found.add(number, path)
    if not found.labels:
        raise UserError(f"no {', '.join(SUFFIXES)} member in the tar files {source}; {LAYOUT.format('DIR')}")
    if len(found.labelled) == 2:
        raise UserError(
            f"some tar files of {source} have labels (key.cls or key.json), some have none; pack them apart"
        )
    classes, labels = found.classes()
    return Listing(
        source,
        classes,
        found.paths.build(),
        labels,
        found.ignored,
        _fingerprint(shards),
        tuple(shards),
        np.frombuffer(found.shard, np.int32),
        np.frombuffer(found.offsets, np.int64),
        np.frombuffer(found.sizes, np.int64),
    )


def _fingerprint(shards: list[Path]) -> str:
    digest = new_hash()
    for path in shards:
        digest.update(f"{path.name}\0{_state(path)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size (`NO_FILE` for links) of each member that is not hidden; a damaged tar is a `UserError`."""
    if path.name.lower().endswith(COMPRESSED):
        raise UserError(f"{path} is compressed, images in it cannot be read one by one; decompress it to a .tar first")
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile remembers every member
                name = os.path.normpath(member.name)
                if not (member.isdir() or any(part.startswith(".") for part in name.split("/"))):
                    plain = member.isreg() and not member.issparse()
                    yield name, member.offset_data, member.size if plain else NO_FILE
            file.seek(tar.offset)  # at damage in the middle tarfile stops as if this were the end
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise UserError(f"the tar file {path} is truncated or corrupt at byte {tar.offset}; fetch it again")
    except tarfile.TarError as error:
        raise UserError(f"the tar file {path} is truncated or no uncompressed tar ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(f"cannot read the tar file {path}: {error.strerror}") from error


def _label(path: Path, name: str, offset: int, size: int) -> int | None:
    """The label in a `.cls` or `.json` member; None for JSON without one."""
    text = _part(path, offset, max(size, 0)).decode(errors="replace")
    try:
        value = json.loads(text)
    except ValueError:
        value = None if name.endswith(".json") else text
    if name.endswith(".json"):
        value = value.get("label") if isinstance(value, dict) else None
        if value is None:
            return None
    if type(value) is not int or not 0 <= value < MOST_CLASSES:
        raise UserError(f"{name} in {path} holds {str(value)[:40]!r}, not a class number from 0 to {MOST_CLASSES - 1}")
    return value


def _part(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, offset)
        while 0 < len(data) < size and (more := os.pread(file.fileno(), size - len(data), offset + len(data))):
            data += more
    return data
