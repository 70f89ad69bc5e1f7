"""The marker parser reads what libjpeg wrote, and says nothing but `JpegError` about damage."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bingo.images.jpeg_markers import JpegError, parse_jpeg
from tests.support import bad_images

pytestmark = pytest.mark.quick

WHOLE, SLOW = bad_images.jpeg(), bad_images.jpeg(1, progressive=True, restart_marker_blocks=2)


@pytest.mark.parametrize(("mode", "count", "adobe"), [("L", 1, -1), ("RGB", 3, -1), ("CMYK", 4, 0)])
@pytest.mark.parametrize("progressive", [False, True])
def test_what_the_markers_say(mode: str, count: int, adobe: int, progressive: bool) -> None:
    image = bad_images.picture(0, height=33, width=17).convert(mode)
    found = parse_jpeg(bad_images.encode(image, "JPEG", progressive=progressive, restart_marker_blocks=2))
    assert (found.height, found.width, found.precision, found.restart) == (33, 17, 8, 2)
    assert found.process == (0xC2 if progressive else 0xC0)
    assert (found.scans == 1) == (not progressive) == found.single_scan
    assert (len(found.sampling), found.adobe, found.orientation, found.coding) == (count, adobe, 1, "")


@pytest.mark.parametrize(("subsampling", "luma"), [(0, (1, 1)), (1, (2, 1)), (2, (2, 2))])
def test_sampling(subsampling: int, luma: tuple[int, int]) -> None:
    assert parse_jpeg(bad_images.jpeg(subsampling=subsampling)).sampling == (luma, (1, 1), (1, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation(orientation: int, order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F], exif[0x0112] = "camera", orientation
    assert parse_jpeg(bad_images.jpeg(exif=exif)).orientation == orientation


@pytest.mark.parametrize("data", [WHOLE, SLOW], ids=["baseline", "progressive"])
def test_a_cut_file_is_never_whole(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(JpegError):
            parse_jpeg(data[:length])


@settings(max_examples=300, deadline=None)
@given(data=st.sampled_from([WHOLE, SLOW]), places=st.lists(st.tuples(st.integers(2, 3000), st.integers(0, 255))))
def test_damage_is_an_error_of_its_own_or_harmless(data: bytes, places: list[tuple[int, int]]) -> None:
    for at, value in places:
        data = bad_images.with_byte(data, at % len(data), value)
    with contextlib.suppress(JpegError):
        found = parse_jpeg(data)
        assert found.height > 0
        assert found.width > 0
