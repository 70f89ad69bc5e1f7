"""The 32, 64 and 128 byte patterns of shared memory."""

import numpy as np

ROWS = {0: 0, 32: 1, 64: 3, 128: 7}  # bytes of a row of the pattern -> which bits of the row's number move a chunk


def swizzle(address: np.ndarray, width: int) -> np.ndarray:
    """Where bytes lie under the pattern of `width` bytes: the 16-byte chunks of a row trade places.

    address: shared-memory addresses, any shape. Address bits 7 and up, as many as the pattern has, are added (exclusive
    or) to the bits from 4 on. So the pattern repeats every 8 * `width` bytes, whatever the address of the matrix is.
    """
    return address ^ ((address >> 7 & ROWS[width]) << 4)
