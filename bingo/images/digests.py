"""Digests of encoded images, and which images are copies of another."""

import numpy as np
import numpy.typing as npt

from bingo.files import HASH_BYTES, new_hash


def image_digest(data: bytes | npt.NDArray[np.uint8]) -> bytes:
    """Content hash of one encoded image, 16 bytes."""
    digest = new_hash()
    digest.update(data)
    return digest.digest()


def first_with_digest(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For each of N digests (N×16) the lowest index with the same one: int64 (N)."""
    keys = np.ascontiguousarray(digests).view(f"V{HASH_BYTES}").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]
