"""Accepts or refuses every image before training does, with the reason: the rules for each kind of file.

Stricter than DALI on purpose: one bad image fails a whole DALI batch without naming the file, and DALI passes garbage
in the middle of a file and a tail of zeros in silence. What cannot be found: damage that leaves a valid stream. The
content decides, not the name. What becomes of each kind of file:

| content | verdict of `check` | packed as | with `--convert` |
|---|---|---|---|
| JPEG, baseline, one scan; grey too | ok | it is | it is |
| JPEG, progressive, extended or of several scans | ok, noted | it is | baseline, one scan, same pixels (`baseline`) |
| EXIF-rotated | ok, noted | it is: the orientation is ignored | it is |
| giant, more than 20 megapixels | ok, noted | it is | shrunk to at most 20 megapixels (`shrink`) |
| PNG, 8 bits or fewer, grey or RGB | ok | it is | it is |
| APNG | ok, noted | it is: decoders show its default image | it is |
| PNG named .jpg, JPEG named .png, ... | convertible | refused | it is |
| CMYK or YCCK JPEG | convertible | refused | RGB PNG (`to_rgb_png`) |
| PNG with palette, alpha or 16 bits | convertible | refused | RGB PNG: alpha dropped, high byte kept |
| GIF, WebP, BMP, TIFF, PPM, PGM | convertible | refused | RGB PNG of the first frame |
| arithmetic-coded, lossless, hierarchical or 12-bit JPEG | bad | refused | refused |
| floating-point or 32-bit TIFF, any other format | bad | refused | refused |
| more pixels than Pillow's limit (89 megapixels) | bad | refused | refused |
| needs more time or memory than one image may, or has an endless header | bad | refused | refused |
| damaged, empty, no file | bad | refused | refused |

The functions named are those of `bingo.images.convert`; only baseline JPEGs of one scan suit a hardware decoder.
`--allow-bad` leaves bad files out; the orientation of EXIF is ignored in sizes and in training. Exact duplicates (same
bytes) are counted and listed, and stay.
"""

import contextlib
import errno
import glob
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bingo.errors import PASSING, TransientError, file_error, of_process, remedy
from bingo.images.convert import MOST_PIXELS, ConversionError
from bingo.images.digests import image_digest
from bingo.images.headers import CONVERTIBLE_FORMATS, too_many_pixels
from bingo.images.journal import SAVE_SECONDS, Journal
from bingo.images.jpeg_markers import JpegError, parse_jpeg
from bingo.images.jpeg_strict import DIED, NEEDS, StrictDecoder
from bingo.images.listing import Listing, Unreadable
from bingo.images.names import printable
from bingo.images.parallel import Advance, in_order
from bingo.images.sources import list_source
from bingo.images.verdicts import ACTIONS, CHECK_WORDS, FORMATS, NOTES, Verdicts

PNG_GREY, PNG_PALETTE, PNG_ALPHA = (0, 4), 3, (4, 6)  # colour types in the PNG header
SUFFIX_FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".pgm": "ppm"}  # others: the suffix itself
PLAIN_SAMPLING = {((1, 1),), *(((h, v), (1, 1), (1, 1)) for h, v in ((1, 1), (2, 1), (2, 2), (1, 2)))}
FILES_PER_START = 2000  # a decoding process takes seconds to start; below this many files a second one does not pay


@dataclass(frozen=True)
class FileVerdict:
    """What is known about one file.

    `path` is relative to the source, with `/`; `verdict` is "ok", "convertible" or "bad", `reason` a short phrase,
    empty when ok; `format` is the content's (`verdicts.FORMATS`), "" when not known; height and width in pixels as
    stored, 0 when not known; `bytes` is the size of the file; `action` is what `--convert` does (`verdicts.ACTIONS`);
    `notes` (`verdicts.NOTES`) are remarks that change no verdict.
    """

    path: str
    verdict: str
    reason: str = ""
    format: str = ""
    height: int = 0
    width: int = 0
    bytes: int = 0
    action: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """A verdict, the bytes that it is about (after conversion, if `converted`) and their digest."""

    verdict: FileVerdict
    data: bytes
    digest: bytes
    converted: bool = False

    def enter(self, journal: Journal, index: int, *, stored: int = 0, offset: int = 0, shard: int = 0) -> None:
        """Write it into row `index`."""
        verdict = self.verdict
        journal.put(
            index,
            reason=verdict.reason,
            verdict=CHECK_WORDS.index(verdict.verdict),
            format=FORMATS.index(verdict.format),
            action=ACTIONS.index(verdict.action),
            converted=self.converted,
            notes=sum(1 << NOTES.index(note) for note in verdict.notes),
            height=verdict.height,
            width=verdict.width,
            bytes=verdict.bytes,
            digest=np.frombuffer(self.digest, np.uint8),
            stored=stored,
            offset=offset,
            shard=shard,
        )


