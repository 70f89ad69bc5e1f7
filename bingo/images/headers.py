"""What an image's header alone tells: formats that can be converted, too many pixels, no image at all.

`jpeg_strict`'s child loads this file by its place, so it imports nothing of the package.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

CONVERTIBLE_FORMATS = {"GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tiff", "PPM": "ppm"}  # Pillow's names
MOST_READS = 200_000  # a header of 64 kB of fill bytes takes 65,000, one of a camera some hundreds
MOST_HEADER = 1 << 26  # bytes


class HeaderTooLong(Exception):
    """Said in a short phrase: not to be read to its end."""


class Header(NamedTuple):
    """Pillow's name of a format and, where it was opened, its mode, size in pixels and whether it has many frames."""

    kind: str
    mode: str = ""
    width: int = 0
    height: int = 0
    animated: bool = False


class _Bounded:
    """A file to identify an image in: reads are counted until `bounds` are lifted, so no header takes for ever."""

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        self._file, self._reads, self._bytes = file, MOST_READS, most_bytes
        self.seek, self.tell = file.seek, file.tell
        self.bounds = True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._reads, self._bytes = self._reads - 1, self._bytes - len(data)
        if self.bounds and (self._reads < 0 or self._bytes < 0):
            raise HeaderTooLong(f"header too long (more than {MOST_READS} parts or {MOST_HEADER >> 20} MiB)")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def look(data: bytes) -> Header:
    """The header of an encoded image other than a JPEG; raises whatever Pillow does."""
    return identify(io.BytesIO(data), ("PNG", *CONVERTIBLE_FORMATS), sys.maxsize)


def identify(file: BinaryIO, formats: Sequence[str], most_bytes: int = MOST_HEADER) -> Header:
    """The header of an image in one of Pillow's `formats`; another kind is named and not opened.

    Pillow would hand an EPS file to Ghostscript. Raises `HeaderTooLong` and whatever Pillow does.
    """
    bounded = _Bounded(file, most_bytes)
    try:
        with Image.open(bounded, formats=tuple(formats)) as image:
            bounded.bounds = False  # whether there is a second frame may be known behind all of the first
            animated = bool(getattr(image, "is_animated", False))
            return Header(image.format or "", image.mode, *image.size, animated)
    except Image.UnidentifiedImageError:
        file.seek(0)
        kind = _other_kind(file.read(16), formats)
        if not kind:
            raise
        return Header(kind)


def _other_kind(start: bytes, formats: Sequence[str]) -> str:
    """The first format, none of `formats`, that these first bytes are the mark of; "" if there is none."""
    Image.init()
    for kind, (_, accepts) in Image.OPEN.items():
        with contextlib.suppress(Exception):  # of a start that is too short
            if kind not in formats and accepts is not None and accepts(start) is True:
                return kind
    return ""


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns about metadata (EXIF, APNG) that is not read here; size and pixels are judged without warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def too_many_pixels(height: int, width: int) -> str:
    """Why an image of so many pixels is refused, or ""."""
    limit = Image.MAX_IMAGE_PIXELS
    excess = limit is not None and width * height > limit
    return f"too many pixels ({width}x{height}, Pillow's limit is {limit})" if excess else ""


def unidentified(data: bytes, error: Exception) -> str:
    """Why Pillow, which ended in `error`, could not tell what an image is; data: its first bytes."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels ({error})"
    if isinstance(error, HeaderTooLong):
        return str(error)
    if "too large" in str(error):  # text or a profile that unpacks to more than Pillow takes
        return f"header too long ({error})"
    if data.startswith(b"\x89PNG"):
        return "truncated or corrupt PNG header"
    return "not an image" if isinstance(error, Image.UnidentifiedImageError) else f"not readable as an image ({error})"
