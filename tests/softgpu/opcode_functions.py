"""Functions of one fp32 number, most of them approximations on a device."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer

TESTS = {
    "finite": "np.isfinite({})",
    "infinite": "np.isinf({})",
    "number": "{0} == {0}",
    "notanumber": "{0} != {0}",
    "normal": "np.isfinite({0}) & (np.abs({0}) >= np.finfo({0}.dtype).tiny)",
    "subnormal": "({0} != 0) & (np.abs({0}) < np.finfo({0}.dtype).tiny)",
}


class Functions(Writer):
    """ex2, lg2, sin, cos, tanh, sqrt, rcp, rsqrt, testp, copysign. `floats` says how exact they are."""

    def do_ex2(self, at: int, ins: Instruction) -> None:
        self._function(at, ins, "approx")

    do_lg2 = do_sin = do_cos = do_rsqrt = do_ex2

    def do_tanh(self, at: int, ins: Instruction) -> None:
        self.form.need("approx")
        self.form.need("f32")
        d, a = self.form.operands(2)
        self.put(at, ins, d, f"tanh({self.use(a, 'f4')})", "f4")

    def do_sqrt(self, at: int, ins: Instruction) -> None:
        self._function(at, ins, "approx", "rn")

    do_rcp = do_sqrt

    def _function(self, at: int, ins: Instruction, *roundings: str) -> None:
        rounding = self.form.need(*roundings)
        ptx = self.form.type("f32", "f64") if rounding == "rn" else self.form.type("f32")
        flush = ptx == "f32" and self.form.flag("ftz")
        d, a = self.form.operands(2)
        value = self.use(a, KINDS[ptx])
        inner = f"flush({value})" if flush and ins.parts[0] != "ex2" else value  # 2 to a subnormal number is 1
        text = f"flush({ins.parts[0]}({inner}))" if flush else f"{ins.parts[0]}({inner})"
        self.put(at, ins, d, text, KINDS[ptx])

    def do_testp(self, at: int, ins: Instruction) -> None:
        test, kind = self.form.need(*TESTS), KINDS[self.form.type("f32", "f64")]
        d, a = self.form.operands(2)
        self.put(at, ins, d, TESTS[test].format(self.use(a, kind)), "p")

    def do_copysign(self, at: int, ins: Instruction) -> None:
        """The sign of the first operand, the rest of the second."""
        kind = KINDS[self.form.type("f32", "f64")]
        d, a, b = self.form.operands(3)
        self.put(at, ins, d, f"np.copysign({self.use(b, kind)}, {self.use(a, kind)})", kind)
