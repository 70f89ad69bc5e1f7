"""Hostile images end in a verdict that names a limit; large honest ones pass."""

import io
import os
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bingo.images.check import judge
from bingo.images.headers import HeaderTooLong, identify
from bingo.images.image_folder import ImageFolder
from bingo.images.journal import MAY_PASS
from bingo.images.jpeg_strict import MOST_BYTES, StrictDecoder
from tests.support import bad_images


@pytest.fixture(scope="module")
def decoder() -> Iterator[StrictDecoder]:
    """One for all: what it has held is the most of any image."""
    with StrictDecoder(1) as started:
        yield started


@pytest.fixture
def fresh() -> Iterator[StrictDecoder]:
    with StrictDecoder(1) as started:
        yield started


def memory(decoder: StrictDecoder) -> int:
    """The most that the decoding process has held, in bytes; 0 where none was needed."""
    process = decoder._children[0]._process
    if process is None:
        return 0
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(data: bytes, chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + chunks + data[33:]


def with_segments(data: bytes, segments: bytes) -> bytes:
    return data[:2] + segments + data[2:]


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times more."""
    last = data[data.rindex(b"\xff\xc4") : -2]
    return data[:-2] + last * count + data[-2:]


SLOW = bad_images.jpeg(progressive=True)
BOMB = zlib.compress(bytes(50_000_000), 9)
HOSTILE = {
    "comment.ppm": (b"P6\n#" + b"#" * 10_000_000 + b"\n2 2\n255\n" + bytes(12), "header too long (more than"),
    "blanks.ppm": (b"P6\n" + b"\n" * 10_000_000 + b"2 2\n255\n" + bytes(12), "header too long (more than"),
    "wide.webp": (bad_images.encode(Image.new("RGB", (9400, 9400)), "WEBP"), "needs more than 1 GiB of memory"),
    "chunks.png": (with_chunks(bad_images.png(), chunk(b"teSt", b"") * 100_000), "header too long (more than"),
    "profile.png": (
        with_chunks(bad_images.png(), chunk(b"iCCP", b"x\0\0" + BOMB)),
        "header too long (Decompressed data too large",
    ),
    "text.png": (
        with_chunks(bad_images.png(), chunk(b"zTXt", b"x\0\0" + BOMB)),
        "header too long (Decompressed data too large",
    ),
    "unicode.png": (
        with_chunks(bad_images.png(), chunk(b"iTXt", b"x\0\1\0\0\0" + BOMB)),
        "header too long (Decompressed data too large",
    ),
    "segments.jpg": (with_segments(bad_images.jpeg(), b"\xff\xfe\0\2" * 100_000), "too many segments (more than 50000"),
    "scans.jpg": (with_scans(SLOW, 600), "too many scans (more than 500)"),
    "script.ppm": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS content, which is not read"),
    "photoshop.tif": (b"8BPS\0\1" + bytes(20), "PSD content, which is not read"),
    "icon.bmp": (bad_images.encode(bad_images.picture(), "ICO"), "ICO content, which is not read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_bad_for_a_named_limit(decoder: StrictDecoder, name: str) -> None:
    data, reason = HOSTILE[name]
    verdict = judge(name, data, decoder=decoder)
    assert (verdict.verdict, verdict.reason if reason not in verdict.reason else reason) == ("bad", reason)
    assert memory(decoder) < 1.5 * MOST_BYTES


HONEST = {
    "fill.jpg": with_segments(bad_images.jpeg(), b"\xff" * (1 << 16)),
    "profile.jpg": with_segments(bad_images.jpeg(), (b"\xff\xe2\xff\xff" + bytes(65_533)) * 255),
    "bilevel.png": bad_images.encode(Image.new("1", (9400, 9400)), "PNG"),
    "profile.png": with_chunks(bad_images.png(), chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(900_000)))),
}


@pytest.mark.parametrize("name", HONEST)
def test_a_large_honest_image_passes(decoder: StrictDecoder, name: str) -> None:
    verdict = judge(name, HONEST[name], decoder=decoder)
    assert (verdict.verdict, verdict.reason) == ("ok", "")


@pytest.mark.parametrize("seed", range(5))
def test_damage_in_a_fax_is_heard_where_pillow_goes_on(decoder: StrictDecoder, seed: int) -> None:
    sound = bad_images.encode(bad_images.picture(3, 200, 300).convert("1"), "TIFF", compression="group4")
    assert judge("x.tif", sound, decoder=decoder).verdict == "convertible"
    at = int(np.random.default_rng(seed).integers(100, len(sound) // 2))
    verdict = judge("x.tif", bad_images.with_byte(sound, at, sound[at] ^ 0x5A), decoder=decoder)
    assert verdict.verdict == "bad"
    assert verdict.reason.startswith("corrupt (Fax4Decode: ")


def test_a_fax_of_the_greatest_size_is_convertible(fresh: StrictDecoder) -> None:
    data = bad_images.encode(Image.new("1", (9400, 9400)), "TIFF", compression="group4")
    assert judge("x.tif", data, decoder=fresh).verdict == "convertible"
    assert memory(fresh) < MOST_BYTES


def test_the_end_of_a_smaller_memory_says_nothing_about_an_image(fresh: StrictDecoder) -> None:
    """As under `ulimit -d`: the verdict is one that the next run looks at again."""
    assert judge("x.png", bad_images.png(), decoder=fresh).verdict == "ok"
    process = fresh._children[0]._process
    assert process is not None
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (1 << 28, resource.RLIM_INFINITY))
    data = bad_images.encode(Image.new("RGB", (9400, 9400)), "TIFF", compression="tiff_lzw")
    verdict = judge("x.tif", data, decoder=fresh)
    assert (verdict.verdict, verdict.reason.startswith(MAY_PASS)) == ("bad", True)


@pytest.mark.slow
def test_giants_are_converted_within_the_limits(decoder: StrictDecoder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    wide = Image.fromarray(pixels).resize((9400, 9400))
    for kind, options in (("JPEG", {"progressive": True, "subsampling": 0}), ("PNG", {"compress_level": 1})):
        data = bad_images.encode(wide, kind, **options)
        assert judge(f"x.{kind.lower()}", data, decoder=decoder).verdict == "ok"
        with Image.open(io.BytesIO(decoder.convert("shrink", data))) as small:
            assert small.width * small.height <= 20_000_000
        if kind == "JPEG":
            assert decoder.convert("baseline", data)


@pytest.mark.slow
def test_seconds_are_of_cpu_time_and_cost_one_verdict(fresh: StrictDecoder) -> None:
    """A plain PPM of comments: Pillow takes them out of its buffer one by one, for minutes."""
    data = b"P3\n9 9\n255\n" + b"#\n" * 4_000_000
    verdict = judge("x.ppm", data, decoder=fresh)
    assert (verdict.verdict, verdict.reason) == ("bad", "needs more than 20 s of CPU to decode")
    assert judge("x.png", bad_images.png(), decoder=fresh).verdict == "ok"


@pytest.mark.parametrize("name", ["chunks.png", "segments.jpg"])
def test_a_folder_read_in_place_leaves_endless_headers_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {f"a/{name}": HOSTILE[name][0], "a/plain.png": bad_images.png()}
    folder = ImageFolder(bad_images.write(tmp_path / "images", files))
    assert folder.left_out == {f"a/{name}": "header too long (more than 200000 parts or 64 MiB)"}


def test_a_header_is_read_no_further_than_its_limit(tmp_path: Path) -> None:
    """A file with a hole of 1 TB behind the start of a text chunk."""
    path = tmp_path / "x.png"
    path.write_bytes(bad_images.png()[:33] + struct.pack(">I", 1 << 30) + b"iTXt")
    os.truncate(path, 1 << 31)
    with open(path, "rb") as file, pytest.raises(HeaderTooLong, match="64 MiB"):
        identify(file, ("JPEG", "PNG"))
