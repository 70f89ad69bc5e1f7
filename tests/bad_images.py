"""Makers of images that are damaged, odd or sound, and of folders that hold them; shared by the tests."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 72


def picture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A smooth RGB image, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(seed: int = 0, **options: Any) -> bytes:
    return encode(picture(seed), "JPEG", **{"quality": 95, **options})


def png(seed: int = 0) -> bytes:
    return encode(picture(seed), "PNG")


def cmyk_jpeg(seed: int = 0) -> bytes:
    return encode(picture(seed).convert("CMYK"), "JPEG", quality=95)


def grey16() -> Image.Image:
    """16-bit grey that uses all the range, so that clipping at 255 would show."""
    ramp = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16)
    return Image.fromarray(ramp.reshape(HEIGHT, WIDTH))


def with_garbage(data: bytes) -> bytes:
    """64 random bytes in the middle of the pixels; none is 0xFF, so that no marker appears."""
    noise = np.random.default_rng(1).integers(0, 255, 64, dtype=np.uint8).tobytes()
    middle = len(data) // 2
    return data[:middle] + noise + data[middle + 64 :]


def with_zeroed_tail(data: bytes) -> bytes:
    """The second half zero but for the end-of-image marker: an interrupted copy onto reserved space."""
    middle = len(data) // 2
    return data[:middle] + bytes(len(data) - middle - 2) + data[-2:]


def with_flipped_byte(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def bad_files() -> dict[str, tuple[bytes, str]]:
    """File name -> content, and what the reason must say."""
    whole, flat = jpeg(), png()
    return {
        "zero.jpg": (b"", "zero bytes"),
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "cut_end.jpg": (whole[:-2], "truncated (no end-of-image marker)"),
        "cut_header.jpg": (whole[:15], "truncated or corrupt JPEG header"),
        "cut.png": (flat[: len(flat) // 2], "truncated (no IEND chunk)"),
        "cut_last.png": (flat[:-3], "truncated (no IEND chunk)"),
        "garbage.jpg": (with_garbage(whole), "corrupt ("),
        "garbage_progressive.jpg": (with_garbage(jpeg(progressive=True)), "corrupt ("),
        "zeroed.jpg": (with_zeroed_tail(whole), "corrupt ("),
        "flipped.png": (with_flipped_byte(flat), "corrupt (bad header checksum"),
        "text.jpg": (b"<html>404 Not Found</html>", "not an image"),
        "gif.jpg": (encode(picture().convert("P"), "GIF"), "GIF content"),
        "huge.png": (huge_png(10_000), "too many pixels (10000x10000"),
        "vast.png": (huge_png(60_000), "too many pixels"),
    }


def huge_png(side: int) -> bytes:
    """A small file whose header, checksum included, announces `side` by `side` pixels."""
    small = png()
    header = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


def convertible_files() -> dict[str, tuple[bytes, str]]:
    """File name -> content, and the reason."""
    image = picture()
    return {
        "cmyk.jpg": (cmyk_jpeg(), "CMYK JPEG"),
        "really_png.jpg": (png(), "PNG content named .jpg"),
        "really_jpeg.png": (jpeg(), "JPEG content named .png"),
        "deep.png": (encode(grey16(), "PNG"), "16-bit PNG"),
        "alpha.png": (encode(image.convert("RGBA"), "PNG"), "PNG with alpha"),
        "keyed.png": (encode(image, "PNG", transparency=(1, 2, 3)), "PNG with alpha"),
        "palette.png": (encode(image.convert("P"), "PNG"), "palette PNG"),
    }


def sound_files() -> dict[str, bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "plain.jpg": jpeg(),
        "capital.JPEG": jpeg(1),
        "progressive.jpg": jpeg(2, progressive=True),
        "grey.jpg": encode(picture(3).convert("L"), "JPEG"),
        "turned.jpg": jpeg(4, exif=turned),
        "trailing.jpg": jpeg(5) + b"\0" * 20,
        "plain.png": png(6),
        "grey.png": encode(picture(7).convert("L"), "PNG"),
        "one_bit.png": encode(picture(8).convert("1"), "PNG"),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files by relative path; returns the folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def png_folder(folder: Path, count: int = 6, first: int = 0) -> Path:
    """A sound folder of two classes; PNG only, which needs no decoding process and is quick to check."""
    names = [f"{'ab'[index % 2]}/{index:03d}.png" for index in range(count)]
    return write(folder, {name: png(first + index) for index, name in enumerate(names)})
