"""Digests of encoded images, and the first of each set of copies."""

import numpy as np
import pytest

from bingo.files import HASH_BYTES
from bingo.images.digests import first_with_digest, image_digest

pytestmark = pytest.mark.quick


def test_each_copy_points_to_the_first() -> None:
    images = [b"one", b"two", b"one", b"", b"two", b"one"]
    digests = np.stack([np.frombuffer(image_digest(image), np.uint8) for image in images])
    assert digests.shape == (6, HASH_BYTES)
    assert first_with_digest(digests).tolist() == [0, 1, 0, 3, 1, 0]
    assert first_with_digest(digests[::2]).tolist() == [0, 0, 2], "rows need not lie side by side"
    assert first_with_digest(digests[:0]).tolist() == []


def test_bytes_and_an_array_of_them_have_one_digest() -> None:
    assert image_digest(b"one") == image_digest(np.frombuffer(b"one", np.uint8)) != image_digest(b"two")
