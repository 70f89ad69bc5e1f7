"""Matrices in shared memory as wgmma and tcgen05.mma name them: 64-bit descriptors."""

from dataclasses import dataclass

import numpy as np

from tests.softgpu.parse import Unsupported
from tests.softgpu.swizzle import swizzle

K = 16  # columns of an operand of 16-bit numbers in one product
WGMMA_WIDTHS = {0: 0, 1: 128, 2: 64, 3: 32}  # bits 62-63
TCGEN05_WIDTHS = {0: 0, 2: 128, 4: 64, 6: 32}  # bits 61-63


@dataclass(frozen=True)
class Matrix:
    """start, leading, stride: bytes. width: bytes of a row of the swizzling pattern, 0 without one."""

    start: int
    leading: int
    stride: int
    width: int


def wgmma_matrix(bits: int) -> Matrix:
    """Raises Unsupported for a base offset and for bits that have no meaning."""
    if bits >> 49 & 7:
        raise Unsupported(f"wgmma with the base offset {bits >> 49 & 7}")
    if bits & ~(0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 3 << 62):
        raise Unsupported(f"wgmma with the descriptor {bits:#x}: reserved bits are set")
    return Matrix(*_offsets(bits), WGMMA_WIDTHS[bits >> 62])


def tcgen05_matrix(bits: int) -> Matrix:
    """Raises Unsupported for a base offset, absolute strides, the 32-byte atoms of 128, and for wrong fixed bits."""
    if bits >> 49 & 7:
        raise Unsupported(f"tcgen05.mma with the base offset {bits >> 49 & 7}")
    fixed = bits & ~(0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 7 << 61)
    if fixed != 1 << 46 or bits >> 61 not in TCGEN05_WIDTHS:
        raise Unsupported(f"tcgen05.mma with the descriptor {bits:#x}")
    return Matrix(*_offsets(bits), TCGEN05_WIDTHS[bits >> 61])


def _offsets(bits: int) -> tuple[int, int, int]:
    start, leading, stride = ((bits >> at & 0x3FFF) << 4 for at in (0, 16, 32))
    return start, leading, stride


def addresses(matrix: Matrix, rows: int, transposed: bool) -> np.ndarray:
    """Shared-memory addresses (rows, 16) of an operand's 16-bit numbers.

    transposed: neighbours in memory are of one column (M or N runs fastest), else of one row (K does). The canonical
    layouts of the PTX manual: without a pattern tiles of 8 by 16 bytes, with one tiles of 8 by `width` bytes.
    """
    row, column = np.arange(rows)[:, None], np.arange(K)[None, :]
    if not transposed:
        if matrix.width:  # the 16 columns lie within a row of the pattern: the leading offset has no part
            inside = row % 8 * matrix.width + 2 * column
        else:
            inside = row % 8 * 16 + column // 8 * matrix.leading + column % 8 * 2
        return swizzle(matrix.start + inside + row // 8 * matrix.stride, matrix.width)
    per = (matrix.width or 16) // 2  # rows of the operand that lie beside one another
    along, across = (matrix.leading, matrix.stride) if matrix.width else (matrix.stride, matrix.leading)
    inside = row % per * 2 + column % 8 * per * 2
    return swizzle(matrix.start + inside + row // per * along + column // 8 * across, matrix.width)
