"""The structure of a JPEG file, read without decoding a pixel (ITU-T T.81, annex B; Exif 2.3).

Stricter than decoders, which skip what they do not know: every segment must lie within the file, what follows the
pixels must be another scan or the end, and the end must be there. Bytes behind the end marker are common and harmless.
"""

import re
import struct
from dataclasses import dataclass

DHT, SOI, EOI, SOS, DRI, APP1, APP14 = 0xC4, 0xD8, 0xD9, 0xDA, 0xDD, 0xE1, 0xEE
TABLES = {DHT, 0xDB, DRI}  # 0xDB: DQT; these, comments and metadata may come between scans
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
BASELINE = 0xC0
SUCCESSIVE, LOSSLESS = {0xC2, 0xC6, 0xCA, 0xCE}, {0xC3, 0xC7, 0xCB, 0xCF}  # what a scan's parameters mean
NOT_SENT = 16
MOST_SCANS = 500  # encoders write ten; every scan goes over all blocks, so a few bytes of each cost seconds
MOST_SEGMENTS = 50_000  # metadata of 3 GB
FILL = re.compile(rb"\xff*")
MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # what ends a scan: no stuffed zero, restart or fill byte


class JpegError(Exception):
    """The file is damaged; says how in a short phrase."""


@dataclass(frozen=True)
class Jpeg:
    """What the markers say.

    `process` is the second byte of the frame marker (0xC0 baseline, 0xC1 extended, 0xC2 progressive, ...), `precision`
    the bits per sample, `sampling` the horizontal and vertical factor of each component, `scans` their number,
    `restart` the largest restart interval in MCUs (0: none), `orientation` that of EXIF (1: upright or not given),
    `adobe` the colour transform of an Adobe marker (-1: none).
    """

    process: int
    precision: int
    height: int
    width: int
    sampling: tuple[tuple[int, int], ...]
    scans: int
    restart: int
    orientation: int
    adobe: int

    @property
    def coding(self) -> str:
        """Why no usual decoder reads this coding; "" for Huffman-coded baseline, extended and progressive files."""
        if self.process in LOSSLESS:
            return "lossless JPEG"
        if self.process in (0xC5, 0xC6, 0xCD, 0xCE):
            return "hierarchical JPEG"
        if self.process >= 0xC9:
            return "arithmetic-coded JPEG"
        return "" if self.precision == 8 else f"{self.precision}-bit JPEG"

    @property
    def single_scan(self) -> bool:
        """Whether a hardware decoder takes it: baseline, one scan."""
        return self.process == BASELINE and self.scans == 1


def parse_jpeg(data: bytes) -> Jpeg:
    """Read the markers from start to end. Raises `JpegError`."""
    if data[:2] != b"\xff\xd8":
        raise JpegError("no JPEG start marker")
    at, segments, scans, restart, orientation, adobe = 2, 0, 0, 0, 1, -1
    tables = False
    frame: tuple[int, int, int, int, tuple[tuple[int, int], ...]] | None = None
    missing: dict[int, list[int]] = {}  # component -> for each of its 64 coefficients, how many low bits are not sent
    while True:
        marker, at = _marker(data, at, scans)
        if marker == EOI and scans:
            break
        segments += 1
        if segments > MOST_SEGMENTS:
            raise JpegError(f"too many segments (more than {MOST_SEGMENTS})")
        body, at = _segment(data, marker, at, scans)
        if marker in FRAMES:
            if frame:
                raise JpegError("corrupt (two frame headers)")
            frame = (marker, *_frame(body))
            missing = {component: [NOT_SENT] * 64 for component in body[6::3]}
        elif marker == SOS:
            if not frame:
                raise JpegError("truncated or corrupt JPEG header (pixels before the frame header)")
            if not tables and frame[0] < 0xC9:  # decoders for video frames supply their own, others fail
                raise JpegError("truncated or corrupt JPEG header (no Huffman tables)")
            _scan(body, frame[0] in SUCCESSIVE, missing)
            scans += 1
            if scans > MOST_SCANS:
                raise JpegError(f"too many scans (more than {MOST_SCANS})")
            found = MARKER_IN_SCAN.search(data, at)
            if not found:
                raise JpegError("truncated (no end-of-image marker)")
            at = found.start()
        elif marker == DHT:
            tables = True
        elif marker == DRI and len(body) >= 2:
            restart = max(restart, int.from_bytes(body[:2], "big"))
        elif marker == APP1:
            orientation = _orientation(body) or orientation
        elif marker == APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif scans and not (marker in TABLES or marker >= 0xE0):
            raise JpegError(f"corrupt (marker 0x{marker:02x} after the pixels)")
    assert frame is not None  # a scan before the frame is refused
    if any(bits for component in missing.values() for bits in component) and frame[0] not in LOSSLESS:
        raise JpegError("truncated (scans are missing)")
    return Jpeg(*frame, scans, restart, orientation, adobe)


