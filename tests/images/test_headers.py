"""Why an image is refused that only its header was read of."""

import io
import warnings

import pytest
from PIL import Image

from bingo.images.headers import quiet_pillow, too_many_pixels, unidentified
from tests.support import bad_images

pytestmark = pytest.mark.quick


def test_the_limit_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert too_many_pixels(20, 30) == ""
    assert too_many_pixels(20, 31) == "too many pixels (31x20, Pillow's limit is 600)"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert too_many_pixels(10**6, 10**6) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>", "not an image"),
        (bad_images.png()[:20], "truncated or corrupt PNG header"),
        (bad_images.huge_png(60_000), "too many pixels (Image size (3600000000 pixels) exceeds limit"),
    ],
    ids=["text", "cut", "huge"],
)
def test_what_pillow_cannot_open(data: bytes, reason: str) -> None:
    with pytest.raises(Exception) as error, quiet_pillow():  # noqa: PT011  one reason for each kind of error
        Image.open(io.BytesIO(data))
    assert unidentified(data, error.value).startswith(reason)


def test_any_other_error_is_quoted() -> None:
    assert unidentified(b"", OSError("no data")) == "not readable as an image (no data)"


def test_only_pillows_warnings_are_dropped() -> None:
    with warnings.catch_warnings(record=True) as found, quiet_pillow():
        warnings.warn_explicit("metadata", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
        warnings.warn_explicit("ours", UserWarning, "check.py", 1, module="bingo.images.check")
    assert [str(warning.message) for warning in found] == ["ours"]
