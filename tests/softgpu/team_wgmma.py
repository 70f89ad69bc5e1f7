"""wgmma: products of a warp group that run on while its threads go on."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.softgpu.numbers import UNWRITTEN, WIDEN, u2, u4
from tests.softgpu.state import TeamState


@dataclass
class Product:
    """A wgmma.mma_async in flight. d, a: register numbers, a empty where both factors lie in shared memory.

    left: the registers' arrays, or indices (64, 16) into shared memory; right: indices (n, 16). early: what lay at the
    indices when it was issued, where it reads at once. old: the accumulator, (n / 2, lanes), unless an earlier product
    in flight makes it. keep: it is added to.
    """

    at: int
    kind: str
    d: tuple[int, ...]
    a: tuple[int, ...]
    left: Any
    right: np.ndarray
    keep: bool
    old: np.ndarray | None
    early: tuple[np.ndarray, ...] | None = None


class Wgmma(TeamState):
    """Mixed into `team.Team`. Registers of products in flight are UNWRITTEN, so that any other use is noticed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.product_open: list[Product] = []
        self.product_groups: deque[list[Product]] = deque()
        self.product_count = 0  # groups that were committed
        self.finished: dict[int, np.ndarray] = {}  # accumulators of which an earlier product is done
        self.fenced: list[Any] | None = None  # registers at the last wgmma.fence

    def wgmma_fence(self, at: int, R: list, mask: Any) -> None:
        self._whole_group(at, mask)
        self.fenced = list(R)

    def wgmma(self, at: int, R: list, n: int, kind: str, d: tuple, a: Any, b: np.ndarray, scale: Any,
              transposed: tuple, mask: Any) -> None:  # fmt: skip
        """a: register numbers or a descriptor; scale: whether D is added to; transposed: A and B in shared memory."""
        self._whole_group(at, mask)
        registers = a if isinstance(a, tuple) else ()
        keep = scale if isinstance(scale, bool) else bool(self._same(at, scale, "scale-d"))
        old = self._accumulator(at, R, d, keep)
        self._check_fence(at, R, d, registers)
        left = [R[i] for i in a] if registers else self._operand(at, a, 64, transposed[0])
        right = self._operand(at, b, n, transposed[1])
        shared = (right,) if registers else (right, left)
        for halves in shared:
            self.block.async_read(at, self.own, halves, self.product_count + 1)
        product = Product(at, kind, d, registers, left, right, keep, old)
        if self.block.at_once():
            product.early = tuple(self.block.views[2][halves] for halves in shared)
        self.product_open.append(product)
        for i in d:
            R[i] = UNWRITTEN
            self.pending_registers[i] = at

    def wgmma_commit(self, at: int, mask: Any) -> None:
        self._whole_group(at, mask)
        self.product_groups.append(self.product_open)
        self.product_open = []
        self.product_count += 1

    def wgmma_wait(self, at: int, R: list, allowed: int, mask: Any) -> None:
        self._whole_group(at, mask)
        done: list[Product] = []
        while len(self.product_groups) > allowed:
            done += self.product_groups.popleft()
        flying = {i for product in self._flying() for i in product.d}
        for product in done:
            self._finish(R, product, flying)
        clocks = self.block.clocks
        clocks.finish_products(self.own, self.product_count - len(self.product_groups))

    def _whole_group(self, at: int, mask: Any) -> None:
        if mask is not None or self.count != 4 or self.first % 4:
            self.block.fault(at, "wgmma is not executed by a whole warp group")

    def _same(self, at: int, values: np.ndarray, what: str) -> Any:
        if (values != values[0]).any():
            self.block.fault(at, f"threads of a warp group give wgmma different values of {what}")
        return values[0]

    def _operand(self, at: int, descriptor: np.ndarray, rows: int, transposed: int) -> np.ndarray:
        return self.block.operand(at, int(self._same(at, descriptor, "a descriptor")), rows, transposed)

    def _accumulator(self, at: int, R: list, d: tuple, keep: bool) -> np.ndarray | None:
        """Its values, unless they are not needed or still in flight."""
        if any(i in self.pending_registers for i in d):
            if d not in {product.d for product in self._flying()}:
                self.block.fault(at, "the accumulator overlaps one of another shape that is in flight")
            return None
        if not keep:
            return None
        if any(R[i] is UNWRITTEN for i in d):
            self.block.fault(at, "accumulator read before it was written")
        return np.stack([R[i] for i in d])

    def _check_fence(self, at: int, R: list, d: tuple, a: tuple) -> None:
        if any(i in self.pending_registers for i in a):
            self.block.fault(at, "an operand register of a wgmma is the accumulator of one in flight")
        touched = [i for i in (*d, *a) if i not in self.pending_registers]
        if self.fenced is None or any(R[i] is not self.fenced[i] for i in touched):
            self.block.fault(at, "registers of a wgmma were written after the last wgmma.fence")

    def _flying(self) -> list[Product]:
        return [product for group in [*self.product_groups, self.product_open] for product in group]

    def _finish(self, R: list, product: Product, flying: set[int]) -> None:
        result = self._left(R, product) @ self._right(product).T  # in fp32, in an order of NumPy's choice
        n = result.shape[1]  # row: warp, half, lane / 4; column: eight, lane % 4, pair
        result = result.reshape(4, 2, 8, n // 8, 4, 2).transpose(3, 1, 5, 0, 2, 4).reshape(n // 2, 128)
        if product.keep:
            old = product.old
            result += np.stack([self.finished[i] for i in product.d]) if old is None else old
        for i, row in zip(product.d, result, strict=True):
            self.finished[i] = row
            if i not in flying:
                self._give_back(R, product, i, row)

    def _give_back(self, R: list, product: Product, i: int, row: np.ndarray) -> None:
        if i in self.pending_registers:
            if R[i] is not UNWRITTEN:
                self.block.fault(product.at, "an accumulator of a wgmma is written while it is in flight")
            del self.pending_registers[i]
        R[i] = row
        if self.fenced:
            self.fenced[i] = row

    def _left(self, R: list, product: Product) -> np.ndarray:
        """(64, 16)"""
        widen = WIDEN[product.kind]
        if not product.a:
            return widen(product.early[1] if product.early else self.block.views[2][product.left])
        if any(R[i] is not x for i, x in zip(product.a, product.left, strict=True)):
            self.block.fault(product.at, "an operand register of a wgmma is changed while it is in flight")
        halves = widen(np.stack([x.view(u4) for x in product.left]).view(u2))
        halves = halves.reshape(2, 2, 4, 8, 4, 2)  # half of k, half, warp, lane / 4, lane % 4, k
        return halves.transpose(2, 1, 3, 0, 4, 5).reshape(64, 16)

    def _right(self, product: Product) -> np.ndarray:
        """(n, 16)"""
        return WIDEN[product.kind](product.early[0] if product.early else self.block.views[2][product.right])
