"""Conversions keep what they promise to keep: every pixel of a JPEG, the first frame, the limit of a giant."""

import io
import re
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from bingo.images import convert
from bingo.images.check import judge
from bingo.images.convert import MOST_PIXELS, ConversionError, shrunk_size
from bingo.images.jpeg_markers import parse_jpeg
from bingo.images.jpeg_strict import StrictDecoder
from tests.support import bad_images

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def decoder() -> Iterator[StrictDecoder]:
    with StrictDecoder(1) as started:
        yield started


def noise(mode: str = "RGB", height: int = 33, width: int = 47) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def slow(image: Image.Image, **options: object) -> bytes:
    return bad_images.encode(image, "JPEG", progressive=True, **options)


KINDS = {
    "4:2:0": slow(noise()),
    "4:2:2": slow(noise(), subsampling=1),
    "4:4:4": slow(noise(), subsampling=0),
    "grey": slow(noise("L")),
    "RGB": slow(noise(), keep_rgb=True),
    "one pixel": slow(noise(height=1, width=1)),
    "one column": slow(noise(height=90, width=1)),
    "coarse": slow(noise(), quality=1),
    "fine": slow(noise(), quality=100),
    "restarts": slow(noise(), restart_marker_blocks=2),
    "bytes behind": slow(noise()) + b"more",
    "extended": bad_images.with_byte(bad_images.jpeg(), bad_images.frame_at(bad_images.jpeg()) + 1, 0xC1),
}


@pytest.mark.parametrize("name", KINDS)
def test_baseline_has_the_same_pixels(decoder: StrictDecoder, name: str) -> None:
    before = KINDS[name]
    verdict = judge("x.jpg", before, decoder=decoder)
    assert (verdict.verdict, verdict.action) == ("ok", "baseline")
    assert "progressive or several scans" in verdict.notes
    after = decoder.convert("baseline", before)
    old, new = parse_jpeg(before), parse_jpeg(after)
    assert new.single_scan
    assert (new.height, new.width, new.sampling) == (old.height, old.width, old.sampling)
    with Image.open(io.BytesIO(before)) as first, Image.open(io.BytesIO(after)) as second:
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
        assert second.quantization == first.quantization
    assert judge("x.jpg", after, decoder=decoder).action == ""


def test_a_file_that_ends_the_decoder_costs_one_conversion(decoder: StrictDecoder) -> None:
    with pytest.raises(ConversionError, match="the decoder died on it"):
        decoder.convert("baseline", b"no JPEG")
    assert parse_jpeg(decoder.convert("baseline", KINDS["grey"])).single_scan


def test_without_a_libjpeg_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "JPEG_LIBRARY", re.compile("no such library"))
    convert._libjpeg.cache_clear()
    with pytest.raises(ConversionError, match="neither Pillow nor torchvision brings a libjpeg"):
        convert.baseline(KINDS["grey"])


@pytest.mark.parametrize(("width", "height"), [(5000, 4001), (20_000, 1001), (1001, 20_000), (9331, 6530)])
def test_a_giant_is_shrunk_to_the_limit_in_its_shape(width: int, height: int) -> None:
    small = shrunk_size(width, height)
    assert 0.99 * MOST_PIXELS < small[0] * small[1] <= MOST_PIXELS
    assert small[0] / small[1] == pytest.approx(width / height, rel=2e-3)


def test_only_the_first_frame_is_kept() -> None:
    frames = [bad_images.picture(0), bad_images.picture(1)]
    moving = bad_images.encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(io.BytesIO(convert.to_rgb_png(moving))) as kept:
        assert (kept.format, kept.mode, getattr(kept, "is_animated", False)) == ("PNG", "RGB", False)
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(frames[0]))
