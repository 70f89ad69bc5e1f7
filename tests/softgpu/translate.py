"""PTX to Python source: one function per stretch of code without a branch or a blocking instruction.

Registers of a team of L threads are NumPy arrays of length L, never changed in place. Each stretch is generated twice:
for all L threads, and for some of them (`m`, a boolean array; writes are merged).
"""

import re
from collections import Counter
from typing import Any

import numpy as np

from tests.softgpu.parse import Instruction, Kernel

SMEM_BASE = 1024  # where dynamic shared memory starts on real devices
TYPES = {
    "u16": "u2", "s16": "i2", "b16": "u2", "u32": "u4", "s32": "i4", "b32": "u4", "f32": "f4", "u64": "u8", "s64": "i8",
    "b64": "u8", "f64": "f8", "pred": "p", "u8": "u1", "s8": "i1", "b8": "u1",
}  # fmt: skip
COMPARE = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
    "hs": ">=",
}
ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^"}
BLOCKING = ("bar.sync", "barrier.sync", "mbarrier.try_wait", "setmaxnreg")
BRANCHES = ("bra", "brx", "ret", "exit")


class Unsupported(Exception):
    pass


class Program:
    """The functions of a kernel for teams of `lanes` threads. code: see Kernel. starts: index -> stretch."""

    def __init__(self, kernel: Kernel, lanes: int, helpers: dict[str, Any]) -> None:
        self.kernel, self.lanes, self.helpers = kernel, lanes, helpers
        self.number = {name: i for i, name in enumerate(kernel.registers)}
        self.canon = _infer_types(kernel)
        self.constants: dict[str, Any] = {}
        self.cache: dict[tuple[int, bool], Any] = {}
        self.sources: dict[str, list[int]] = {}
        targets = set()
        for ins in kernel.code:
            if ins.parts[0] == "bra":
                targets.add(kernel.labels[ins.operands[0]])
            if ins.parts[0] == "brx":
                targets |= {kernel.labels[name] for name in kernel.tables[ins.operands[1]]}
        self.leaders = targets
        # LLVM names a register that nothing writes where a value does not matter.
        written = {
            name for ins in kernel.code for name in re.findall(r"[%\w]+", ins.operands[0] if ins.operands else "")
        }
        self.undefined = [name for name in kernel.registers if name not in written]

    def function(self, start: int, masked: bool) -> Any:
        """The function for the stretch from instruction `start` on; it returns the index to go on at, or None."""
        key = (start, masked)
        if key not in self.cache:
            self.cache[key] = self._compile(start, masked)
        return self.cache[key]

    def _compile(self, start: int, masked: bool) -> Any:
        writer = Writer(self, masked)
        code, at = self.kernel.code, start
        while True:
            ins = code[at]
            if ins.op.startswith(BLOCKING) and at != start:
                writer.emit(at, f"return {at}")
                break
            writer.instruction(at, ins)
            if ins.parts[0] in BRANCHES or ins.op.startswith(BLOCKING):
                break
            at += 1
            if at in self.leaders:
                writer.emit(at - 1, f"return {at}")
                break
        name = f"ptx_{self.kernel.name}_{start}_{int(masked)}"
        text = f"def {name}(T, R, m, F):\n" + "".join(f"    {line}\n" for line in writer.lines)
        space = {**self.helpers, **self.constants}
        exec(compile(text, f"<{name}>", "exec"), space)
        self.sources[f"<{name}>"] = writer.origins
        return space[name]


