"""Look at every image of a folder before training does, and name the ones that would fail or be read wrongly.

Stricter than DALI on purpose: one bad image fails a whole DALI batch without naming the file, and DALI passes garbage
in the middle of a file and a tail of zeros in silence. What cannot be found: damage that leaves a valid stream. EXIF
orientation is ignored, as it is in training (`adjust_orientation=False`): heights and widths are those stored.
"""

import contextlib
import io
import os
import stat
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from bingo.errors import UserError
from bingo.jpeg_strict import StrictDecoder

SUFFIXES = (".jpg", ".jpeg", ".png")
LAYOUT = (
    "put images in one sub-folder per class, {0}/<class>/<image>.jpg; unlabelled images can go in a single sub-folder"
)
PNG_PALETTE, PNG_ALPHA = 3, (4, 6)  # colour types in the PNG header
FILES_PER_START = 2000  # a decoding process takes seconds to start; below this many files a second one does not pay
Item = TypeVar("Item")
Value = TypeVar("Value")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileVerdict:
    """What `check` found out about one file.

    `path` is relative to the folder, with `/`; `verdict` is "ok", "convertible" or "bad", `reason` a short phrase,
    empty when ok; `format` is the content's, "jpeg", "png" or "" (not known); height and width in pixels, 0 when not
    known; `bytes` is the size of the file; `recode` says that packing must store the pixels anew, as an 8-bit RGB PNG.
    """

    path: str
    verdict: str
    reason: str = ""
    format: str = ""
    height: int = 0
    width: int = 0
    bytes: int = 0
    recode: bool = False


@dataclass(frozen=True)
class CheckResult:
    """The verdicts of a folder, in the order in which images are numbered; `ignored` counts files of other kinds."""

    source: Path
    classes: list[str]
    files: tuple[FileVerdict, ...]
    ignored: int

    @property
    def counts(self) -> dict[str, int]:
        """Number of files per verdict; all three keys are always there."""
        found = Counter(file.verdict for file in self.files)
        return {verdict: found[verdict] for verdict in ("ok", "convertible", "bad")}

    @property
    def problems(self) -> tuple[FileVerdict, ...]:
        """The files that are not ok."""
        return tuple(file for file in self.files if file.verdict != "ok")

    def to_json(self) -> dict[str, Any]:
        """A value for `bingo.files.write_json`; files that are ok are only counted."""
        problems = [asdict(file) for file in self.problems]
        return {
            "source": str(self.source),
            "classes": self.classes,
            "counts": self.counts,
            "ignored": self.ignored,
            "problems": problems,
        }


@dataclass(frozen=True)
class Listing:
    """An image folder before anything is opened: relative paths in torchvision's ImageFolder order."""

    source: Path
    classes: list[str]
    paths: list[str]
    ignored: int


@dataclass(frozen=True)
class Inspection:
    """A verdict together with the very bytes that it is about."""

    verdict: FileVerdict
    data: bytes


def check_folder(source: Path, *, workers: int = 0, progress: Progress | None = None) -> CheckResult:
    """Read and decode every image below `source` (class = first folder level, deeper levels allowed).

    `workers` threads, 0 = one per available core, fewer for a small folder; each keeps one decoding process, started at
    its first JPEG.
    `progress(done, total)` is called from the calling thread. Hidden files and folders are skipped; each sub-folder is
    a class even without images, so that the labels of two splits agree.
    Raises `UserError` for a folder that is missing, empty, without class sub-folders or without images.
    """
    listing = list_images(Path(source))
    files = tuple(inspection.verdict for inspection in inspect_images(listing, workers, progress))
    return CheckResult(listing.source, listing.classes, files, listing.ignored)


def list_images(source: Path) -> Listing:
    """Find the images of a folder; see `check_folder` for the layout and the errors."""
    if not source.exists():
        raise UserError(f"the image folder {source} does not exist")
    if not source.is_dir():
        raise UserError(f"{source} is a file, not an image folder; {LAYOUT.format('DIR')}")
    entries = _visible(source)
    classes = [entry.name for entry in entries if entry.is_dir()]
    if not classes:
        state = "is empty" if not entries else "has no class sub-folders"
        raise UserError(f"the image folder {source} {state}; {LAYOUT.format(source)}")
    found = [path for name in classes for path in _files_below(source / name, name, ())]
    images = [path for path in found if path.lower().endswith(SUFFIXES)]
    if not images:
        raise UserError(f"no {', '.join(SUFFIXES)} file in any class folder of {source}; {LAYOUT.format(source)}")
    ignored = len(found) - len(images) + len(entries) - len(classes)
    order = {name: label for label, name in enumerate(classes)}
    images.sort(key=lambda path: (order[path.partition("/")[0]], path.rpartition("/")))
    return Listing(source, classes, images, ignored)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error


