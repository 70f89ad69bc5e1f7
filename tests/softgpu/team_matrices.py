"""Matrix products of one warp (mma.sync), and the loads and stores of their fragments."""

import numpy as np

from tests.softgpu.numbers import WIDEN, u2, u4
from tests.softgpu.state import TeamState


class Matrices(TeamState):
    """Mixed into `team.Team`. Fragments as the PTX manual has them: lane / 4 is a row, lane % 4 a pair of columns."""

    def mma(self, at: int, kind: str, a: tuple, b: tuple, c: tuple, mask: np.ndarray | None) -> np.ndarray:
        """m16n8k16: a 4 and b 2 registers of two 16-bit numbers, c 4 fp32 numbers per thread. Returns (4, lanes).

        Products of 16-bit numbers are exact in fp32. Their sum is made in fp32 in an order of NumPy's choice, then c is
        added: a device adds in another order and with fewer bits.
        """
        self._whole_warps(at, mask)
        w = self.count
        left = WIDEN[kind](np.stack(a).view(u2)).reshape(2, 2, w, 8, 4, 2)  # half of k, half of m, warp, row, pair, k
        left = left.transpose(2, 1, 3, 0, 4, 5).reshape(w, 16, 16)
        right = WIDEN[kind](np.stack(b).view(u2)).reshape(2, w, 8, 4, 2)  # half of k, warp, column, pair, k
        right = right.transpose(1, 0, 3, 4, 2).reshape(w, 16, 8)
        added = np.matmul(left, right).reshape(w, 2, 8, 4, 2).transpose(1, 4, 0, 2, 3).reshape(4, self.lanes)
        return added + np.stack(c)

    def ldmatrix(self, at: int, address: np.ndarray, count: int, transposed: bool, mask: np.ndarray | None) -> list:
        """`count` matrices of 8 rows of 16 bytes; thread 8 i + r of a warp has the address of row r of matrix i."""
        warps = self._whole_warps(at, mask)
        rows = address.reshape(-1, 32)[warps, : 8 * count]  # (W, 8 count)
        offset = self._shared(at, rows.reshape(-1), 16)
        self.block.read(at, np.repeat(self.own[warps], 8 * count), offset, 16)
        words = self.block.views[4][(offset // 4)[:, None] + np.arange(4)].reshape(-1, count, 8, 4)
        words = _transpose(words) if transposed else words
        values = []
        for i in range(count):
            value = np.zeros((self.count, 32), u4)
            value[warps] = words[:, i].reshape(-1, 32)
            values.append(value.reshape(-1))
        return values

    def stmatrix(self, at: int, address: np.ndarray, values: tuple, transposed: bool, mask: np.ndarray | None) -> None:
        """The opposite of ldmatrix; values: a register per matrix."""
        warps = self._whole_warps(at, mask)
        count = len(values)
        rows = address.reshape(-1, 32)[warps, : 8 * count]
        offset = self._shared(at, rows.reshape(-1), 16)
        words = np.stack([v.reshape(-1, 32)[warps] for v in values], 1).reshape(-1, count, 8, 4)
        words = _transpose(words) if transposed else words
        self.block.write(at, np.repeat(self.own[warps], 8 * count), offset, 16)
        where = (offset // 4)[:, None] + np.arange(4)
        self.block.views[4][where] = words.reshape(-1, 4)
        if (self.block.views[4][where] != words.reshape(-1, 4)).any():
            self.block.fault(at, "rows of a stmatrix lie over one another and differ")


def _transpose(words: np.ndarray) -> np.ndarray:
    """words: (..., 8, 4), two 16-bit numbers each."""
    halves = np.ascontiguousarray(words).view(u2)
    return np.ascontiguousarray(halves.swapaxes(-1, -2)).view(u4)
