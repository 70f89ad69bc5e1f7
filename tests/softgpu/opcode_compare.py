"""Comparisons, which write predicates."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer

EQUALITY = ("eq", "ne")
SIGNED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
FLOATS = {"eq": "==", **SIGNED}
# Not ordered: also true if an operand is NaN. The opposite of the ordered comparison, which is false then.
UNORDERED = {"neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}
COMBINE = {"and": "&", "or": "|", "xor": "^"}


class Compare(Writer):
    """setp."""

    def do_setp(self, at: int, ins: Instruction) -> None:
        """setp.CMP{.BOOL}{.ftz}.TYPE p{|q}, a, b{, {!}c}: p = (a CMP b) BOOL c, q = not (a CMP b) BOOL c."""
        ptx = self.form.type("f32", "f64", "f16", "bf16", *(f"{t}{n}" for t in "bus" for n in (16, 32, 64)))
        half, kind = ptx in ("f16", "bf16"), KINDS[ptx]
        real = half or kind[0] == "f"
        compare = self._comparison(ptx, real)
        combine = self.form.take(*COMBINE)
        flush = ptx == "f32" and self.form.flag("ftz")
        d, a, b, *more = self.form.operands(4 if combine else 3)
        a, b = self.use(a, kind), self.use(b, kind)
        if half:
            a, b = f"from_{ptx}({a})", f"from_{ptx}({b})"
        if flush:
            a, b = f"flush({a})", f"flush({b})"
        text = (
            self._compare_floats(compare, a, b)
            if real
            else f"{a} {(SIGNED | UNSIGNED | {'eq': '==', 'ne': '!='})[compare]} {b}"
        )
        self._write_predicates(at, ins, d, text, COMBINE.get(combine or ""), more)

    def _comparison(self, ptx: str, real: bool) -> str:
        if real:
            return self.form.need("ne", "equ", "num", "nan", *FLOATS, *UNORDERED)
        if ptx[0] == "b":
            return self.form.need(*EQUALITY)
        return self.form.need(*EQUALITY, *SIGNED, *(UNSIGNED if ptx[0] == "u" else ()))

    @staticmethod
    def _compare_floats(compare: str, a: str, b: str) -> str:
        if compare in FLOATS:
            return f"({a} {FLOATS[compare]} {b})"
        if compare in UNORDERED:
            return f"~({a} {UNORDERED[compare]} {b})"
        ordered = f"({a} == {a}) & ({b} == {b})"
        texts = {"num": f"({ordered})", "nan": f"~({ordered})", "ne": f"(({a} != {b}) & {ordered})"}
        return texts.get(compare, f"(({a} == {b}) | ~({ordered}))")

    def _write_predicates(
        self, at: int, ins: Instruction, d: str, text: str, sign: str | None, more: list[str]
    ) -> None:
        first, _, second = d.partition("|")
        other = ""
        if sign:
            other = f" {sign} {self.predicate(more[0])}"
        if not second:
            self.put(at, ins, first, f"({text}){other}", "p")
            return
        self.emit(at, f"c = {text}")
        if other:
            self.emit(at, f"o = {other[3:]}")
        self.put(at, ins, first, f"c {sign} o" if sign else "c", "p")
        self.put(at, ins, second, f"~c {sign} o" if sign else "~c", "p")