def check_folder(
    source: Path,
    *,
    workers: int = 0,
    advance: Advance | None = None,
    journal: Path | None = None,
    class_from: str = "",
    ext: str = "",
) -> Verdicts:
    """Read and decode every image of `source` (`bingo.images.sources`: class folders or tar files).

    `workers` threads, 0 = one per available core, fewer for a small folder; each keeps one decoding process, started at
    its first JPEG. `advance(done, total)` is called from the calling thread. `journal`: a file to which the verdicts
    are saved on the way, and from which an interrupted check of the same files goes on; the caller deletes it.
    `class_from` and `ext` as for `list_source`.
    Raises `UserError` for a source that is missing, empty, without classes or without images, and for a full disk.
    """
    listing = list_source(Path(source), class_from=class_from, ext=ext)
    with _journal_errors(journal):
        log = Journal(journal, listing.fingerprint, "check", len(listing.paths))
        if journal is not None:  # it lies beside the verdicts: .NAME.journal
            for left in journal.parent.glob(f"{glob.escape(journal.stem)}.*.tmp"):
                left.unlink(missing_ok=True)
        with contextlib.closing(log):
            try:
                for index, inspection in inspect_images(listing, log.pending, workers, advance):
                    inspection.enter(log, index)
                    log.save(due=SAVE_SECONDS)
            finally:
                log.save()
    return Verdicts(listing, log.rows, log.reasons)


@contextlib.contextmanager
def _journal_errors(journal: Path | None) -> Iterator[None]:
    """Errors in reading an image are verdicts, so an OSError here is about the journal."""
    try:
        yield
    except OSError as error:
        if journal is None or of_process(error):
            raise
        reason = error.strerror or error
        raise file_error(
            error, f"cannot write {journal}: {reason}; {remedy(error)} and repeat the command to go on"
        ) from error


