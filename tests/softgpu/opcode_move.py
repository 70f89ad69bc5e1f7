"""Moves: registers, constants, parts of registers, addresses, choices."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer, size_of

TYPES = (*(f"{letter}{bits}" for letter in "bus" for bits in (16, 32, 64)), "f32", "f64", "f16", "bf16")


class Move(Writer):
    """mov, selp, slct, cvta."""

    def do_mov(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*TYPES, "pred")]
        d, a = self.form.operands(2)
        if d.startswith("{"):
            self._unpack(at, ins, self.group(d), a, kind)
        elif a.startswith("{"):
            self._pack(at, ins, d, self.group(a), kind)
        elif a in self.kernel.params:
            self.put(at, ins, d, f"T.parameter_address('{a}')", "u8")
        else:
            self._check_size(d, kind)
            self._check_size(a, kind)
            kind = self.same(d, a)
            self.put(at, ins, d, self.use(a, kind), kind)

    def _check_size(self, token: str, kind: str) -> None:
        """mov takes registers of its own size only."""
        if token in self.kernel.registers and size_of(self.program.canon[token]) != size_of(kind):
            self.form.refuse(f"{token} has another size")

    def _unpack(self, at: int, ins: Instruction, parts: list[str], a: str, kind: str) -> None:
        small = self._part(parts, kind)
        self._check_size(a, kind)
        whole = f"{self.use(a, f'u{kind[1]}')}.view({small})"
        for i, part in enumerate(parts):
            self.put(at, ins, part, f"contiguous({whole}[{i}::{len(parts)}])", small)

    def _pack(self, at: int, ins: Instruction, d: str, parts: list[str], kind: str) -> None:
        small = self._part(parts, kind)
        values = ", ".join(self.use(part, small) for part in parts)
        self.put(at, ins, d, f"pack({values}).view(u{kind[1]})", f"u{kind[1]}")

    def _part(self, parts: list[str], kind: str) -> str:
        """The kind of one part; parts must be registers of that size, or constants."""
        small = f"u{size_of(kind) // len(parts)}"
        if len(parts) not in (2, 4) or small not in ("u2", "u4"):
            self.form.refuse(f"{len(parts)} parts of {8 * size_of(kind)} bits")
        for part in parts:
            self._check_size(part, small)
        return small

    def do_selp(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*TYPES)]
        d, a, b, p = self.form.operands(4)
        for token in (d, a, b):
            self._check_size(token, kind)
        kind = self.same(d, a, b)
        self.put(at, ins, d, f"np.where({self.use(p, 'p')}, {self.use(a, kind)}, {self.use(b, kind)})", kind)

    def do_slct(self, at: int, ins: Instruction) -> None:
        """a if c >= 0 else b; NaN chooses b."""
        chooser = KINDS[self.form.type("s32", "f32")]
        flush = chooser == "f4" and self.form.flag("ftz")
        kind = KINDS[self.form.type(*TYPES)]
        d, a, b, c = self.form.operands(4)
        for token in (d, a, b):
            self._check_size(token, kind)
        kind, c = self.same(d, a, b), self.use(c, chooser)
        c = f"flush({c})" if flush else c
        self.put(at, ins, d, f"np.where({c} >= 0, {self.use(a, kind)}, {self.use(b, kind)})", kind)

    def do_cvta(self, at: int, ins: Instruction) -> None:
        """Generic addresses of global memory and of parameters are the addresses themselves."""
        self.form.flag("to")
        self.form.need("global", "param")
        self.form.need("u64")
        d, a = self.form.operands(2)
        self.put(at, ins, d, self.use(a, "u8"), "u8")
