"""Matrices, copies and mbarriers as the prototype translated them."""

import re
from typing import Any

from tests.softgpu.parse import Instruction, Unsupported
from tests.softgpu.writer import Writer


class Prototype(Writer):
    """mma, ldmatrix, stmatrix, cp, mbarrier, fence, wgmma, tcgen05."""

    def do_ldmatrix(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        targets = self.group(ins.operands[0])
        transposed = "trans" in ins.parts
        self.emit(
            at,
            f"v = T.ldmatrix({at}, {self.address(ins.operands[1], 'u4')}, {len(targets)}, {transposed}, {self.mask(ins)})",
        )
        for i, target in enumerate(targets):
            self.put(at, ins, target, f"v[{i}]", "u4")

    def do_stmatrix(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        values = ", ".join(self.use(v, "u4") for v in self.group(ins.operands[1]))
        self.emit(
            at,
            f"T.stmatrix({at}, {self.address(ins.operands[0], 'u4')}, ({values},), {'trans' in ins.parts}, {self.mask(ins)})",
        )

    def do_mma(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        if ins.parts[3] != "m16n8k16" or ins.parts[6] != "f32" or ins.parts[7] not in ("bf16", "f16"):
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        d, a, b, c = (self.group(o) for o in ins.operands)
        texts = [", ".join(self.use(t, kind) for t in group) for group, kind in ((a, "u4"), (b, "u4"), (c, "f4"))]
        self.emit(
            at, f"v = T.mma({at}, '{ins.parts[7]}', ({texts[0]},), ({texts[1]},), ({texts[2]},), {self.mask(ins)})"
        )
        for i, target in enumerate(d):
            self.put(at, ins, target, f"v[{i}]", "f4")

    def do_cp(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        mask = self.mask(ins)
        if "bulk" in ins.parts:
            if ins.parts[2:5] != ["bulk", "tensor", "2d"]:
                raise Unsupported(f"PTX line {ins.line}: {ins.op}")
            source = re.match(r"\[\s*(%\w+)\s*,\s*\{\s*(%\w+|-?\d+)\s*,\s*(%\w+|-?\d+)\s*\}", ins.operands[1])
            x, y = self.use(source[2], "i4"), self.use(source[3], "i4")
            self.emit(
                at,
                f"T.tma_load({at}, {self.address(ins.operands[0], 'u4')}, {self.use(source[1], 'u8')}, {x}, {y}, {self.address(ins.operands[2], 'u4')}, {mask})",
            )
        elif "commit_group" in ins.parts:
            self.emit(at, f"T.cp_commit({mask})")
        elif "wait_group" in ins.parts:
            self.emit(at, f"T.cp_wait({int(ins.operands[0])}, {mask})")
        elif "wait_all" in ins.parts:
            self.emit(at, f"T.cp_wait(0, {mask})")
        else:
            size = int(ins.operands[2], 0)
            present = self.use(ins.operands[3], "u4") if len(ins.operands) > 3 else "None"
            self.emit(
                at,
                f"T.cp_async({at}, {self.address(ins.operands[0], 'u4')}, {self.address(ins.operands[1], 'u8')}, {size}, {present}, {mask})",
            )

    def do_wgmma(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        if "fence" in ins.parts:
            self.emit(at, f"T.wgmma_fence({at}, R)")
        elif "commit_group" in ins.parts:
            self.emit(at, f"T.wgmma_commit({at})")
        elif "wait_group" in ins.parts:
            self.emit(at, f"T.wgmma_wait({at}, R, {int(ins.operands[0])})")
        else:
            shape = re.match(r"m64n(\d+)k16", ins.parts[4])
            if not shape or ins.parts[5] != "f32" or ins.guard:
                raise Unsupported(f"PTX line {ins.line}: {ins.op}")
            d = [self.register(t, "f4") for t in self.group(ins.operands[0])]
            scale = self.use(ins.operands[3], "p") if ins.operands[3].startswith("%") else bool(int(ins.operands[3]))
            numbers = [int(v) for v in ins.operands[4:]]
            if ins.operands[1].startswith("{"):
                a: Any = [self.program.number[t] for t in self.group(ins.operands[1])]
                transposed = (0, numbers[2])
            else:
                a, transposed = self.use(ins.operands[1], "u8"), (numbers[2], numbers[3])
            if numbers[:2] != [1, 1]:
                raise Unsupported("scaled operands of wgmma")
            self.emit(
                at,
                f"T.wgmma({at}, R, {int(shape[1])}, '{ins.parts[6]}', {tuple(d)}, {tuple(a) if isinstance(a, list) else a}, {self.use(ins.operands[2], 'u8')}, {scale}, {transposed}, m)",
            )

    def do_tcgen05(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        mask, action, ops = self.mask(ins), ins.parts[1], ins.operands
        if "cta_group::2" in ins.parts:
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        if action == "alloc":
            self.emit(at, f"T.tmem_alloc({at}, {self.address(ops[0], 'u4')}, {int(ops[1])}, {mask})")
        elif action == "dealloc":
            self.emit(at, f"T.tmem_dealloc({at}, {self.use(ops[0], 'u4')}, {int(ops[1])}, {mask})")
        elif action in ("ld", "st"):
            if ins.parts[4] not in ("16x32bx2", "32x32b") or len(ins.parts) != 7:
                raise Unsupported(f"PTX line {ins.line}: {ins.op}")
            split = ins.parts[4] == "16x32bx2"
            half = int(ops[2 if action == "ld" else 1]) if split else None
            if action == "ld":
                targets = self.group(ops[0])
                self.emit(at, f"v = T.tmem_load({at}, {self.address(ops[1], 'u4')}, {len(targets)}, {half}, {mask})")
                for i, target in enumerate(targets):
                    self.put(at, ins, target, f"v[{i}]", "u4")
            else:
                values = ", ".join(self.use(v, "u4") for v in self.group(ops[-1]))
                self.emit(at, f"T.tmem_store({at}, {self.address(ops[0], 'u4')}, ({values},), {half}, {mask})")
        elif action == "mma":
            if ins.parts[3] != "kind::f16":
                raise Unsupported(f"PTX line {ins.line}: {ins.op}")
            memory = ops[1].startswith("[")
            a = self.address(ops[1], "u4") if memory else self.use(ops[1], "u8")
            self.emit(
                at,
                f"T.tcgen05_mma({at}, {self.address(ops[0], 'u4')}, {memory}, {a}, {self.use(ops[2], 'u8')}, {self.use(ops[3], 'u4')}, {self.use(ops[4], 'p')}, {mask})",
            )
        elif action == "commit":
            self.emit(at, f"T.tcgen05_commit({at}, {self.address(ops[0], 'u4')}, {mask})")
        elif not action.startswith(("wait", "relinquish", "fence")):
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")

    def do_mbarrier(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        mask = self.mask(ins)
        action = ins.parts[1]
        if action == "init":
            self.emit(
                at, f"T.mbarrier_init({at}, {self.address(ins.operands[0], 'u4')}, {int(ins.operands[1])}, {mask})"
            )
        elif action == "inval":
            self.emit(at, f"T.mbarrier_inval({at}, {self.address(ins.operands[0], 'u4')}, {mask})")
        elif action == "arrive":
            extra = ins.operands[2:]
            expect = self.use(extra[0], "u4") if "expect_tx" in ins.parts else "None"
            self.emit(at, f"T.mbarrier_arrive({at}, {self.address(ins.operands[1], 'u4')}, {expect}, {mask})")
        elif action == "try_wait" and "parity" in ins.parts:
            d, address, parity = ins.operands[:3]
            self.emit(
                at, f"w = T.mbarrier_try_wait({at}, F, {self.address(address, 'u4')}, {self.use(parity, 'u4')}, {mask})"
            )
            self.emit(at, "if w is None: return None")
            self.put(at, ins, d, "w", "p")
            self.emit(at, f"return {at + 1}")
        else:
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")

    def do_fence(self, at: int, ins: Instruction) -> None:
        self.form.rest()
        if ins.parts[1] == "proxy" and ins.parts[2].startswith("async"):
            self.emit(at, f"T.fence_proxy({self.mask(ins)})")
