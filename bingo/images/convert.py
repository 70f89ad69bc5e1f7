"""What `--convert` does to an image, as functions from bytes to bytes. Runs in a child process (`jpeg_strict`).

`baseline` leaves every pixel as it is: it moves the DCT coefficients of a JPEG into a baseline file of one scan, as
libjpeg's jpegtran does, through the libjpeg that Pillow or torchvision brings along. That library has no Python module;
its functions take pointers only, so the two structures stay opaque and only their sizes must be known.
"""

import ctypes
import functools
import io
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

MOST_PIXELS = 20_000_000  # a larger image is a giant
GIANT_QUALITY = 95
BAND = 256  # rows
# Version in the library's name -> (JPEG_LIB_VERSION, sizes of jpeg_decompress_struct and jpeg_compress_struct, LP64).
ABI = {"62": (62, 632, 520), "8": (80, 656, 584)}
JPEG_LIBRARY = re.compile(r"\S*/libjpeg[^/\s]*\.so\.(62|8)\b\S*")


class ConversionError(Exception):
    """The image cannot be converted; says why in a short phrase."""


def load(data: bytes) -> None:
    """Decode every pixel of the first frame, as conversion would; whatever Pillow raises says what is wrong.

    Of a PNG the checksum of every chunk comes first.
    """
    if data.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            image.load()
        else:
            rgb(image)


def rgb(image: Image.Image) -> Image.Image:
    """An image as 8-bit RGB: Pillow's `convert("RGB")`, which drops alpha and looks palettes up.

    16 bits keep the high byte, as libpng's own reduction does (Pillow's conversion of 16-bit grey would clip at 255).
    """
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    grey = Image.new("L", image.size)
    for top in range(0, image.height, BAND):  # in bands: numpy would hold a giant several times
        band = image.crop((0, top, image.width, min(top + BAND, image.height)))
        grey.paste(Image.fromarray((np.asarray(band) >> 8).astype(np.uint8)), (0, top))
    return grey.convert("RGB")


def _first_frame(data: bytes) -> tuple[Image.Image, str | None]:
    """RGB pixels and Pillow's name of the format. The decoder, which may hold several frames, is gone on return."""
    with Image.open(io.BytesIO(data)) as image:
        return rgb(image), image.format


def to_rgb_png(data: bytes) -> bytes:
    """The first frame of an image as an 8-bit RGB PNG without metadata."""
    return _encode(_first_frame(data)[0], "PNG")


def shrink(data: bytes) -> bytes:
    """A giant with its sides divided by one number, to at most 20 megapixels; a JPEG stays one (quality 95, 4:4:4)."""
    image, kind = _first_frame(data)
    kind = "PNG" if kind == "PNG" else "JPEG"
    small = image.resize(shrunk_size(*image.size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return _encode(small, kind, **({} if kind == "PNG" else {"quality": GIANT_QUALITY, "subsampling": 0}))


def shrunk_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a giant once it is shrunk."""
    ratio = math.sqrt(MOST_PIXELS / (width * height))
    return max(1, int(width * ratio)), max(1, int(height * ratio))


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    image.info = {}  # metadata that would be written too
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def baseline(data: bytes) -> bytes:
    """A sound JPEG as a baseline file of one scan with the same pixels; metadata is dropped.

    Raises `ConversionError` where there is no library that can do it. Where libjpeg gives up on the file it ends the
    process: this is not for the main one.
    """
    library, version, sizes = _libjpeg()
    pointer = ctypes.c_void_p
    errors = ctypes.create_string_buffer(4096)
    source, target = (ctypes.create_string_buffer(size) for size in sizes)
    handler = library.jpeg_std_error(errors)
    pointer.from_buffer(source).value = pointer.from_buffer(target).value = handler  # the first field of both
    library.jpeg_CreateDecompress(source, version, ctypes.c_size_t(sizes[0]))
    library.jpeg_CreateCompress(target, version, ctypes.c_size_t(sizes[1]))
    library.jpeg_mem_src(source, data, ctypes.c_ulong(len(data)))
    library.jpeg_read_header(source, 1)
    coefficients = library.jpeg_read_coefficients(source)
    buffer, length = pointer(), ctypes.c_ulong(0)
    library.jpeg_mem_dest(target, ctypes.byref(buffer), ctypes.byref(length))
    library.jpeg_copy_critical_parameters(source, target)  # which sets one Huffman-coded sequential scan
    library.jpeg_write_coefficients(target, pointer(coefficients))
    library.jpeg_finish_compress(target)
    out = ctypes.string_at(buffer.value or 0, length.value)
    library.jpeg_destroy_compress(target)
    library.jpeg_destroy_decompress(source)
    library.free(buffer)
    return out


@functools.cache
def _libjpeg() -> tuple[Any, int, tuple[int, int]]:
    """The libjpeg that is loaded already, its version and the sizes of its structures."""
    from PIL import _imaging  # noqa: F401  loads it

    with open("/proc/self/maps") as maps:
        found = JPEG_LIBRARY.search(maps.read())
    if found is None or ctypes.sizeof(ctypes.c_long) != 8:
        raise ConversionError("neither Pillow nor torchvision brings a libjpeg with version 62 or 8 of its interface")
    library = ctypes.CDLL(found[0])
    library.jpeg_std_error.restype = library.jpeg_read_coefficients.restype = ctypes.c_void_p
    version, *sizes = ABI[found[1]]
    return library, version, (sizes[0], sizes[1])


ACTIONS: dict[str, Callable[[bytes], Any]] = {"load": load, "png": to_rgb_png, "shrink": shrink, "baseline": baseline}
