"""Tensor memory of a block: its columns, and the products in it."""

from collections import Counter, deque
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from tests.softgpu.block_flights import Flight
from tests.softgpu.clocks import LANES as WARP
from tests.softgpu.descriptors import K, addresses, tcgen05_matrix, wgmma_matrix
from tests.softgpu.numbers import WIDEN, f4, u2, u4
from tests.softgpu.parse import Unsupported
from tests.softgpu.state import BlockState
from tests.softgpu.tensor_clocks import COLUMNS, LANES, STRIP, Region, TensorClocks
from tests.softgpu.writer import SMEM_BASE

KINDS = {0: "f16", 1: "bf16"}
WIDTHS = (32, 64, 128, 256, 512)  # columns that may be allocated


@dataclass(frozen=True)
class Form:
    """What an instruction descriptor says: D is m by n in fp32; transposed: A or B has M or N running fastest."""

    m: int
    n: int
    a: str
    b: str
    a_transposed: int
    b_transposed: int


@lru_cache(256)
def read_form(bits: int) -> Form:
    """Raises Unsupported for what is not a dense product of fp16 or bf16 in fp32 as it stands."""
    m, n = (bits >> 24 & 31) * 16, (bits >> 17 & 63) * 8
    kinds = KINDS.get(bits >> 7 & 7), KINDS.get(bits >> 10 & 7)
    known = 3 << 4 | 7 << 7 | 7 << 10 | 1 << 15 | 1 << 16 | 63 << 17 | 31 << 24
    shape = ((m == 64 and n % 8 == 0) or (m == 128 and n % 16 == 0)) and 8 <= n <= 256
    if bits & ~known or bits >> 4 & 3 != 1 or None in kinds or not shape:
        raise Unsupported(f"tcgen05.mma with the instruction descriptor {bits:#x}")
    return Form(m, n, kinds[0], kinds[1], bits >> 15 & 1, bits >> 16 & 1)


@dataclass
class TensorProduct:
    """A tcgen05.mma that was issued. d, a: lane and column; a or left is given. left, right: indices (rows, 16)."""

    form: Form
    d: tuple[int, int]
    a: tuple[int, int] | None
    left: np.ndarray | None
    right: np.ndarray
    keep: bool


