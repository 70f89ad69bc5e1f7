"""wgmma: products of a warp group that run on while its threads go on."""

from typing import Any

import numpy as np

from tests.softgpu.numbers import WIDEN, u2, u4
from tests.softgpu.state import TeamState


class Wgmma(TeamState):
    """Mixed into `team.Team`."""

    def wgmma_fence(self, at: int, R: list) -> None:
        self.fenced = list(R)

    def wgmma(
        self,
        at: int,
        R: list,
        n: int,
        kind: str,
        d: tuple,
        a: Any,
        b: np.ndarray,
        scale: Any,
        transposed: tuple,
        mask: Any,
    ) -> None:
        if mask is not None or self.count != 4 or self.first % 4:
            self.block.fault(at, "wgmma is not executed by a whole warp group")
        use_accumulator = scale if isinstance(scale, bool) else bool(scale[0])
        old = None
        in_flight = [i in self.pending_registers for i in d]
        if any(in_flight) and not all(in_flight):
            self.block.fault(at, "the accumulator overlaps one that is in flight")
        if use_accumulator and not in_flight[0]:
            if any(R[i] is None for i in d):
                self.block.fault(at, "accumulator read before it was written")
            old = np.stack([R[i] for i in d])
        touched = [i for i in (*d, *(a if isinstance(a, tuple) else ())) if i not in self.pending_registers]
        if self.fenced is None or any(R[i] is not self.fenced[i] for i in touched):
            self.block.fault(at, "registers of a wgmma were written after the last wgmma.fence")
        left = [R[i] for i in a] if isinstance(a, tuple) else self.block.operand(int(a[0]), 64, transposed[0])
        right = self.block.operand(int(b[0]), n, transposed[1])
        time = self.product_count + 1
        for offset in [right] if isinstance(a, tuple) else [right, left]:
            self.block.async_read(at, self.own, offset, time)
        entry = {"at": at, "n": n, "kind": kind, "d": d, "a": a, "left": left, "right": right, "old": old,
                 "keep": use_accumulator}  # fmt: skip
        if self.block.eager:
            entry["data"] = self.block.views[2][right]
        self.product_open.append(entry)
        for i in d:
            R[i] = None
            self.pending_registers[i] = at

    def wgmma_commit(self, at: int) -> None:
        self.product_groups.append(self.product_open)
        self.product_open = []
        self.product_count += 1

    def wgmma_wait(self, at: int, R: list, allowed: int) -> None:
        while len(self.product_groups) > allowed:
            for entry in self.product_groups.popleft():
                self._finish(R, entry)
        clocks = self.block.clocks
        clocks.seen[self.own, clocks.products(self.own)] = self.product_count - len(self.product_groups)

    def _finish(self, R: list, entry: dict) -> None:
        kind, n, d = entry["kind"], entry["n"], entry["d"]
        widen = WIDEN[kind]
        if isinstance(entry["a"], tuple):
            now = [R[i] for i in entry["a"]]
            if any(x is not y for x, y in zip(now, entry["left"], strict=True)):
                self.block.fault(entry["at"], "an operand register of a wgmma is changed while it is in flight")
            bits = np.stack(now)
            bits = bits.view(u4).view(u2) if bits.dtype != u4 else bits.view(u2)
            left = widen(bits).reshape(2, 2, 4, 8, 4, 2).transpose(2, 1, 3, 0, 4, 5).reshape(64, 16)
        else:
            left = widen(self.block.views[2][entry["left"]])  # (64, 16)
        right = widen(entry["data"] if "data" in entry else self.block.views[2][entry["right"]])  # (n, 16)
        product = left @ right.T
        product = product.reshape(4, 2, 8, n // 8, 4, 2).transpose(3, 1, 5, 0, 2, 4).reshape(n // 2, 128)
        if entry["keep"]:
            old = entry["old"]
            product += np.stack([self.finished[i] for i in d]) if old is None else old
        still = {i for group in [*self.product_groups, self.product_open] for e in group for i in e["d"]}
        for i, row in zip(d, product, strict=True):
            self.finished[i] = row
            if i not in still:
                self.pending_registers.pop(i, None)
                R[i] = row
                if self.fenced:
                    self.fenced[i] = row
