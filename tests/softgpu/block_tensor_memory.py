"""Tensor memory of a block and its products."""

import numpy as np

from tests.softgpu.numbers import WIDEN, f4, u2, u4
from tests.softgpu.state import BlockState, Fault
from tests.softgpu.swizzle import swizzle
from tests.softgpu.translate import SMEM_BASE


class TensorMemory(BlockState):
    """Mixed into `block.Block`."""

    def tmem_alloc(self, at: int, columns: int) -> int:
        first = sum(self.tmem_held.values())
        if first + columns > 512:
            self.fault(at, "tensor memory is used up")
        self.tmem_held[first] = columns
        return first

    def tmem_dealloc(self, at: int, address: int, columns: int) -> None:
        if self.tmem_held.pop(address, None) != columns:
            self.fault(at, "tensor memory is given back that is not held like this")

    def tmem_check(self, at: int, columns: np.ndarray) -> None:
        if columns.size and columns.max() >= sum(self.tmem_held.values()):
            self.fault(at, "tensor memory outside the allocation")

    def tcgen05_commit(self, at: int, warp: int, address: int) -> None:
        barrier = self._barrier(at, warp, address)
        actor, time = self.clocks.barrier(barrier.number), barrier.earlier + barrier.phase + 1
        if self.races:
            for entry in self.products:
                _, _, _, memory, a, b, form, _ = entry
                m, n = (form >> 24 & 31) * 16, (form >> 17 & 63) * 8
                parts = [self.operand(b, n, form >> 16 & 1, True)]
                parts += [] if memory else [self.operand(a, m, form >> 15 & 1, True)]
                for part in parts:
                    g = self._unique(part)
                    bad = self.clocks.unordered_write(warp, g, True)
                    if bad.any():
                        self._race(entry[0], np.full(len(g), warp), g, bad, "tcgen05 read", "write")
                    self.clocks.reads[actor, g] = time
                    self.clocks.read_at[actor, g] = entry[0]
        self.flights.append(
            {
                "barrier": address,
                "phase": barrier.phase,
                "actor": actor,
                "time": time,
                "products": self.products,
                "at": at,
            }
        )
        self.products = []
        if self.eager:
            self._land()

    def _multiply(self, entry: tuple) -> None:
        at, _, d, memory, a, b, form, keep = entry
        m, n = (form >> 24 & 31) * 16, (form >> 17 & 63) * 8
        kinds = [{0: "f16", 1: "bf16"}[form >> 7 & 7], {0: "f16", 1: "bf16"}[form >> 10 & 7]]
        if m not in (64, 128) or (form >> 4 & 3) != 1 or form >> 13 & 3:
            raise NotImplementedError(f"tcgen05.mma with instruction descriptor {form:#x}")
        row = np.arange(m)
        lanes = row // 16 * 32 + row % 16 if m == 64 else row
        if memory:
            words = self.tmem[((a >> 16) + lanes)[:, None], (a & 0xFFFF) + np.arange(8)]
            left = WIDEN[kinds[0]](np.ascontiguousarray(words).view(u2))
        else:
            left = WIDEN[kinds[0]](self.views[2][self.operand(a, m, form >> 15 & 1, True)])
        right = WIDEN[kinds[1]](self.views[2][self.operand(b, n, form >> 16 & 1, True)])
        where = ((d >> 16) + lanes)[:, None], (d & 0xFFFF) + np.arange(n)
        self.tmem_check(at, where[1])
        product = left @ right.T
        if keep:
            product = product + self.tmem[where].view(f4)
        self.tmem[where] = product.view(u4)

    def operand(self, descriptor: int, rows: int, transposed: int, tcgen05: bool = False) -> np.ndarray:
        """16-bit indices (rows, 16) of the operand that a shared-memory descriptor names."""
        key = (descriptor, rows, transposed)
        if key not in self.operands:
            start = (descriptor & 0x3FFF) << 4
            leading = ((descriptor >> 16) & 0x3FFF) << 4
            stride = ((descriptor >> 32) & 0x3FFF) << 4
            if (descriptor >> 49) & 7:
                raise NotImplementedError("matrix base offset")
            width = (
                {0: 16, 2: 128, 4: 64, 6: 32}[descriptor >> 61]
                if tcgen05
                else {0: 16, 1: 128, 2: 64, 3: 32}[descriptor >> 62]
            )
            r, k = np.arange(rows)[:, None], np.arange(16)[None, :]
            if transposed:
                per = width // 2
                address = start + r // per * leading + r % per * 2 + k % 8 * width + k // 8 * stride
            elif width == 16:
                address = start + r % 8 * 16 + r // 8 * stride + k // 8 * leading + k % 8 * 2
            else:
                address = start + r % 8 * width + r // 8 * stride + 2 * k
            address = swizzle(address, width if width > 16 else 0) - SMEM_BASE
            if address.min() < 0 or address.max() + 2 > self.shared.size:
                raise Fault(f"a wgmma descriptor {descriptor:#x} points outside shared memory")
            self.operands[key] = address // 2
        return self.operands[key]
