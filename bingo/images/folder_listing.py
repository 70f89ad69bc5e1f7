"""Lists a folder of class folders. The one walker: what it passes over is neither read nor hashed."""

import json
import os
import stat
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bingo.errors import PASSING, UserError, escaped, file_error
from bingo.files import new_hash
from bingo.images.left_out import OUTSIDE, LeftOut, foreign, left_out_line
from bingo.images.listing import LAYOUT, Listing, class_warnings
from bingo.images.names import NamesBuilder, printable, utf8
from bingo.images.selection import SUFFIXES, Selection, is_image, kind_of

Identity = tuple[int, int]
NEVER_PASSED = (*SUFFIXES, ".tar")  # a broken link of such a name is a verdict or a refusal


class Entries(NamedTuple):
    """Sorted names in a folder, without those of systems: folders (also behind links) and all else."""

    folders: list[str]
    files: list[str]


def scan(folder: Path | str, left_out: LeftOut, relative: str = "") -> Entries:
    """What lies in a folder; what is skipped is counted in `left_out`. `UserError` if it cannot be read."""
    found = Entries([], [])
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if skipped := foreign(entry.name):
                    left_out.add(skipped, relative, entry.name)
                elif is_folder(entry):
                    found.folders.append(entry.name)
                elif (
                    not entry.name.lower().endswith(NEVER_PASSED)
                    and entry.is_symlink()
                    and not os.path.exists(entry.path)
                ):
                    left_out.add("broken link", relative, entry.name)
                else:
                    found.files.append(entry.name)
    except OSError as error:
        raise file_error(error, f"cannot read the folder {printable(folder)}: {error.strerror}") from error
    found.folders.sort()
    found.files.sort()
    return found


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or leads to one; a link to itself does not. `OSError` where storage is away."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno in PASSING:
            raise
        return False


def has_classes(folder: Path) -> bool:
    """Whether there is a folder in a folder that would be a class."""
    return bool(scan(folder, LeftOut()).folders)


def file_state(path: str | Path) -> str:
    """Size and modification time of a file; links followed, dangling ones allowed. `TransientError`: storage away."""
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno in PASSING:
            raise file_error(error, f"cannot read {printable(path)}: {error.strerror}") from error
        return "-"
    if stat.S_ISDIR(found.st_mode):  # its time is that of files that are not read
        return "folder"
    return f"{found.st_size} {found.st_mtime_ns}"


def list_folder(source: Path, selection: Selection) -> Listing:
    """The images of `DIR/<class>/.../<image>`, in torchvision's order; every folder of `DIR` is a class."""
    if selection.class_from not in ("", "folder"):
        raise UserError("the classes of an image folder are its folders; leave out --class-from, or pack .tar files")
    left_out = LeftOut()
    folders, others = scan(source, left_out)
    if not folders and (source / "index.npz").exists():
        shown = printable(source)
        raise UserError(f"{shown} is a packed dataset; to look for damage in it: bingo pack --verify {shown}")
    if not folders:
        state = "has no class sub-folders" if others or left_out.kinds else "is empty"
        raise UserError(f"the image folder {printable(source)} {state}; {LAYOUT.format(printable(source))}")
    for name in others:
        left_out.add(OUTSIDE if selection.takes(name) else kind_of(name, selection), name)
    paths, labels, digest, below = NamesBuilder(), array("i"), new_hash(), set[str]()
    for label, name in enumerate(folders):
        for folder, files in _walk(source, name, selection, left_out):
            if len(folders) == 1 and "/" in folder:
                below.add(utf8(folder.split("/")[1]))
            for file in files.split("/"):
                path = f"{folder}/{file}"
                paths.append(path)
                labels.append(label)
                digest.update(os.fsencode(path) + f"\0{file_state(os.path.join(source, path))}\0".encode())
    if not labels:
        kinds = f" ({line})" if (line := left_out_line(left_out.kinds)) else ""
        wanted = ", ".join(f".{ending}" for ending in selection.endings) or ", ".join(SUFFIXES)
        raise UserError(
            f"no {wanted} file in any class folder of {printable(source)}{kinds}; {LAYOUT.format(printable(source))}"
        )
    classes = [utf8(name) for name in folders]
    digest.update(json.dumps(classes).encode())
    return Listing(
        source,
        classes,
        paths.build(),
        np.frombuffer(labels, np.int32),
        "folders",
        digest.hexdigest(),
        left_out.kinds,
        tuple(class_warnings(classes, below, lambda name: f"name {printable(source)}/{escaped(name)}")),
        selection,
    )


def _walk(source: Path, name: str, selection: Selection, left_out: LeftOut) -> list[tuple[str, str]]:
    """Each folder of a class with images, sorted, and their names joined by `/`.

    Links are followed, but not back to a folder they lie in, the source included.
    """
    found: list[tuple[str, str]] = []
    waiting: list[tuple[str, tuple[Identity, ...]]] = [(name, (_identity(source),))]
    while waiting:
        relative, above = waiting.pop()
        place = os.path.join(source, relative)
        here = _identity(place)
        if here in above:
            left_out.add("link back to a folder above it", relative)
            continue
        folders, files = scan(place, left_out, relative)
        images = [file for file in files if selection.takes(file)]
        if len(images) < len(files):
            for file in files:
                if not selection.takes(file):
                    left_out.add(kind_of(file, selection), relative, file)
        named_as_images = [folder for folder in folders if is_image(folder)]
        if images or named_as_images:
            found.append((relative, "/".join(sorted(images + named_as_images))))
        waiting += [(f"{relative}/{folder}", (*above, here)) for folder in folders if not is_image(folder)]
    return sorted(found)


def _identity(folder: Path | str) -> Identity:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise file_error(error, f"cannot read the folder {printable(folder)}: {error.strerror}") from error
    return status.st_dev, status.st_ino
