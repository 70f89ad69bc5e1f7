"""Sums, products, quotients and extremes of integers, floats and halves."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer, size_of

INTEGERS = ("u16", "s16", "u32", "s32", "u64", "s64")
SIGNED = ("s16", "s32", "s64")
HALVES = ("f16", "bf16", "f16x2", "bf16x2")
MIXED = ("f16", "bf16")
SIGNS = {"add": "+", "sub": "-", "mul": "*"}
# The kind of a sum in which the carry is lost is that of its bits.
BITS = {name: f"u{size_of(KINDS[name])}" for name in INTEGERS}


class Arithmetic(Writer):
    """add, sub, mul, mad, fma, div, rem, abs, neg, min, max."""

    def do_add(self, at: int, ins: Instruction) -> None:
        if self.form.last in INTEGERS:
            self._integer_sum(at, ins)
        else:
            self._real(at, ins, 2)

    do_sub = do_add

    def do_mul(self, at: int, ins: Instruction) -> None:
        if self.form.last in INTEGERS:
            self._integer_product(at, ins, 3)
        else:
            self._real(at, ins, 2)

    def do_mad(self, at: int, ins: Instruction) -> None:
        self._integer_product(at, ins, 4)

    def do_fma(self, at: int, ins: Instruction) -> None:
        self._real(at, ins, 3)

    # Integers

    def _integer_sum(self, at: int, ins: Instruction) -> None:
        name, kind = ins.parts[0], BITS[self.form.type(*INTEGERS)]
        d, a, b = self.form.operands(3)
        if ins.parts[-1] == "s32" and self.form.flag("sat"):
            wide = f"{self.use(a, 'i4')}.astype(i8) {SIGNS[name]} {self.use(b, 'i4')}"
            self.put(at, ins, d, f"np.clip({wide}, -(2**31), 2**31 - 1).astype(i4)", "i4")
        else:
            self.put(at, ins, d, f"{self.use(a, kind)} {SIGNS[name]} {self.use(b, kind)}", kind)

    def _integer_product(self, at: int, ins: Instruction, count: int) -> None:
        """mul and mad: the low half, the high half or all of the product, plus a number for mad."""
        ptx = self.form.type(*INTEGERS)
        part, kind = self.form.need("lo", "hi", "wide"), KINDS[ptx]
        d, a, b, *more = self.form.operands(count)
        if part == "lo":
            kind = BITS[ptx]
            text = f"{self.use(a, kind)} * {self.use(b, kind)}"
        elif part == "hi":
            text = f"high_product({self.use(a, kind)}, {self.use(b, kind)})"
        else:
            if size_of(kind) == 8:
                self.form.refuse("there is no wider type")
            a, b = self.use(a, kind), self.use(b, kind)
            kind = f"{kind[0]}{2 * size_of(kind)}"
            text = f"{a}.astype({kind}) * {b}"
        self.put(at, ins, d, f"{text} + {self.use(more[0], kind)}" if more else text, kind)

    def do_rem(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*INTEGERS)]
        d, a, b = self.form.operands(3)
        self.put(at, ins, d, f"remainder({self.use(a, kind)}, {self.use(b, kind)})", kind)

    # Floats

    def _real(self, at: int, ins: Instruction, count: int) -> None:
        """add, sub, mul, fma of every floating-point type. Without a rounding .rn is meant."""
        name, ptx = ins.parts[0], self.form.type("f32", "f64", "f32x2", *HALVES)
        if ptx in HALVES and self.form.left[-1:] == ["f32"]:
            self.form.left.pop()
            self._mixed(at, ins, ptx, count)
            return
        rounding = self._rounding(ptx)
        operands = self.form.operands(count + 1)
        if ptx in HALVES:
            values = ", ".join(self.use(token, KINDS[ptx]) for token in operands[1:])
            self.put(at, ins, operands[0], f"{name}_half('{ptx}', {values})", KINDS[ptx])
        elif ptx == "f64":
            if name == "fma":
                self.form.refuse("products of fp64 that round once are not known")
            a, b = (self.use(token, "f8") for token in operands[1:])
            self.put(at, ins, operands[0], f"{a} {SIGNS[name]} {b}", "f8")
        else:
            pair = ptx == "f32x2"
            values = [f"{self.use(o, 'u8')}.view(f4)" if pair else self.use(o, "f4") for o in operands[1:]]
            text = self._single(name, values, rounding)
            self.put(at, ins, operands[0], f"{text}.view(u8)" if pair else text, "u8" if pair else "f4")

    def _rounding(self, ptx: str) -> str:
        return self.form.take("rn", *(("rz",) if ptx in ("f32", "f32x2") else ())) or "rn"

    def _mixed(self, at: int, ins: Instruction, half: str, count: int) -> None:
        """Operands in half precision with a result in fp32; of the three of fma the last is fp32, of two the second."""
        if half not in MIXED or ins.parts[0] == "mul":
            self.form.refuse("these types are not known together")
        rounding = self._rounding("f32")
        d, *halves, last = self.form.operands(count + 1)
        values = [f"from_{half}({self.use(token, 'u2')})" for token in halves] + [self.use(last, "f4")]
        self.put(at, ins, d, self._single(ins.parts[0], values, rounding), "f4")

    def _single(self, name: str, values: list[str], rounding: str) -> str:
        """An fp32 result: the remaining modifiers are .ftz (subnormal operands and results become 0) and .sat."""
        flush, saturate = self.form.flag("ftz"), self.form.flag("sat")
        values = [f"flush({value})" if flush else value for value in values]
        if rounding == "rz":
            text = f"{name}_rz({', '.join(values)})"
        elif name == "fma":
            text = f"fma({', '.join(values)})"
        else:
            text = f"({values[0]} {SIGNS[name]} {values[1]})"
        return self._finished(text, flush, saturate)

    @staticmethod
    def _finished(text: str, flush: bool, saturate: bool = False) -> str:
        text = f"saturate({text})" if saturate else text
        return f"flush({text})" if flush else text

    def do_div(self, at: int, ins: Instruction) -> None:
        ptx = self.form.type("f32", "f64", *INTEGERS)
        kind = KINDS[ptx]
        d, a, b = self.form.operands(3)
        a, b = self.use(a, kind), self.use(b, kind)
        if ptx in INTEGERS:
            self.put(at, ins, d, f"quotient({a}, {b})", kind)
            return
        self.form.need(
            "rn", *(("full",) if ptx == "f32" else ())
        )  # .full may be off by 2 ulp: here it is rounded right
        flush = ptx == "f32" and self.form.flag("ftz")
        self.put(at, ins, d, self._finished(f"(flush({a}) / flush({b}))" if flush else f"({a} / {b})", flush), kind)

    def do_neg(self, at: int, ins: Instruction) -> None:
        self._sign(at, ins, "^ 0x8000", "-{}")

    def do_abs(self, at: int, ins: Instruction) -> None:
        self._sign(at, ins, "& 0x7FFF", "np.abs({})")

    def _sign(self, at: int, ins: Instruction, half: str, text: str) -> None:
        ptx = self.form.type("f32", "f64", *HALVES, *SIGNED)
        d, a = self.form.operands(2)
        a = self.use(a, KINDS[ptx])
        if ptx in HALVES:
            whole = f"({a}.view(u2) {half})"
            self.put(at, ins, d, f"{whole}.view({KINDS[ptx]})", KINDS[ptx])
            return
        flush = ptx == "f32" and self.form.flag("ftz")
        self.put(at, ins, d, text.format(f"flush({a})" if flush else a), KINDS[ptx])

    # Extremes

    def do_min(self, at: int, ins: Instruction) -> None:
        if self.form.last in INTEGERS:
            self._integer_extreme(at, ins)
        elif self.form.last in HALVES:
            self._half_extreme(at, ins)
        else:
            self._extreme(at, ins)

    do_max = do_min

    def _integer_extreme(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*INTEGERS)]
        d, a, b = self.form.operands(3)
        text = f"np.{ins.parts[0]}imum({self.use(a, kind)}, {self.use(b, kind)})"
        if kind == "i4" and self.form.flag("relu"):
            text = f"np.maximum({text}, i4(0))"
        self.put(at, ins, d, text, kind)

    def _half_extreme(self, at: int, ins: Instruction) -> None:
        ptx = self.form.type(*HALVES)
        nan = self.form.flag("NaN")
        d, a, b = self.form.operands(3)
        values = f"{self.use(a, KINDS[ptx])}, {self.use(b, KINDS[ptx])}"
        self.put(at, ins, d, f"extreme_half('{ptx}', '{ins.parts[0]}', {values}, {nan})", KINDS[ptx])

    def _extreme(self, at: int, ins: Instruction) -> None:
        """Of two numbers, or of three in fp32 (sm_100). .NaN: one NaN makes the result NaN."""
        name, ptx = ins.parts[0], self.form.type("f32", "f64")
        single = ptx == "f32"
        flush, nan = single and self.form.flag("ftz"), single and self.form.flag("NaN")
        signs = single and self.form.flag("xorsign")
        d, *values = self.form.operands(3, 4 if single else 3)
        texts = [self.use(value, KINDS[ptx]) for value in values]
        texts = [f"flush({text})" for text in texts] if flush else texts
        if signs:
            self.form.need("abs")
        inner = [f"np.abs({text})" for text in texts] if signs else texts
        function = f"{name}_{'nan' if nan else 'number'}"
        text = inner[0]
        for value in inner[1:]:
            text = f"{function}({text}, {value})"
        self.put(at, ins, d, f"xor_signs({text}, {', '.join(texts)})" if signs else text, KINDS[ptx])
