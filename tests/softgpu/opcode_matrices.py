"""mma, ldmatrix and stmatrix as calls of the machine."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import Writer


class MatrixOpcodes(Writer):
    """Mixed into the translator."""

    def do_mma(self, at: int, ins: Instruction) -> None:
        """mma.sync.aligned.m16n8k16.row.col.f32.KIND.KIND.f32"""
        form = self.form
        for name in ("sync", "aligned", "m16n8k16", "row", "col", "f32"):
            form.need(name)
        kind = form.need("f16", "bf16")
        form.need(kind)
        form.need("f32")
        d, a, b, c = (self.group(o) for o in form.operands(4))
        if [len(d), len(a), len(b), len(c)] != [4, 4, 2, 4]:
            form.refuse("has a wrong number of registers")
        texts = [", ".join(self.use(t, of) for t in group) for group, of in ((a, "u4"), (b, "u4"), (c, "f4"))]
        self.emit(at, f"v = T.mma({at}, '{kind}', ({texts[0]}), ({texts[1]}), ({texts[2]}), {self.mask(ins)})")
        for i, target in enumerate(d):
            self.put(at, ins, target, f"v[{i}]", "f4")

    def do_ldmatrix(self, at: int, ins: Instruction) -> None:
        count, transposed = self._matrix_form()
        target, address = self.form.operands(2)
        targets = self._matrix_registers(target, count)
        self.emit(at, f"v = T.ldmatrix({at}, {self.address(address, 'u4')}, {count}, {transposed}, {self.mask(ins)})")
        for i, register in enumerate(targets):
            self.put(at, ins, register, f"v[{i}]", "u4")

    def do_stmatrix(self, at: int, ins: Instruction) -> None:
        count, transposed = self._matrix_form()
        address, source = self.form.operands(2)
        values = "".join(f"{self.use(v, 'u4')}, " for v in self._matrix_registers(source, count))
        self.emit(at, f"T.stmatrix({at}, {self.address(address, 'u4')}, ({values}), {transposed}, {self.mask(ins)})")

    def _matrix_form(self) -> tuple[int, bool]:
        """.sync.aligned.m8n8.xN{.trans}.shared{::cta}.b16: the number of matrices, and .trans."""
        form = self.form
        for name in ("sync", "aligned", "m8n8"):
            form.need(name)
        count = int(form.need("x1", "x2", "x4")[1:])
        transposed = form.flag("trans")
        form.need("shared", "shared::cta")
        form.need("b16")
        return count, transposed

    def _matrix_registers(self, token: str, count: int) -> list[str]:
        registers = self.group(token)
        if len(registers) != count:
            self.form.refuse(f"has {len(registers)} registers for {count} matrices")
        return registers