def _marker(data: bytes, at: int, scans: int) -> tuple[int, int]:
    """The marker at `at`, any number of fill bytes before it, and where it ends."""
    start = at
    if fill := FILL.match(data, at):
        at = fill.end()
    if at >= len(data):
        raise JpegError("truncated (no end-of-image marker)" if scans else "truncated or corrupt JPEG header")
    if at == start or data[at] < 0xC0 or 0xD0 <= data[at] <= SOI or (data[at] == EOI and not scans):
        place = f"no marker at byte {start}"
        raise JpegError(f"corrupt ({place})" if scans else f"truncated or corrupt JPEG header ({place})")
    return data[at], at + 1


def _segment(data: bytes, marker: int, at: int, scans: int) -> tuple[bytes, int]:
    length = int.from_bytes(data[at : at + 2], "big")
    if length < 2 or at + length > len(data):
        what = f"segment 0x{marker:02x} is longer than the file" if length >= 2 else f"segment 0x{marker:02x} is empty"
        raise JpegError(f"truncated ({what})" if scans else f"truncated or corrupt JPEG header ({what})")
    return data[at + 2 : at + length], at + length


def _frame(body: bytes) -> tuple[int, int, int, tuple[tuple[int, int], ...]]:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise JpegError("truncated or corrupt JPEG header (frame header)")
    precision, height, width, count = struct.unpack(">BHHB", body[:6])
    sampling = tuple((body[at] >> 4, body[at] & 15) for at in range(7, len(body), 3))
    if not (height and width):
        raise JpegError(f"corrupt (a JPEG of {width}x{height} pixels)")
    if count not in (1, 3, 4) or not all(1 <= factor <= 4 for pair in sampling for factor in pair):
        raise JpegError(f"corrupt ({count} colour components, sampling {sampling})")
    return precision, height, width, sampling


def _scan(body: bytes, successive: bool, missing: dict[int, list[int]]) -> None:
    """Note which coefficients, down to which bit, a scan sends of which components."""
    if not body or not 1 <= body[0] <= 4 or len(body) != 4 + 2 * body[0]:
        raise JpegError("corrupt (scan header)")
    first, last, bits = body[-3], body[-2], body[-1] & 15
    for component in body[1:-3:2]:
        if component not in missing or not (first <= last <= 63 or not successive):
            raise JpegError("corrupt (scan header)")
        sent = slice(first, last + 1) if successive else slice(0, 64)
        missing[component][sent] = [bits if successive else 0] * len(missing[component][sent])


def _orientation(body: bytes) -> int:
    """EXIF orientation in an APP1 segment, 0 where there is none that can be read."""
    order = {b"II": "<", b"MM": ">"}.get(body[6:8])
    if body[:6] != b"Exif\0\0" or order is None:
        return 0
    tiff = body[6:]
    try:
        (first,) = struct.unpack_from(order + "L", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHLH", tiff, entry)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 0
    except struct.error:
        pass
    return 0
