"""Where images come from: a folder of class folders, or uncompressed tar files. Lists them; opens none.

| source | class of an image |
|---|---|
| `DIR/<class>/.../<image>` | first folder; every folder is a class even without images, so that two splits agree |
| tar members `key.jpg` + `key.cls` (or `key.json` with "label"), as WebDataset writes them | that number |
| tar members `<class>/.../<image>` | first folder |
| tar members without folders, as ILSVRC's `n01440764.tar` | name of the tar file |

Tar files are named as one file, a folder of them, or a pattern, `train-{000..146}.tar`. Folders are listed in
torchvision's ImageFolder order, tar files in the order of their names and members. Hidden files and those of systems
(`__MACOSX`, `@eaDir`, `lost+found`) are skipped; whatever is not read is counted by kind (`Listing.left_out`).

In tar files a key is a name up to its first dot, and what follows is its ending, in lower case. `--ext` says which
endings are images, `--class-from` where classes come from (`bingo.images.selection`). A sample of several images, and
members like labels that are not used, are refused until one of these says what is meant.
"""

import itertools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from bingo.errors import UserError, file_error
from bingo.files import new_hash
from bingo.images.folder_listing import file_state, list_folder, scan
from bingo.images.left_out import OUTSIDE, LeftOut
from bingo.images.listing import LAYOUT, Listing
from bingo.images.names import printable
from bingo.images.selection import Selection, kind_of
from bingo.images.tar_listing import COMPRESSED, list_tars

BRACES = re.compile(r"\{([^{}]*)\}")
MOST_TARS = 1_000_000


def list_source(source: Path, *, class_from: str = "", ext: str = "") -> Listing:
    """Find the images of a source; raises `UserError` when it is missing, empty, damaged or laid out otherwise.

    `class_from` and `ext` as for `bingo.images.selection.Selection`.
    """
    selection, left_out = Selection(class_from, ext), LeftOut()
    tars = _tar_files(source, selection, left_out)
    if not tars:
        return list_folder(source, selection)
    return list_tars(source, tars, _fingerprint(tars, selection), selection, left_out)


def fingerprint(source: Path, *, class_from: str = "", ext: str = "") -> str:
    """The fingerprint of a source's listing, wherever it lies; tar files are not opened for it.

    It changes with the names, sizes and times of what is listed and with the classes, and with nothing else.
    """
    selection = Selection(class_from, ext)
    tars = _tar_files(source, selection, LeftOut())
    return _fingerprint(tars, selection) if tars else list_folder(source, selection).fingerprint


def _tar_files(source: Path, selection: Selection, left_out: LeftOut) -> list[Path]:
    """The tar files that a source consists of; none if it is a folder of images."""
    shown = printable(source)
    try:
        os.stat(source)
    except (FileNotFoundError, NotADirectoryError):
        if BRACES.search(source.name):
            return _expand(source)
        raise UserError(f"the image folder {shown} does not exist") from None
    except OSError as error:
        raise file_error(error, f"cannot read {shown}: {error.strerror}") from error
    if not source.is_dir():
        if _is_tar(source.name):
            return [source]
        raise UserError(f"{shown} is a file, not an image folder; {LAYOUT.format('DIR')}")
    folders, names = scan(source, left_out)
    tars = [] if folders else [source / name for name in names if _is_tar(name)]
    for name in names if tars else ():
        if not _is_tar(name):
            left_out.add(OUTSIDE if selection.takes(name) else kind_of(name, selection), name)
    return tars


def _is_tar(name: str) -> bool:
    return name.lower().endswith((".tar", *COMPRESSED))


def _expand(pattern: Path) -> list[Path]:
    """`a-{0..2}-{x,y}.tar` -> six paths; every one must exist."""
    pieces = BRACES.split(str(pattern))
    options = [_options(piece) if odd % 2 else [piece] for odd, piece in enumerate(pieces)]
    count = math.prod(len(words) for words in options)
    if not 0 < count <= MOST_TARS:
        raise UserError(
            f"the pattern {printable(pattern)} names {count or 'no'} tar files; "
            f"write {{FIRST..LAST}}, at most {MOST_TARS} of them"
        )
    paths = [Path("".join(map(str, words))) for words in itertools.product(*options)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(paths)} tar files {printable(pattern)} do not exist, "
            f"first {printable(missing[0])}"
        )
    return paths


def _options(text: str) -> Sequence[object]:
    if span := re.fullmatch(r"([0-9]{1,9})\.\.([0-9]{1,9})", text):
        low, high = span.groups()
        numbers = range(int(low), int(high) + 1)
        return numbers if len(numbers) > MOST_TARS else [f"{number:0{len(low)}d}" for number in numbers]
    return text.split(",")


def _fingerprint(shards: list[Path], selection: Selection) -> str:
    digest = new_hash()
    for path in shards:
        digest.update(os.fsencode(path.name) + f"\0{file_state(path)}\0".encode())
    if selection != Selection():
        digest.update(f"{selection.class_from}\0{selection.ext}".encode(errors="surrogateescape"))
    return digest.hexdigest()
