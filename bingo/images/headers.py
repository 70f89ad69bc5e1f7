"""What an image's header alone tells: formats that can be converted, too many pixels, no image at all."""

import contextlib
import warnings
from collections.abc import Iterator

from PIL import Image

CONVERTIBLE_FORMATS = {"GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tiff", "PPM": "ppm"}  # Pillow's names


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns about metadata (EXIF, APNG) that is not read here; size and pixels are judged without warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def too_many_pixels(height: int, width: int) -> str:
    """Why an image of so many pixels is refused, or ""."""
    limit = Image.MAX_IMAGE_PIXELS
    excess = limit is not None and width * height > limit
    return f"too many pixels ({width}x{height}, Pillow's limit is {limit})" if excess else ""


def unidentified(data: bytes, error: Exception) -> str:
    """Why Pillow, which ended in `error`, could not tell what an image is; data: its first bytes."""
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels ({error})"
    if data.startswith(b"\x89PNG"):
        return "truncated or corrupt PNG header"
    return "not an image" if isinstance(error, Image.UnidentifiedImageError) else f"not readable as an image ({error})"