def inspect_images(
    listing: Listing,
    indices: npt.NDArray[np.int64],
    workers: int = 0,
    advance: Advance | None = None,
    *,
    convert: bool = False,
) -> Iterator[tuple[int, Inspection]]:
    """Inspect the images `indices` (int64) in parallel, yield in order; few files per worker are in memory at a time.

    `convert`: do what `--convert` does to sound files.
    """
    total, left = len(listing.paths), len(indices)
    workers = workers or min(len(os.sched_getaffinity(0)), 1 + left // FILES_PER_START)
    with StrictDecoder(workers) as decoder, ThreadPoolExecutor(workers) as pool:
        inspect = partial(inspect_image, listing, decoder=decoder, convert=convert)
        results = in_order(pool, inspect, indices, 4 * workers)
        for done, (index, inspection) in enumerate(zip(indices, results, strict=True), total - left + 1):
            yield int(index), inspection
            if advance is not None:
                advance(done, total)


def inspect_image(listing: Listing, index: int, *, decoder: StrictDecoder, convert: bool = False) -> Inspection:
    """Read one image, judge it and, if wanted, convert it."""
    path = listing.paths[int(index)]
    try:
        data = listing.read(int(index))
    except Unreadable as error:
        if error.number in PASSING and error.number != errno.EIO:  # EIO: a bad block of a disk, as a rule
            raise TransientError(f"{printable(path)}: {error}; repeat the command to go on") from error
        return Inspection(FileVerdict(path, "bad", str(error)), b"", bytes(16))
    verdict = judge(path, data, decoder=decoder)
    if not convert or verdict.verdict == "bad":
        return Inspection(verdict, data, image_digest(data))
    if verdict.action:
        try:
            data = decoder.convert(verdict.action, data)
        except ConversionError as error:
            if verdict.action != "png":  # then it is of use as it is
                misnamed = verdict.verdict == "convertible"
                verdict = replace(verdict, reason=f"kept as it is ({error})")
                return Inspection(verdict, data, image_digest(data), misnamed)
            verdict = replace(verdict, verdict="bad", reason=f"cannot be converted ({error})")
            return Inspection(verdict, b"", bytes(16))
    return Inspection(verdict, data, image_digest(data), bool(verdict.action or verdict.reason))


def judge(path: str, data: bytes, *, decoder: StrictDecoder) -> FileVerdict:
    """The verdict on a file's content; `path` matters only for its ending."""
    if not data:
        return FileVerdict(path, "bad", "zero bytes")
    found = _judge_jpeg(path, data, decoder) if data[:2] == b"\xff\xd8" else _judge_other(path, data, decoder)
    if found.verdict == "bad":
        return found
    if found.height * found.width > MOST_PIXELS:
        found = replace(found, action="shrink", notes=(*found.notes, "giant"))
    suffix = Path(path).suffix.lower()
    misnamed = SUFFIX_FORMATS.get(suffix, suffix[1:]) != found.format
    if misnamed and not found.reason:
        found = replace(found, verdict="convertible", reason=f"{found.format.upper()} content named {suffix}")
    return found


def _judge_jpeg(path: str, data: bytes, decoder: StrictDecoder) -> FileVerdict:
    bad = partial(FileVerdict, path, "bad", bytes=len(data))
    try:
        jpeg = parse_jpeg(data)
    except JpegError as error:
        return bad(str(error), "jpeg")
    size = (jpeg.height, jpeg.width)
    if jpeg.coding:
        return bad(f"{jpeg.coding}, which usual decoders do not read", "jpeg", *size)
    if too_many_pixels(*size):
        return bad(too_many_pixels(*size), "jpeg", *size)
    said = decoder.problem(data)
    if said.startswith(NEEDS):
        return bad(said, "jpeg", *size)
    if said.startswith("Image is incomplete"):
        return bad("truncated (image data ends early)", "jpeg", *size)
    if said:
        return bad(f"corrupt ({said.removeprefix('Corrupt JPEG data: ')})", "jpeg", *size)
    if len(jpeg.sampling) == 4:
        kind = "YCCK JPEG" if jpeg.adobe == 2 else "CMYK JPEG"
        return FileVerdict(path, "convertible", kind, "jpeg", *size, len(data), "png")
    remarks = {
        "greyscale": len(jpeg.sampling) == 1,
        "progressive or several scans": not jpeg.single_scan,
        "EXIF-rotated": jpeg.orientation != 1,
        "unusual chroma sampling": len(jpeg.sampling) == 3 and jpeg.sampling not in PLAIN_SAMPLING,
    }
    notes = tuple(note for note, holds in remarks.items() if holds)
    return FileVerdict(path, "ok", "", "jpeg", *size, len(data), "" if jpeg.single_scan else "baseline", notes)


def _judge_other(path: str, data: bytes, decoder: StrictDecoder) -> FileVerdict:
    """Everything but JPEG, which Pillow tells apart by content."""
    bad = partial(FileVerdict, path, "bad", bytes=len(data))
    header = decoder.look(data)
    if isinstance(header, str):
        return bad(header)
    kind, mode, width, height, animated = header
    name = "png" if kind == "PNG" else CONVERTIBLE_FORMATS.get(kind)
    if name is None:
        return bad(f"{kind} content, which is not read")
    if too_many_pixels(height, width):
        return bad(too_many_pixels(height, width), name, height, width)
    if name != "png" and (mode == "F" or (name == "tiff" and mode == "I")):
        return bad("floating-point or 32-bit pixels, whose range is not known", name, height, width)
    damage = (_png_structure(data) if name == "png" else "") or _damage(decoder.load_problem(data), name)
    if damage:
        return bad(damage, name, height, width)
    oddity = _png_oddity(data) if name == "png" else f"{name.upper()} image"
    grey = data[25] in PNG_GREY if name == "png" else mode in ("1", "L", "LA", "I", "I;16", "I;16B")
    notes = tuple(note for note, holds in {"greyscale": grey, "animated": animated}.items() if holds)
    verdict, action = ("convertible", "png") if oddity else ("ok", "")
    return FileVerdict(path, verdict, oddity, name, height, width, len(data), action, notes)


def _png_structure(data: bytes) -> str:
    """What decoders do not miss in a PNG."""
    if b"IEND\xaeB`\x82" not in data:
        return "truncated (no IEND chunk)"
    return "" if b"IDAT" in data else "corrupt (no IDAT chunk)"


def _damage(said: str, name: str) -> str:
    """The reason for what Pillow said on decoding an image; "" for nothing."""
    if not said or said.startswith(NEEDS):
        return said
    if name == "png" and said != DIED:
        return f"corrupt ({said.removeprefix('broken PNG file ').strip('()')})"
    cut = "truncated" if "truncated" in said or "not enough image data" in said else "corrupt"
    return f"{cut} ({said})"


def _png_oddity(data: bytes) -> str:
    depth, colour = data[24], data[25]
    if depth == 16:
        return "16-bit PNG"
    if colour == PNG_PALETTE:
        return "palette PNG"
    return "PNG with alpha" if colour in PNG_ALPHA or b"tRNS" in data[: data.index(b"IDAT")] else ""
