"""Makers of tar files: sound ones of a few members, and headers that no sane program writes."""

import io
import tarfile
from pathlib import Path

from tests.support.bad_images import jpeg

END = bytes(1024)


def write_tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], **options: int) -> Path:
    """A tar file of members by name; in a list a name may come twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(*endings: str, count: int = 3, pattern: str = "{:04d}") -> list[tuple[str, bytes]]:
    """Samples as WebDataset writes them: an image for each ending of an image, else the text of a class, 0 or 1."""
    return [
        (f"{pattern.format(number)}.{ending}", jpeg(number) if ending.lower().endswith("jpg") else b"%d" % (number % 2))
        for number in range(count)
        for ending in endings
    ]


def header(name: str, size: int = 0, kind: bytes = b"0", patch: dict[int, bytes] | None = None) -> bytes:
    """A header with any size, negative ones too, and bytes replaced by place; its checksum is right."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT)[-512:])
    if 0 <= size < 8**11:
        block[124:136] = b"%011o\0" % size
    else:
        block[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % 256**11).to_bytes(11, "big")
    for place, data in (patch or {}).items():
        block[place : place + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: str, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


def pax(**records: bytes) -> bytes:
    """Pax records of the next member; `__` in a key stands for a dot."""
    out = b""
    for key, value in records.items():
        body = b" %s=%s\n" % (key.replace("__", ".").encode(), value)
        length = len(body) + 1
        while len(b"%d" % length) + len(body) != length:
            length = len(b"%d" % length) + len(body)
        out += b"%d" % length + body
    return out


def hostile_tars() -> dict[str, tuple[bytes, str]]:
    """Name -> content, and a part of the sentence that refuses it."""
    image = member("a/0.jpg", jpeg())
    next_one = member("a/1.jpg", jpeg(1)) + END
    negative, too_large, pax_record = "a negative size", "bytes are announced", "a pax record that cannot be read"
    return {
        "negative": (image + header("a/1.jpg", -512) + END, negative),
        "back_to_itself": (image + header("a/1.jpg", -1) + END, negative),
        "far_back": (image + header("a/1.jpg", -(2**60)) + END, negative),
        "folder": (image + header("a/d", -512, b"5") + END, negative),
        "large": (image + header("a/1.jpg", 2**50) + END, too_large),
        "unknown_kind": (image + header("a/1.jpg", 2**50, b"Z") + END, too_large),
        "sparse": (image + header("a/1.jpg", 2**50, b"S") + END, too_large),
        "sparse_negative": (image + header("a/1.jpg", -512, b"S") + END, negative),
        "sparse_without_end": (image + header("a/1.jpg", 0, b"S", {482: b"\1"}) + b"\1" * 1024, too_large),
        "pax_negative": (image + header("p", -512, b"x") + next_one, negative),
        "pax_large": (image + header("p", 2**50, b"x") + next_one, too_large),
        "pax_global": (image + header("p", -512, b"g") + next_one, negative),
        "pax_megabytes": (image + member("p", pax(comment=bytes(1 << 20)), b"x") + next_one, "the limit is 1048576"),
        "pax_empty_record": (image + member("p", b"0 a=b\n", b"x") + next_one, pax_record),
        "pax_long_record": (image + member("p", b"9999 a=b\n", b"x") + next_one, pax_record),
        "pax_digits": (image + member("p", b"9" * 5000 + b" a=b\n", b"x") + next_one, pax_record),
        "pax_size_negative": (image + member("p", pax(size=b"-512"), b"x") + next_one, "a size of b'-512'"),
        "pax_size_large": (image + member("p", pax(size=b"9" * 18), b"x") + next_one, too_large),
        "pax_size_digits": (image + member("p", pax(size=b"9" * 5000), b"x") + next_one, "a size of b'9"),
        "long_name": (image + header("p", 2**50, b"L") + next_one, too_large),
        "long_name_back": (image + header("p", -1024, b"L") + next_one, negative),
        "name_of_a_megabyte": (image + member("p", b"x" * (1 << 19), b"L") + next_one, "a name of 524288 bytes"),
        "pax_name": (image + member("p", pax(path=b"x" * 5000), b"x") + next_one, "a name of 5000 bytes"),
        "long_link": (image + header("p", 2**50, b"K") + next_one, too_large),
        "no_number": (image + header("a/1.jpg", 0, patch={124: b"zzzzzzzzzzz\0"}) + END, "invalid header"),
        "joined": (image + END + member("b/0.jpg", jpeg(1)) + END, "behind its end mark"),
        "hole": (image + bytes(512) + next_one, "behind its end mark"),
    }