def _files_below(folder: Path, relative: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Relative paths of all files, links followed; a link back to a folder that it lies in is not."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in _visible(folder):
        path = f"{relative}/{entry.name}"
        if entry.is_dir() and not entry.name.lower().endswith(SUFFIXES):
            yield from _files_below(folder / entry.name, path, (*above, here))
        else:
            yield path


def inspect_images(listing: Listing, workers: int = 0, progress: Progress | None = None) -> Iterator[Inspection]:
    """Inspect in parallel, yield in order; only a few files per worker are in memory at a time."""
    total = len(listing.paths)
    workers = workers or min(len(os.sched_getaffinity(0)), 1 + total // FILES_PER_START)
    with quiet_pillow(), StrictDecoder(workers) as decoder, ThreadPoolExecutor(workers) as pool:
        inspect = partial(inspect_file, listing.source, decoder=decoder)
        for done, inspection in enumerate(in_order(pool, inspect, listing.paths, 4 * workers), 1):
            yield inspection
            if progress is not None:
                progress(done, total)


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns about metadata (EXIF, APNG) that is not read here; size and pixels are judged without warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Value], items: Iterable[Item], ahead: int
) -> Iterator[Value]:
    """`pool.map` with at most `ahead` items under way; the plain one would hold every result of a large folder."""
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def inspect_file(source: Path, path: str, *, decoder: StrictDecoder) -> Inspection:
    """Read one file and judge it."""
    data = read_regular(source / path, Path.read_bytes)
    if isinstance(data, str):
        return Inspection(FileVerdict(path, "bad", data), b"")
    return Inspection(judge(path, data, decoder=decoder), data)


def read_regular(file: Path, read: Callable[[Path], Value]) -> Value | str:
    """`read(file)`, or a phrase that says why the file cannot be read. No pipe is opened: that would wait for ever."""
    try:
        mode = os.stat(file).st_mode
        if not stat.S_ISREG(mode):
            return "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        return read(file)
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def judge(path: str, data: bytes, *, decoder: StrictDecoder) -> FileVerdict:
    """The verdict on a file's content; `path` matters only for its ending."""
    header = identify(io.BytesIO(data))
    if header.reason:
        return FileVerdict(path, "bad", header.reason, bytes=len(data))
    kind, height, width = header.kind, header.height, header.width
    damage = _png_damage(data) if kind == "png" else _jpeg_damage(data, decoder)
    if damage:
        return FileVerdict(path, "bad", damage, kind, height, width, len(data))
    oddity = _png_oddity(data) if kind == "png" else "CMYK JPEG" if header.mode == "CMYK" else ""
    reason = oddity or _misnamed(path, kind)
    return FileVerdict(path, "convertible" if reason else "ok", reason, kind, height, width, len(data), bool(oddity))


class Header(NamedTuple):
    """What the start of a file says: why it is no usable image, or "jpeg" or "png", Pillow's mode, and the pixels."""

    reason: str = ""
    kind: str = ""
    mode: str = ""
    height: int = 0
    width: int = 0


def identify(file: BinaryIO) -> Header:
    """Read the header of an encoded image; the pixels are not looked at."""
    try:
        with Image.open(file) as image:
            found, mode, (width, height) = image.format or "", image.mode, image.size
    except Exception as error:  # Pillow lets anything out on hostile bytes: struct.error, SyntaxError, ValueError, ...
        file.seek(0)
        start = file.read(4)
        return Header(_unidentified(start, error) if start else "zero bytes")
    if found not in ("JPEG", "MPO", "PNG"):  # MPO: a JPEG that carries a second one behind it
        return Header(f"{found} content, only JPEG and PNG are read")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        return Header(f"too many pixels ({width}x{height}, Pillow's limit is {Image.MAX_IMAGE_PIXELS})")
    return Header("", "png" if found == "PNG" else "jpeg", mode, height, width)


def _unidentified(data: bytes, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels ({error})"
    if data.startswith((b"\xff\xd8", b"\x89PNG")):
        return f"truncated or corrupt {'JPEG' if data[0] == 0xFF else 'PNG'} header"
    return "not an image" if isinstance(error, Image.UnidentifiedImageError) else f"not readable as an image ({error})"


def _jpeg_damage(data: bytes, decoder: StrictDecoder) -> str:
    """What is wrong with a JPEG's markers or pixels. Bytes behind the end marker are common and harmless."""
    if data.find(b"\xff\xd9", data.find(b"\xff\xda")) < 0:
        return "truncated (no end-of-image marker)"
    said = decoder.problem(data)
    if said.startswith("Image is incomplete"):
        return "truncated (image data ends early)"
    return f"corrupt ({said.removeprefix('Corrupt JPEG data: ')})" if said else ""


def _png_damage(data: bytes) -> str:
    """What is wrong with a PNG: first the checksum of every chunk, then the pixels.

    Pillow, because torchvision's PNG decoder can end the process on corrupt data.
    """
    if b"IEND\xaeB`\x82" not in data:
        return "truncated (no IEND chunk)"
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception as error:  # see judge
        return f"corrupt ({str(error).removeprefix('broken PNG file ').strip('()')})"
    return ""


def _png_oddity(data: bytes) -> str:
    depth, colour = data[24], data[25]
    if depth == 16:
        return "16-bit PNG"
    if colour == PNG_PALETTE:
        return "palette PNG"
    return "PNG with alpha" if colour in PNG_ALPHA or b"tRNS" in data[: data.index(b"IDAT")] else ""


def _misnamed(path: str, kind: str) -> str:
    suffix = Path(path).suffix.lower()
    return "" if (suffix == ".png") == (kind == "png") else f"{kind.upper()} content named {suffix}"


def to_rgb_png(data: bytes) -> bytes:
    """The pixels of an image as an 8-bit RGB PNG without metadata.

    CMYK and palettes by Pillow's `convert("RGB")`, alpha dropped as that does; 16 bits keep the high byte, as libpng's
    own reduction does (Pillow's conversion of 16-bit grey would clip at 255).
    """
    with Image.open(io.BytesIO(data)) as image:
        sixteen = image.mode.startswith("I")
        eight = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if sixteen else image
        pixels = np.asarray(eight.convert("RGB"))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