class TensorMemory(BlockState):
    """Mixed into `block.Block`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tmem_held: dict[int, int] = {}  # first column -> columns
        self.tmem_permit = True
        self.accumulators: dict[tuple, int] = {}  # place and form of products -> number
        self.product_queue: deque[TensorProduct] = deque()  # issued, not executed; they are executed in this order
        self.products_issued = 0
        self.products_open: dict[int, set[int]] = {}  # warp -> its threads whose products are not committed
        self.product_commits: Counter[int] = Counter()  # of each warp

    # Made at the first use: other kernels have no tensor memory.

    @cached_property
    def tmem(self) -> np.ndarray:
        return np.full((LANES, COLUMNS), 0xFFFFFFFF, u4)  # NaN in every floating-point type

    @cached_property
    def tensor_clocks(self) -> TensorClocks:
        return TensorClocks(self.clocks)

    # Columns

    def tmem_alloc(self, at: int, columns: int) -> int:
        if columns not in WIDTHS:
            self.fault(at, f"{columns} columns of tensor memory: a power of two from 32 to 512 is needed")
        if not self.tmem_permit:
            self.fault(at, "tensor memory is asked for after the permit was given up")
        taken = np.zeros(COLUMNS, bool)
        for first, count in self.tmem_held.items():
            taken[first : first + count] = True
        free = [first for first in range(0, COLUMNS - columns + 1, 32) if not taken[first : first + columns].any()]
        if not free:
            self.fault(at, "tensor memory is used up")
        self.tmem_held[free[0]] = columns
        self.tmem[:, free[0] : free[0] + columns] = 0xFFFFFFFF
        return free[0]

    def tmem_dealloc(self, at: int, warp: int, address: int, columns: int) -> None:
        if self.tmem_held.get(address) != columns:
            self.fault(at, "tensor memory is given back that is not held like this")
        region = slice(None), slice(address, address + columns)
        if self.races:
            found = self.tensor_clocks.free(self.clocks.warp(warp), region)
            if found and not found[2]:  # a synchronous instruction: it needs no tcgen05.fence
                self._judge(at, "end", found)
        self.tensor_clocks.forget(region)
        del self.tmem_held[address]

    def tmem_check(self, at: int, lane: int, high: int, column: int, wide: int) -> None:
        inside = any(first <= column and column + wide <= first + count for first, count in self.tmem_held.items())
        if not inside or lane + high > LANES:
            self.fault(
                at, f"tensor memory outside the allocation: lane {lane}, columns {column} to {column + wide - 1}"
            )

    # Order

    def tmem_read(self, at: int, who: int, actor: int, region: Region, time: int) -> None:
        if self.races:
            self._judge(at, "read", self.tensor_clocks.read(at, who, actor, region, time))

    def tmem_write(self, at: int, who: int, actor: int, region: Region, time: int, accumulator: int = -1) -> None:
        if self.races:
            self._judge(at, "write", self.tensor_clocks.write(at, who, actor, region, time, accumulator))

    def _judge(self, at: int, what: str, found: Any) -> None:
        """Triton leaves every tcgen05.fence out, so a missing one is a fault for strict blocks only."""
        if found is None:
            return
        actor, other, but_for_a_fence = found
        text = f"race: {what} of tensor memory after {self.tensor_clocks.name(actor)} at {self.place(other)}"
        if not but_for_a_fence:
            self.fault(at, f"{text}: unordered")
        if self.strict:
            self.fault(at, f"{text}: no tcgen05.fence in between")
        self.warnings.add("tensor memory is handed from thread to thread without a tcgen05.fence")

    # Products

    def tcgen05_mma(self, at: int, thread: int, d: int, a: int, memory: bool, b: int, form: int,
                    keep: bool) -> None:  # fmt: skip
        """d: address in tensor memory. a: the same (memory), or a descriptor, as b is. form: instruction descriptor."""
        shape = read_form(form)
        place = self._tensor_place(at, d, shape.m, shape.n)
        source = self._tensor_place(at, a, shape.m, K // 2) if memory else None
        if source and source[0] != place[0]:
            self.fault(at, "A and D of a product are aligned to different lanes of tensor memory")
        right = self.operand(at, b, shape.n, shape.b_transposed, True)
        left = None if memory else self.operand(at, a, shape.m, shape.a_transposed, True)
        self._order(at, thread, TensorProduct(shape, place, source, left, right, keep))
        self.products_open.setdefault(thread // WARP, set()).add(thread)
        if self.at_once():
            self._multiply_until(self.products_issued)

    def tcgen05_commit(self, at: int, thread: int, address: int) -> None:
        """The mbarrier gets an arrival once everything that this thread has issued is done."""
        warp = thread // WARP
        if self.products_open.pop(warp, set()) - {thread}:
            self.fault(at, "tcgen05.commit by another thread than the one that issued the products")
        barrier = self._barrier(at, thread, address)
        self.product_commits[warp] += 1
        issued = self.products_issued
        self.fly(Flight(at, barrier, barrier.phase, self.clocks.products(warp), self.product_commits[warp],
                        lambda: self._multiply_until(issued), in_turn=True))  # fmt: skip

    def _tensor_place(self, at: int, address: int, rows: int, columns: int) -> tuple[int, int]:
        """First lane and column. 64 rows lie in 16 lanes of each 32, from 0 or 16 on; 128 in all of them."""
        lane, column = address >> 16, address & 0xFFFF
        if lane not in ((0, 16) if rows == 64 else (0,)):
            self.fault(at, f"a product of {rows} rows in tensor memory begins at lane {lane}")
        self.tmem_check(at, lane, rows, column, columns)
        return lane, column

    def _order(self, at: int, thread: int, product: TensorProduct) -> None:
        """Queue the product; note and judge what it reads and writes."""
        self.product_queue.append(product)
        self.products_issued += 1
        warp = thread // WARP
        time, actor = self.product_commits[warp] + 1, self.tensor_clocks.products(warp)
        for halves in (product.right, product.left):
            if halves is not None and self.races:
                g = self._unique(halves)
                self.check(at, thread, g, "tcgen05.mma's read", "write", asynchronous=True)
                self.clocks.record_read(self.clocks.products(warp), g, time, at)
        strips = slice(product.d[0] // STRIP, None, 2 if product.form.m == 64 else 1)
        if product.a:
            self.tmem_read(at, thread, actor, (strips, slice(product.a[1], product.a[1] + K // 2)), time)
        region = strips, slice(product.d[1], product.d[1] + product.form.n)
        accumulator = self.accumulators.setdefault((product.d, product.form), len(self.accumulators))
        self.tmem_write(at, thread, actor, region, time, accumulator)

    def _multiply_until(self, issued: int) -> None:
        """Execute the oldest products, as many as were issued then."""
        while self.products_issued - len(self.product_queue) < issued:
            self._multiply(self.product_queue.popleft())

    def _multiply(self, product: TensorProduct) -> None:
        """In fp32, in an order of NumPy's choice."""
        form = product.form
        if product.a:
            words = self._rows(form.m, *product.a, K // 2)
            left = WIDEN[form.a](np.ascontiguousarray(words).reshape(form.m, K // 2).view(u2))
        else:
            left = WIDEN[form.a](self.views[2][product.left])
        result = left @ WIDEN[form.b](self.views[2][product.right]).T
        target = self._rows(form.m, *product.d, form.n)
        if product.keep:
            result += target.reshape(form.m, form.n).view(f4)
        target[...] = result.view(u4).reshape(target.shape)

    def _rows(self, rows: int, lane: int, column: int, columns: int) -> np.ndarray:
        """A view (4, rows / 4, columns) of the lanes that a matrix's rows lie in."""
        quarters = self.tmem.reshape(4, LANES // 4, COLUMNS)
        return quarters[:, lane : lane + rows // 4, column : column + columns]

    def operand(self, at: int, descriptor: int, rows: int, transposed: int, tcgen05: bool = False) -> np.ndarray:
        """16-bit indices (rows, 16) into shared memory of the matrix that a descriptor names."""
        key = (descriptor, rows, transposed)
        if key not in self.operands:
            halves = operand_halves(descriptor, rows, transposed, tcgen05)
            if halves.min() < 0 or halves.max() >= self.views[2].size:
                self.fault(at, f"the descriptor {descriptor:#x} points outside shared memory")
            self.operands[key] = halves
        return self.operands[key]


@lru_cache(4096)
def operand_halves(descriptor: int, rows: int, transposed: int, tcgen05: bool) -> np.ndarray:
    matrix = tcgen05_matrix(descriptor) if tcgen05 else wgmma_matrix(descriptor)
    return (addresses(matrix, rows, bool(transposed)) - SMEM_BASE) // 2
