"""Bits: logic, shifts, bit fields, bytes and counts."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer, size_of

WORDS = ("b16", "b32", "b64")
SIGNS = {"and": "&", "or": "|", "xor": "^"}
BYTE_MODES = ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")


class Bits(Writer):
    """and, or, xor, not, cnot, lop3, shl, shr, shf, bfe, bfi, brev, clz, popc, bfind, prmt, dp4a."""

    def do_and(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("pred", *WORDS)]
        d, a, b = self.form.operands(3)
        self.put(at, ins, d, f"{self.use(a, kind)} {SIGNS[ins.parts[0]]} {self.use(b, kind)}", kind)

    do_or = do_xor = do_and

    def do_not(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("pred", *WORDS)]
        d, a = self.form.operands(2)
        self.put(at, ins, d, f"~{self.use(a, kind)}", kind)

    def do_cnot(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*WORDS)]
        d, a = self.form.operands(2)
        self.put(at, ins, d, f"({self.use(a, kind)} == 0).astype({kind})", kind)

    def do_lop3(self, at: int, ins: Instruction) -> None:
        self.form.type("b32")
        d, *values, table = self.form.operands(5)
        a, b, c = (self.use(value, "u4") for value in values)
        self.put(at, ins, d, f"logic3({a}, {b}, {c}, {self.integer(table)})", "u4")

    # Shifts

    def do_shl(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*WORDS)]
        self._shift(at, ins, kind, "<<", "shift_left")

    def do_shr(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*WORDS, "u16", "u32", "u64", "s16", "s32", "s64")]
        self._shift(at, ins, kind, ">>", "shift_right")

    def _shift(self, at: int, ins: Instruction, kind: str, sign: str, function: str) -> None:
        d, a, n = self.form.operands(3)
        number = None if n in self.kernel.registers else self.integer(n)
        if number is not None and 0 <= number < 8 * size_of(kind):
            self.put(at, ins, d, f"{self.use(a, kind)} {sign} {self.constant(number, kind)}", kind)
        else:
            self.put(at, ins, d, f"{function}({self.use(a, kind)}, {self.use(n, 'u4')})", kind)

    def do_shf(self, at: int, ins: Instruction) -> None:
        """Two words as one of 64 bits, shifted; the high (l) or the low (r) half of it."""
        self.form.type("b32")
        side, mode = self.form.need("l", "r"), self.form.need("clamp", "wrap")
        d, *values = self.form.operands(4)
        low, high, n = (self.use(value, "u4") for value in values)
        self.put(at, ins, d, f"funnel_{side}({low}, {high}, {n}, {mode == 'wrap'})", "u4")

    # Fields

    def do_bfe(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("u32", "s32", "u64", "s64")]
        d, a, start, length = self.form.operands(4)
        text = f"bit_field({self.use(a, kind)}, {self.use(start, 'u4')}, {self.use(length, 'u4')})"
        if start not in self.kernel.registers and length not in self.kernel.registers:
            text = self._fixed_field(a, self.integer(start), self.integer(length), kind) or text
        self.put(at, ins, d, text, kind)

    def _fixed_field(self, a: str, start: int, length: int, kind: str) -> str | None:
        """A field that lies inside the word: two shifts."""
        bits = 8 * size_of(kind)
        if not (length > 0 and 0 <= start <= bits - length):
            return None
        left, right = (self.constant(n, kind) for n in (bits - start - length, bits - length))
        return f"{self.use(a, kind)} << {left} >> {right}"

    def do_bfi(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("b32", "b64")]
        d, a, b, start, length = self.form.operands(5)
        field = f"{self.use(start, 'u4')}, {self.use(length, 'u4')}"
        self.put(at, ins, d, f"insert_field({self.use(a, kind)}, {self.use(b, kind)}, {field})", kind)

    # Counts and bytes

    def do_brev(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("b32", "b64")]
        d, a = self.form.operands(2)
        self.put(at, ins, d, f"reverse_bits({self.use(a, kind)})", kind)

    def do_popc(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("b32", "b64")]
        d, a = self.form.operands(2)
        self.put(at, ins, d, f"np.bitwise_count({self.use(a, kind)}).astype(u4)", "u4")

    def do_clz(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("b32", "b64")]
        d, a = self.form.operands(2)
        self.put(at, ins, d, f"leading_zeros({self.use(a, kind)})", "u4")

    def do_bfind(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type("u32", "s32", "u64", "s64")]
        shift = self.form.flag("shiftamt")
        d, a = self.form.operands(2)
        self.put(at, ins, d, f"highest_bit({self.use(a, kind)}, {shift})", "u4")

    def do_prmt(self, at: int, ins: Instruction) -> None:
        """Four bytes of eight. Without a mode the selector has four bits for each byte."""
        self.form.need("b32")
        mode = self.form.take(*BYTE_MODES)
        d, *values = self.form.operands(4)
        a, b, c = (self.use(value, "u4") for value in values)
        self.put(at, ins, d, f"permute_{mode or 'bytes'}({a}, {b}, {c})", "u4")

    def do_dp4a(self, at: int, ins: Instruction) -> None:
        first, second = self.form.need("u32", "s32"), self.form.need("u32", "s32")
        d, a, b, c = self.form.operands(4)
        kind = "u4" if first == second == "u32" else "i4"
        bytes_a, bytes_b = (
            f"{self.use(token, 'u4')}.view({ptx[0].replace('s', 'i')}1)" for token, ptx in ((a, first), (b, second))
        )
        self.put(at, ins, d, f"dot_bytes({bytes_a}, {bytes_b}, {self.use(c, kind)})", kind)
