"""The 32, 64 and 128 byte patterns of shared memory."""

import numpy as np


def swizzle(address: np.ndarray, width: int) -> np.ndarray:
    """Shared-memory addresses under the 32, 64 or 128 byte pattern: 16-byte chunks trade places."""
    bits = {0: 0, 32: 1, 64: 3, 128: 7}[width]
    return address ^ ((address >> 7 & bits) << 4)
