"""Conversions between types: cvt."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer, size_of

INTEGERS = tuple(f"{letter}{bits}" for letter in "us" for bits in (8, 16, 32, 64))
HALVES = ("f16", "bf16")
WHOLE = {"rni": "np.rint", "rzi": "np.trunc", "rmi": "np.floor", "rpi": "np.ceil"}


class Convert(Writer):
    """cvt{.rounding}{.ftz}{.sat}.TO.FROM."""

    def do_cvt(self, at: int, ins: Instruction) -> None:
        source = self.form.type("f32", "f64", *HALVES, *INTEGERS)
        to = self.form.type("f32", "f64", "f16x2", "bf16x2", *HALVES, *INTEGERS)
        if to in ("f16x2", "bf16x2"):
            self._pair(at, ins, to.removesuffix("x2"), source)
        elif source in INTEGERS:
            self._integer_to_integer(at, ins, to, source) if to in INTEGERS else self._from_integer(at, ins, to, source)
        elif to in INTEGERS:
            self._to_integer(at, ins, to, source)
        elif to in HALVES:
            self._to_half(at, ins, to, source)
        else:
            self._between_floats(at, ins, to, source)

    def _widened(self, token: str, ptx: str) -> str:
        """A floating-point operand; half precision as fp32."""
        text = self.use(token, KINDS[ptx])
        return f"from_{ptx}({text})" if ptx in HALVES else text

    def _pair(self, at: int, ins: Instruction, half: str, source: str) -> None:
        """Two fp32 numbers to one register, the first in the high half."""
        narrow = self._narrow(half, source)
        d, high, low = self.form.operands(3)
        high, low = narrow.format(self.use(high, "f4")), narrow.format(self.use(low, "f4"))
        self.put(at, ins, d, f"pack({low}, {high}).view(u4)", "u4")

    def _to_half(self, at: int, ins: Instruction, half: str, source: str) -> None:
        if source in HALVES:
            self.form.refuse("conversions between half precisions are not known")
        narrow = self._narrow(half, source)
        d, a = self.form.operands(2)
        self.put(at, ins, d, narrow.format(self.use(a, "f4")), "u2")

    def _narrow(self, half: str, source: str) -> str:
        if source != "f32":
            self.form.refuse(f"half precision from .{source} is not known")
        if self.form.need("rn", "rz") == "rn":
            return f"to_{half}({{}})"
        return f"narrow_rz('{half}', {{}})"

    def _integer_to_integer(self, at: int, ins: Instruction, to: str, source: str) -> None:
        saturate = self.form.flag("sat")
        d, a = self.form.operands(2)
        text = self.use(a, KINDS[source])
        self.put(at, ins, d, f"clamped({text}, {KINDS[to]})" if saturate else f"{text}.astype({KINDS[to]})", KINDS[to])

    def _from_integer(self, at: int, ins: Instruction, to: str, source: str) -> None:
        """To the nearest. fp64 holds every integer of up to 32 bits, so half precision is rounded once."""
        self.form.need("rn")
        d, a = self.form.operands(2)
        text = self.use(a, KINDS[source])
        if to not in HALVES:
            self.put(at, ins, d, f"{text}.astype({KINDS[to]})", KINDS[to])
            return
        if size_of(KINDS[source]) == 8:
            self.form.refuse("half precision from 64 bits is not known")
        self.put(at, ins, d, f"round_half('{to}', {text}.astype(f8))", "u2")

    def _to_integer(self, at: int, ins: Instruction, to: str, source: str) -> None:
        """What does not fit becomes the nearest that does, so .sat says nothing more."""
        rounding = WHOLE[self.form.need(*WHOLE)]
        flush = source == "f32" and self.form.flag("ftz")
        self.form.flag("sat")
        d, a = self.form.operands(2)
        text = self._widened(a, source)
        text = f"flush({text})" if flush else text
        self.put(at, ins, d, f"to_integer({rounding}({text}), {KINDS[to]}, {source == 'f64'})", KINDS[to])

    def _between_floats(self, at: int, ins: Instruction, to: str, source: str) -> None:
        """Between fp32 and fp64, from half precision, or to a whole number of the same type."""
        rounding = self.form.take("rn", *WHOLE)
        same, narrower = to == source, (to, source) == ("f32", "f64")
        if (rounding in WHOLE) != (same and rounding is not None) or (rounding == "rn") != narrower:
            self.form.refuse("this rounding is not known here")
        flush = "f32" in (to, source) and self.form.flag("ftz")
        saturate = to == "f32" and self.form.flag("sat")
        d, a = self.form.operands(2)
        text = self._widened(a, source)
        text = f"flush({text})" if flush and source == "f32" else text
        text = f"{WHOLE[rounding]}({text})" if rounding in WHOLE else text
        text = f"{text}.astype({KINDS[to]})" if KINDS[to] != KINDS[source] else text
        text = f"saturate({text})" if saturate else text
        self.put(at, ins, d, f"flush({text})" if flush and to == "f32" else text, KINDS[to])
