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


def frame_at(data: bytes) -> int:
    """Where the frame header (baseline or progressive) of a JPEG begins."""
    return max(data.find(b"\xff\xc0\x00"), data.find(b"\xff\xc2\x00"))


def with_byte(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def without_segment(data: bytes, marker: int) -> bytes:
    """A JPEG without its segments of one kind."""
    while (at := data.find(bytes([0xFF, marker]))) >= 0:
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    return data


def with_two_components(data: bytes) -> bytes:
    at = frame_at(data)
    fewer = struct.pack(">H", 14) + data[at + 4 : at + 9] + b"\x02" + data[at + 10 : at + 16]
    return data[: at + 2] + fewer + data[at + 19 :]


def without_last_scans(data: bytes) -> bytes:
    """A progressive JPEG whose last three scans are missing: a valid stream, and a blurred picture."""
    for _ in range(3):
        data = data[: data.rindex(b"\xff\xda")]
    return data[: data.rindex(b"\xff\xc4")] + b"\xff\xd9"


def without_pixels(data: bytes) -> bytes:
    """A PNG whose pixel chunk is missing; every checksum is right."""
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + data[end:]


def bad_files() -> dict[str, tuple[bytes, str]]:
    """File name -> content, and what the reason must say."""
    whole, flat, slow = jpeg(), png(), jpeg(progressive=True)
    frame, pixels = frame_at(whole), whole.index(b"\xff\xda")
    image = picture()
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
        "arithmetic.jpg": (with_byte(whole, frame + 1, 0xC9), "arithmetic-coded JPEG"),
        "lossless.jpg": (with_byte(whole, frame + 1, 0xC3), "lossless JPEG"),
        "hierarchical.jpg": (with_byte(whole, frame + 1, 0xC5), "hierarchical JPEG"),
        "twelve_bits.jpg": (with_byte(whole, frame + 4, 12), "12-bit JPEG"),
        "no_height.jpg": (whole[: frame + 5] + b"\0\0" + whole[frame + 7 :], "corrupt (a JPEG of 72x0 pixels)"),
        "two_colours.jpg": (with_two_components(whole), "corrupt (2 colour components"),
        "two_frames.jpg": (whole[:pixels] + whole[frame : frame + 19] + whole[pixels:], "corrupt (two frame headers)"),
        "no_frame.jpg": (without_segment(whole, 0xC0), "pixels before the frame header"),
        "no_tables.jpg": (without_segment(whole, 0xC4), "truncated or corrupt JPEG header (no Huffman tables)"),
        "no_quantisation.jpg": (without_segment(whole, 0xDB), "corrupt ("),
        "no_pixels.jpg": (whole[:pixels] + b"\xff\xd9", "truncated or corrupt JPEG header (no marker"),
        "long_segment.jpg": (whole[:2] + b"\xff\xfe\xff\xff" + whole[2:], "segment 0xfe is longer than the file"),
        "stray_marker.jpg": (whole[:-2] + b"\xff\xf0\x00\x02x" + whole[-2:], "corrupt ("),
        "second_image.jpg": (whole[:-2] + whole, "corrupt (no marker at byte"),
        "other_size.jpg": (with_byte(whole, frame + 6, 200), "corrupt ("),
        "missing_scans.jpg": (without_last_scans(slow), "truncated (scans are missing)"),
        "cut_scan.jpg": (slow[: len(slow) * 3 // 4] + b"\xff\xd9", "truncated ("),
        "no_pixels.png": (without_pixels(flat), "corrupt (no IDAT chunk)"),
        "cut.webp": (encode(image, "WEBP")[:-40], "not readable as an image"),
        "cut.tif": (encode(image, "TIFF")[:-3000], "truncated ("),
        "cut.bmp": (encode(image, "BMP")[:-3000], "truncated ("),
        "cut.ppm": (encode(image, "PPM")[:-3000], "truncated ("),
        "cut_gif.jpg": (encode(image.convert("P"), "GIF")[:1500], "truncated ("),
        "float.tif": (encode(Image.new("F", (WIDTH, HEIGHT), 0.5), "TIFF"), "floating-point or 32-bit pixels"),
        "jpeg2000.jpg": (encode(image, "JPEG2000"), "JPEG2000 content, which is not read"),
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
    ycck = cmyk_jpeg(1)
    return {
        "ycck.jpg": (with_byte(ycck, ycck.index(b"Adobe") + 11, 2), "YCCK JPEG"),
        "gif.jpg": (encode(image.convert("P"), "GIF"), "GIF image"),
        "moving.webp": (encode(image, "WEBP", save_all=True, append_images=[picture(1)], lossless=True), "WEBP image"),
        "screen.bmp": (encode(image, "BMP"), "BMP image"),
        "page.tif": (encode(image, "TIFF", save_all=True, append_images=[picture(1)]), "TIFF image"),
        "deep.tiff": (encode(grey16(), "TIFF"), "TIFF image"),
        "map.ppm": (encode(image, "PPM"), "PPM image"),
        "map.pgm": (encode(image.convert("L"), "PPM"), "PPM image"),
        "slow.png": (jpeg(3, progressive=True), "JPEG content named .png"),
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
        "full_colour.jpg": jpeg(9, subsampling=0),
        "half_colour.jpg": jpeg(10, subsampling=1),
        "restarts.jpg": jpeg(11, restart_marker_blocks=3),
        "filled.jpg": jpeg(12)[:2] + b"\xff\xff" + jpeg(12)[2:],
        "moving.png": encode(picture(13), "PNG", save_all=True, append_images=[picture(14)]),
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