def _infer_types(kernel: Kernel) -> dict[str, str]:
    """The dtype that each register's array is kept in: bits may be seen as any type of the size, for a `view`."""
    parent: dict[str, str] = {}
    votes: dict[str, Counter] = {}

    def find(a: str) -> str:
        while parent.get(a, a) != a:
            a = parent[a]
        return a

    for ins in kernel.code:
        names = [
            n for o in ins.operands for n in re.findall(r"%\w+", o) if n in kernel.registers and not o.startswith("[")
        ]
        kind = ins.parts[-1]
        name = ins.parts[0]
        if name in ("mov", "selp", "shfl", "ld", "st") and kind in ("b32", "b64", "u32", "u64"):
            same = [n for n in names if kernel.registers[n] == kernel.registers[names[0]]] if names else []
            if name == "mov" and "{" in "".join(ins.operands):
                same = []
            if name in ("mov", "selp", "shfl"):
                for other in same[1:2] if name == "shfl" else same[1:]:
                    parent[find(other)] = find(same[0])
            continue
        if name == "cvt":
            types = [p for p in ins.parts[1:] if p in TYPES or p in ("bf16", "f16", "bf16x2", "f16x2")]
            pairs = list(zip(names, [types[0], *[types[1]] * 3], strict=False))
        elif name == "mma" or "mma_async" in ins.parts:
            accumulators = len(re.findall(r"%\w+", ins.operands[0]))
            pairs = [(n, "f32") for n in names[:accumulators]]
            pairs += [(n, "f32") for n in (names[-accumulators:] if name == "mma" else [])]
        elif name == "setp":
            pairs = [(n, kind) for n in names[1:]]
        else:
            pairs = [(n, kind) for n in names]
        for n, t in pairs:
            votes.setdefault(find(n), Counter())["f" if t in ("f32", "f64") else "u"] += 1
    final: dict[str, Counter] = {}
    for n, c in votes.items():
        final.setdefault(find(n), Counter()).update(c)
    types = {}
    for n, kind in kernel.registers.items():
        best = final.get(find(n), Counter()).most_common(1)
        letter = best[0][0] if best else "u"
        types[n] = {"p": "p", "h": "u2", "r": letter + "4", "d": letter + "8"}[kind]
    return types


class Writer:
    """Writes the body of one stretch."""

    def __init__(self, program: Program, masked: bool) -> None:
        self.program, self.masked = program, masked
        self.kernel = program.kernel
        self.lines: list[str] = []
        self.origins: list[int] = []

    def emit(self, at: int, text: str) -> None:
        self.lines.append(text)
        self.origins.append(at)

    # Operands

    def use(self, token: str, kind: str) -> str:
        if token in self.kernel.registers:
            name, canon = f"R[{self.program.number[token]}]", self.program.canon[token]
            if canon == kind:
                return name
            if canon == "p" or kind == "p":
                raise Unsupported(f"predicate {token} used as {kind}")
            if np.dtype(canon).itemsize == np.dtype(kind).itemsize:
                return f"{name}.view({kind})"
            return f"{name}.view(u{canon[1]}).astype(u{kind[1]}).view({kind})"
        if token.startswith("%"):
            if token == "%clock64":
                raise Unsupported(token)
            return f"T.special['{token}']" + ("" if kind == "u4" else f".view({kind})")
        return self.constant(self.value(token, kind), kind)

    def value(self, token: str, kind: str) -> Any:
        if token.startswith("global_smem"):
            return SMEM_BASE
        if token.startswith(("0f", "0F")):
            return np.array(int(token[2:], 16), np.uint32).view(np.float32)
        if token.startswith(("0d", "0D")) and len(token) == 18:
            return np.array(int(token[2:], 16), np.uint64).view(np.float64)
        if kind == "p":
            return bool(int(token, 0))
        number = int(token.rstrip("U"), 0)
        if kind[0] == "f":
            return np.array(number & 0xFFFFFFFF, np.uint32).view(np.float32)
        size = 8 * int(kind[1])
        number &= (1 << size) - 1
        return number - (1 << size) if kind[0] == "i" and number >> (size - 1) else number

    def constant(self, value: Any, kind: str) -> str:
        value = np.asarray(value)
        if kind[0] == "f" and value.dtype.kind == "f":
            array = np.full(self.program.lanes, value, kind)
        elif value.dtype.kind == "f":  # a float immediate of an untyped move
            array = np.full(self.program.lanes, value).view("u" + str(value.dtype.itemsize))
        else:
            array = np.full(self.program.lanes, value, bool if kind == "p" else kind)
        name = f"k{kind}_{array[:1].tobytes().hex()}"
        self.program.constants[name] = array
        return name

    def mask(self, ins: Instruction) -> str:
        """The threads that execute the instruction: the name of a boolean array, or None for all."""
        guard = None
        if ins.guard:
            guard = self.use(ins.guard[0], "p")
            guard = f"~{guard}" if ins.guard[1] else guard
        if self.masked:
            return f"(m & {guard})" if guard else "m"
        return guard or "None"

    def put(self, at: int, ins: Instruction, token: str, text: str, kind: str, mask: str | None = None) -> None:
        """Write an expression of the type `kind` to a register."""
        if token == "_":
            self.emit(at, text)
            return
        number, canon = self.program.number[token], self.program.canon[token]
        if canon != kind:
            if np.dtype(canon if canon != "p" else bool).itemsize != np.dtype(kind if kind != "p" else bool).itemsize:
                text = f"({text}).astype({canon})"
            else:
                text = f"({text}).view({canon})"
        mask = mask or self.mask(ins)
        if mask == "None":
            self.emit(at, f"R[{number}] = {text}")
        else:
            self.emit(at, f"R[{number}] = merge({mask}, {text}, R[{number}])")

    def address(self, token: str, kind: str) -> str:
        inner = token.strip("[] ")
        m = re.match(r"([%\w$.]+)\s*(?:\+\s*(-?\w+))?$", inner)
        base, offset = m[1], int(m[2] or "0", 0)
        if base in self.kernel.registers:
            text = self.use(base, kind)
            return f"{text} + {self.constant(offset % 2 ** (8 * int(kind[1])), kind)}" if offset else text
        return self.constant(SMEM_BASE + offset if base == "global_smem" else int(base, 0) + offset, kind)

    @staticmethod
    def group(token: str) -> list[str]:
        return [t for t in re.split(r"[\s,]+", token.strip("{}[] ")) if t]

    # Instructions

    def instruction(self, at: int, ins: Instruction) -> None:
        name = ins.parts[0].split("::")[0]
        method = getattr(self, f"do_{name}", None)
        if method is None:
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        if ins.parts[-1] == "f32x2":
            self._pair(at, ins)
            return
        method(at, ins)

    def _pair(self, at: int, ins: Instruction) -> None:
        """Two fp32 numbers in a 64-bit register."""
        a = [f"{self.use(o, 'u8')}.view(f4)" for o in ins.operands[1:]]
        name = ins.parts[0]
        text = f"(f8({a[0]}) * {a[1]} + {a[2]}).astype(f4)" if name == "fma" else f"{a[0]} {ARITHMETIC[name]} {a[1]}"
        self.put(at, ins, ins.operands[0], f"({text}).view(u8)", "u8")

    def _binary(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        d, a, b = ins.operands
        if kind == "p":
            self.put(at, ins, d, f"{self.use(a, 'p')} {ARITHMETIC[ins.parts[0]]} {self.use(b, 'p')}", "p")
            return
        kind = kind if kind[0] == "f" else "u" + kind[1]
        self.put(at, ins, d, f"{self.use(a, kind)} {ARITHMETIC[ins.parts[0]]} {self.use(b, kind)}", kind)

    do_add = do_sub = do_and = do_or = do_xor = _binary

    def do_mul(self, at: int, ins: Instruction) -> None:
        d, a, b = ins.operands
        kind = TYPES[ins.parts[-1]]
        if "wide" in ins.parts:
            wide = kind[0] + str(2 * int(kind[1]))
            self.put(at, ins, d, f"{self.use(a, kind)}.astype({wide}) * {self.use(b, kind)}", wide)
        elif "hi" in ins.parts:
            wide = kind[0] + str(2 * int(kind[1]))
            bits = 8 * int(kind[1])
            self.put(
                at,
                ins,
                d,
                f"(({self.use(a, kind)}.astype({wide}) * {self.use(b, kind)}) >> {bits}).astype({kind})",
                kind,
            )
        else:
            self._binary(at, ins)

    def do_mad(self, at: int, ins: Instruction) -> None:
        d, a, b, c = ins.operands
        kind = TYPES[ins.parts[-1]]
        if "wide" in ins.parts:
            wide = kind[0] + str(2 * int(kind[1]))
            self.put(
                at, ins, d, f"{self.use(a, kind)}.astype({wide}) * {self.use(b, kind)} + {self.use(c, wide)}", wide
            )
        else:
            self.put(at, ins, d, f"{self.use(a, kind)} * {self.use(b, kind)} + {self.use(c, kind)}", kind)

    def do_fma(self, at: int, ins: Instruction) -> None:
        kind = ins.parts[-1]
        if kind in ("f16", "bf16") and "f32" in ins.parts:  # factors in half precision, sum in fp32
            factors = [f"from_{kind}({self.use(o, 'u2')})" for o in ins.operands[1:3]]
        elif kind == "f32":
            factors = [self.use(o, "f4") for o in ins.operands[1:3]]
        else:
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        d, a, b, c = ins.operands[0], *factors, self.use(ins.operands[3], "f4")
        self.put(at, ins, d, f"(f8({a}) * {b} + {c}).astype(f4)", "f4")

    def do_div(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        d, a, b = ins.operands
        a, b = self.use(a, kind), self.use(b, kind)
        self.put(at, ins, d, f"{a} / {b}" if kind[0] == "f" else f"quotient({a}, {b})", kind)

    def do_rem(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        d, a, b = ins.operands
        a, b = self.use(a, kind), self.use(b, kind)
        self.put(at, ins, d, f"remainder({a}, {b})", kind)

    def _extreme(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        d, *values = ins.operands
        name = ins.parts[0] + "imum"
        if kind[0] == "f" and "NaN" not in ins.parts:
            name = "f" + ins.parts[0]
        text = self.use(values[0], kind)
        for value in values[1:]:  # sm_100 has three
            text = f"np.{name}({text}, {self.use(value, kind)})"
        self.put(at, ins, d, text, kind)

    do_min = do_max = _extreme

    def do_neg(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        self.put(at, ins, ins.operands[0], f"-{self.use(ins.operands[1], kind)}", kind)

    def do_abs(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        self.put(at, ins, ins.operands[0], f"abs({self.use(ins.operands[1], kind)})", kind)

    def do_popc(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        self.put(at, ins, ins.operands[0], f"np.bitwise_count({self.use(ins.operands[1], kind)}).astype(u4)", "u4")

    def do_vote(self, at: int, ins: Instruction) -> None:
        if ins.parts[2] != "ballot":
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        self.put(at, ins, ins.operands[0], f"T.ballot({self.use(ins.operands[1], 'p')}, {self.mask(ins)})", "u4")

    def do_not(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        self.put(at, ins, ins.operands[0], f"~{self.use(ins.operands[1], kind)}", kind)

    def _function(self, at: int, ins: Instruction) -> None:
        name = {
            "ex2": "exp2",
            "lg2": "log2",
            "sqrt": "sqrt",
            "rcp": "recip",
            "rsqrt": "rsqrt",
            "sin": "sin",
            "cos": "cos",
        }
        if ins.parts[-1] != "f32":
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        self.put(at, ins, ins.operands[0], f"{name[ins.parts[0]]}({self.use(ins.operands[1], 'f4')})", "f4")

    do_ex2 = do_lg2 = do_sqrt = do_rcp = do_rsqrt = do_sin = do_cos = _function

    def _shift(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        if ins.parts[0] == "shl":
            kind = "u" + kind[1]
        d, a, b = ins.operands
        sign = "<<" if ins.parts[0] == "shl" else ">>"
        if b not in self.kernel.registers and int(b, 0) < 8 * int(kind[1]):
            self.put(at, ins, d, f"{self.use(a, kind)} {sign} {self.constant(int(b, 0), kind)}", kind)
        else:
            self.put(at, ins, d, f"shift{ins.parts[0][2]}({self.use(a, kind)}, {self.use(b, 'u4')})", kind)

    do_shl = do_shr = _shift

    def do_bfe(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        d, a, b, c = ins.operands
        self.put(at, ins, d, f"bitfield({self.use(a, kind)}, {self.use(b, 'u4')}, {self.use(c, 'u4')})", kind)

    def do_prmt(self, at: int, ins: Instruction) -> None:
        if ins.op != "prmt.b32":
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        a, b, c = (self.use(o, "u4") for o in ins.operands[1:])
        self.put(at, ins, ins.operands[0], f"permute_bytes({a}, {b}, {c})", "u4")

    def do_mov(self, at: int, ins: Instruction) -> None:
        d, a = ins.operands
        kind = TYPES[ins.parts[-1]]
        if d.startswith("{"):
            parts = self.group(d)
            small = f"u{int(kind[1]) // len(parts)}"
            whole = self.use(a, f"u{kind[1]}")
            for i, part in enumerate(parts):
                self.put(at, ins, part, f"contiguous({whole}.view({small})[{i}::{len(parts)}])", small)
        elif a.startswith("{"):
            parts = self.group(a)
            small = f"u{int(kind[1]) // len(parts)}"
            self.put(
                at, ins, d, f"pack({', '.join(self.use(p, small) for p in parts)}).view(u{kind[1]})", f"u{kind[1]}"
            )
        elif a in self.kernel.params:
            self.put(at, ins, d, f"T.parameter_address('{a}')", "u8")
        else:
            kind = self.program.canon[d] if kind[0] != "p" else "p"
            self.put(at, ins, d, self.use(a, kind), kind)

    def do_cvta(self, at: int, ins: Instruction) -> None:
        self.put(at, ins, ins.operands[0], self.use(ins.operands[1], "u8"), "u8")

    def do_setp(self, at: int, ins: Instruction) -> None:
        compare, kind = ins.parts[1], TYPES[ins.parts[-1]]
        if len([p for p in ins.parts[1:-1] if p != "ftz"]) != 1:
            raise Unsupported(f"PTX line {ins.line}: {ins.op}")
        d, a, b = ins.operands
        a, b = self.use(a, kind), self.use(b, kind)
        if compare == "nan":
            text = f"({a} != {a}) | ({b} != {b})"
        elif compare == "num":
            text = f"({a} == {a}) & ({b} == {b})"
        elif kind[0] == "f" and compare.endswith("u"):
            opposite = {"equ": "!=", "neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}[compare]
            text = f"~({a} {opposite} {b})" if compare != "neu" else f"({a} != {b})"
            text = f"({a} == {b}) | ({a} != {a}) | ({b} != {b})" if compare == "equ" else text
        elif kind[0] == "f" and compare == "ne":
            text = f"({a} != {b}) & ({a} == {a}) & ({b} == {b})"
        else:
            text = f"{a} {COMPARE[compare]} {b}"
        first, _, second = d.partition("|")
        self.put(at, ins, first, text, "p")
        if second:
            self.put(at, ins, second, f"~({text})", "p")

    def do_selp(self, at: int, ins: Instruction) -> None:
        d, a, b, p = ins.operands
        kind = self.program.canon[d]
        self.put(at, ins, d, f"np.where({self.use(p, 'p')}, {self.use(a, kind)}, {self.use(b, kind)})", kind)

    def do_cvt(self, at: int, ins: Instruction) -> None:
        types = [p for p in ins.parts[1:] if p in TYPES or p in ("bf16", "f16", "bf16x2", "f16x2")]
        to, source = types[0], types[1]
        d, a = ins.operands[:2]
        if to in ("bf16x2", "f16x2"):
            narrow = "to_bf16" if to == "bf16x2" else "to_f16"
            high, low = self.use(a, "f4"), self.use(ins.operands[2], "f4")
            self.put(at, ins, d, f"pack({narrow}({low}), {narrow}({high})).view(u4)", "u4")
        elif to in ("bf16", "f16"):
            self.put(at, ins, d, f"to_{to}({self.use(a, 'f4')})", "u2")
        elif source in ("bf16", "f16"):
            self.put(at, ins, d, f"from_{source}({self.use(a, 'u2')})", "f4")
        elif TYPES[to][0] == "f" and TYPES[source][0] == "f":
            rounding = {"rmi": "np.floor", "rpi": "np.ceil", "rni": "np.rint", "rzi": "np.trunc"}
            name = next((rounding[p] for p in ins.parts if p in rounding), "")
            self.put(at, ins, d, f"{name}({self.use(a, TYPES[source])}).astype({TYPES[to]})", TYPES[to])
        elif TYPES[source][0] == "f":
            rounding = {"rmi": "np.floor", "rpi": "np.ceil", "rni": "np.rint", "rzi": "np.trunc"}
            name = next(rounding[p] for p in ins.parts if p in rounding)
            self.put(at, ins, d, f"to_integer({name}({self.use(a, TYPES[source])}), {TYPES[to]})", TYPES[to])
        else:
            kind = TYPES[source]
            text = self.use(a, kind)
            self.put(at, ins, d, f"{text}.astype({TYPES[to]})", TYPES[to])

    # Across threads

    def do_shfl(self, at: int, ins: Instruction) -> None:
        d, a, b, c = ins.operands[:4]
        if "|" in d or int(c, 0) != 31 and ins.parts[2] != "up":
            raise Unsupported(f"PTX line {ins.line}: {ins.op} {c}")
        kind = self.program.canon[d]
        self.put(at, ins, d, f"T.shuffle('{ins.parts[2]}', {self.use(a, kind)}, {self.use(b, 'u4')})", kind)

    def do_elect(self, at: int, ins: Instruction) -> None:
        lane, predicate = ins.operands[0].split("|")
        self.emit(at, f"e_lane, e_first = T.elect({self.mask(ins)})")
        self.put(at, ins, lane, "e_lane", "u4")
        self.put(at, ins, predicate, "e_first", "p")

    def do_redux(self, at: int, ins: Instruction) -> None:
        kind = TYPES[ins.parts[-1]]
        self.put(
            at,
            ins,
            ins.operands[0],
            f"T.redux('{ins.parts[2]}', {self.use(ins.operands[1], kind)}, {self.mask(ins)})",
            kind,
        )

    # Memory

    def do_ld(self, at: int, ins: Instruction) -> None:
        space, kind = ins.parts[1].split("::")[0], TYPES[ins.parts[-1]]
        targets = self.group(ins.operands[0])
        if space == "param":
            name = ins.operands[1].strip("[]")
            self.put(
                at,
                ins,
                targets[0],
                f"T.parameter('{name}', {self.program.canon[targets[0]]})",
                self.program.canon[targets[0]],
            )
            if ins.parts[-1] == "s32" and self.program.canon[targets[0]].endswith("8"):
                self.lines[-1] = self.lines[-1].replace("T.parameter(", "T.parameter_signed(")
            return
        size = int(kind[1])
        address = self.address(ins.operands[1], "u8" if space == "global" else "u4")
        mask = self.mask(ins)
        self.emit(at, f"v = T.load_{space}({at}, {address}, {size}, {len(targets)}, {mask})")
        for i, target in enumerate(targets):
            have = f"v[{i}]"
            if kind[0] == "i" and int(self.program.canon[target][1]) > size:
                have = f"v[{i}].view({kind}).astype(i{self.program.canon[target][1]})"
                self.put(at, ins, target, have, f"i{self.program.canon[target][1]}")
            else:
                self.put(at, ins, target, have, f"u{size}")

    def do_st(self, at: int, ins: Instruction) -> None:
        space, size = ins.parts[1].split("::")[0], int(TYPES[ins.parts[-1]][1])
        values = self.group(ins.operands[1])
        address = self.address(ins.operands[0], "u8" if space == "global" else "u4")
        parts = ", ".join(self._bits(v, size) for v in values)
        self.emit(at, f"T.store_{space}({at}, {address}, {size}, ({parts},), {self.mask(ins)})")

    def _bits(self, token: str, size: int) -> str:
        if token in self.kernel.registers and int(self.program.canon[token][1]) > size:
            canon = self.program.canon[token]
            return f"{self.use(token, 'u' + canon[1])}.astype(u{size})"
        return self.use(token, f"u{size}")

    def do_atom(self, at: int, ins: Instruction) -> None:
        kind, action = TYPES[ins.parts[-1]], ins.parts[-2]
        d, address, value = ins.operands[:3]
        text = f"T.atomic({at}, '{action}', {self.address(address, 'u8')}, {self.use(value, kind)}, {self.mask(ins)})"
        self.put(at, ins, d, text, kind)

    def do_red(self, at: int, ins: Instruction) -> None:
        kind, action = TYPES[ins.parts[-1]], ins.parts[-2]
        address, value = ins.operands[:2]
        self.emit(
            at, f"T.atomic({at}, '{action}', {self.address(address, 'u8')}, {self.use(value, kind)}, {self.mask(ins)})"
        )

    def do_ldmatrix(self, at: int, ins: Instruction) -> None:
        targets = self.group(ins.operands[0])
        transposed = "trans" in ins.parts
        self.emit(
            at,
            f"v = T.ldmatrix({at}, {self.address(ins.operands[1], 'u4')}, {len(targets)}, {transposed}, {self.mask(ins)})",
        )
        for i, target in enumerate(targets):
            self.put(at, ins, target, f"v[{i}]", "u4")

    def do_stmatrix(self, at: int, ins: Instruction) -> None:
        values = ", ".join(self.use(v, "u4") for v in self.group(ins.operands[1]))
        self.emit(
            at,
            f"T.stmatrix({at}, {self.address(ins.operands[0], 'u4')}, ({values},), {'trans' in ins.parts}, {self.mask(ins)})",
        )

    def do_mma(self, at: int, ins: Instruction) -> None:
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
            d = [self.program.number[t] for t in self.group(ins.operands[0])]
            if any(self.program.canon[t] != "f4" for t in self.group(ins.operands[0])):
                raise Unsupported("accumulator kept as integers")
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
        if ins.parts[1] == "proxy" and ins.parts[2].startswith("async"):
            self.emit(at, f"T.fence_proxy({self.mask(ins)})")

    def do_membar(self, at: int, ins: Instruction) -> None:
        return

    # Control

    def do_bar(self, at: int, ins: Instruction) -> None:
        if "warp" in ins.parts:
            return
        number = int(ins.operands[0])
        count = int(ins.operands[1]) if len(ins.operands) > 1 else None
        self.emit(at, f"return {at + 1} if T.bar({at}, F, {number}, {count}, {self.mask(ins)}) else None")

    do_barrier = do_bar

    def do_setmaxnreg(self, at: int, ins: Instruction) -> None:
        self.emit(
            at,
            f"return {at + 1} if T.setmaxnreg({at}, F, {ins.parts[1] == 'inc'}, {int(ins.operands[0])}, m) else None",
        )

    def do_bra(self, at: int, ins: Instruction) -> None:
        target = self.kernel.labels[ins.operands[0]]
        if ins.guard is None:
            self.emit(at, f"return {target}")
        else:
            guard = self.use(ins.guard[0], "p")
            self.emit(at, f"return T.branch(F, {'~' if ins.guard[1] else ''}{guard}, m, {target}, {at + 1})")

    def do_brx(self, at: int, ins: Instruction) -> None:
        table = tuple(self.kernel.labels[name] for name in self.kernel.tables[ins.operands[1]])
        self.emit(at, f"return T.branch_table(F, {self.use(ins.operands[0], 'u4')}, m, {table})")

    def do_ret(self, at: int, ins: Instruction) -> None:
        if ins.guard:
            raise Unsupported("guarded ret")
        self.emit(at, "return -1")

    do_exit = do_ret

    def do_nanosleep(self, at: int, ins: Instruction) -> None:
        return
