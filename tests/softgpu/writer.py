"""Writes Python for PTX: operands, masks and registers. The families of instructions are mixed in.

A value is a NumPy array over the threads of a team. Its kind is a NumPy type in short (u4: 32 bits without a sign, i2,
f4, f8, ...) or p for a predicate.
"""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.softgpu.form import Form
from tests.softgpu.parse import Instruction, Unsupported

if TYPE_CHECKING:
    from tests.softgpu.program import Program

SMEM_BASE = 1024  # where dynamic shared memory starts on real devices
# PTX's types as kinds. Types of half precision are kept as bits.
KINDS = {
    **{f"{ptx}{8 * size}": f"{kind}{size}" for size in (1, 2, 4, 8) for ptx, kind in ("uu", "si", "bu")},
    "f32": "f4", "f64": "f8", "pred": "p", "f16": "u2", "bf16": "u2", "f16x2": "u4", "bf16x2": "u4", "f32x2": "u8",
}  # fmt: skip
SPECIAL = {f"%{name}.{axis}" for name in ("tid", "ctaid", "nctaid") for axis in "xyz"}
SPECIAL |= {"%ntid.x", "%laneid", "%warpid"}


def size_of(kind: str) -> int:
    """Bytes of a number of the kind; 0 for a predicate."""
    return 0 if kind == "p" else int(kind[1])


class Writer:
    """Writes the body of one stretch: `lines` of Python, and for each in `origins` the instruction that it comes from.

    masked: the stretch is run by some threads only, those of the boolean array `m`. Methods `do_NAME` translate an
    instruction; `form` has its modifiers.
    """

    def __init__(self, program: "Program", masked: bool) -> None:
        self.program, self.kernel, self.masked = program, program.kernel, masked
        self.lines: list[str] = []
        self.origins: list[int] = []
        self.form = Form(Instruction("nop", [], None, 0, ("", 0)))

    def instruction(self, at: int, ins: Instruction) -> None:
        """Translate one instruction. `Unsupported` where any part of it is not known."""
        self.form = Form(ins)
        method = getattr(self, f"do_{ins.parts[0]}", None)
        if method is None:
            self.form.refuse("the instruction is not known")
        try:
            method(at, ins)
        except (ValueError, KeyError, IndexError) as error:
            self.form.refuse(f"cannot read its operands {ins.operands} ({error})")
        self.form.finish()

    def emit(self, at: int, text: str) -> None:
        self.lines.append(text)
        self.origins.append(at)

    # Operands

    def use(self, token: str, kind: str) -> str:
        """A register or constant as an expression of the kind. Of a wider register the low bits are used."""
        if token not in self.kernel.registers:
            return self._special(token, kind) if token.startswith("%") else self.constant(self.value(token, kind), kind)
        name, canon = f"R[{self.program.number[token]}]", self.program.canon[token]
        if canon == kind:
            return name
        if "p" in (canon, kind) or size_of(canon) < size_of(kind):
            self.form.refuse(f"{token} is used as {kind} and kept as {canon}")
        if size_of(canon) == size_of(kind):
            return f"{name}.view({kind})"
        return f"{name}.view(u{canon[1]}).astype(u{kind[1]})" + ("" if kind[0] == "u" else f".view({kind})")

    def _special(self, token: str, kind: str) -> str:
        if token not in SPECIAL or size_of(kind) != 4:
            self.form.refuse(f"{token} as {kind} is not known")
        return f"T.special['{token}']" + ("" if kind == "u4" else f".view({kind})")

    def value(self, token: str, kind: str) -> Any:
        """A number or symbol as it is written. A whole number where a float is expected means its bits."""
        if token == "global_smem" and size_of(kind) >= 4:
            return SMEM_BASE
        if m := re.fullmatch(r"0([fFdD])([0-9a-fA-F]+)", token):
            integer, real = (np.uint32, np.float32) if m[1] in "fF" else (np.uint64, np.float64)
            return np.array(int(m[2], 16), integer).view(real)
        if not re.fullmatch(r"-?(?:0[xX][0-9a-fA-F]+|\d+)U?", token):
            self.form.refuse(f"operand {token} is not known")
        number = int(token.rstrip("U"), 0)
        return bool(number) if kind == "p" else self._fit(number, kind)

    def _fit(self, number: int, kind: str) -> Any:
        """The number in the kind. Negative numbers may be written with 64 bits, as Triton does."""
        bits = 8 * size_of(kind)
        number -= (1 << 64) if number >> 63 == 1 and bits < 64 else 0
        if not -(1 << bits - 1) <= number < 1 << bits:
            self.form.refuse(f"{number} does not fit into {bits} bits")
        return np.array(number & (1 << bits) - 1, f"u{kind[1]}").view(kind)

    def constant(self, value: Any, kind: str) -> str:
        """The name of an array that holds the value for every thread."""
        value = np.asarray(value)
        if kind == "p" or value.dtype.kind != "f":
            array = np.full(self.program.lanes, value, bool if kind == "p" else kind)
        elif size_of(kind) != value.dtype.itemsize:
            self.form.refuse(f"a float of {value.dtype.itemsize} bytes as {kind}")
        else:
            array = np.full(self.program.lanes, value).view(kind)
        name = f"k{kind}_{array[:1].tobytes().hex()}"
        self.program.constants[name] = array
        return name

    def predicate(self, token: str) -> str:
        """A predicate that may be negated: p or !p."""
        return f"~{self.use(token[1:].strip(), 'p')}" if token.startswith("!") else self.use(token, "p")

    def integer(self, token: str) -> int:
        """An operand that must be a whole number in the text."""
        return int(token, 0)

    def mask(self, ins: Instruction) -> str:
        """The threads that execute the instruction: the name of a boolean array, or None for all."""
        if not ins.guard:
            return "m" if self.masked else "None"
        guard = ("~" if ins.guard[1] else "") + self.use(ins.guard[0], "p")
        return f"(m & {guard})" if self.masked else guard

    def address(self, token: str, kind: str) -> str:
        """[register + offset], [symbol + offset] or [number] as an expression of the kind."""
        m = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]", token)
        if not m:
            self.form.refuse(f"address {token} is not known")
        offset = int(m[2] or "0", 0)
        if m[1] not in self.kernel.registers:
            return self.constant(int(self.value(m[1], "u8")) + offset, kind)
        text = self.use(m[1], kind)
        return f"{text} + {self.constant(offset % 2 ** (8 * size_of(kind)), kind)}" if offset else text

    @staticmethod
    def group(token: str) -> list[str]:
        """The members of a vector operand; a bare operand is a vector of one."""
        return [t for t in re.split(r"[\s,]+", token.strip("{}[] ")) if t]

    # Registers

    def put(self, at: int, ins: Instruction, token: str, text: str, kind: str, mask: str | None = None) -> None:
        """Write an expression of the kind to a register. A wider register takes it with its sign or with zeros."""
        if token == "_":
            self.emit(at, text)
            return
        if token not in self.kernel.registers:
            self.form.refuse(f"{token} is not a register")
        number, canon = self.program.number[token], self.program.canon[token]
        if canon != kind:
            if "p" in (canon, kind) or size_of(canon) < size_of(kind):
                self.form.refuse(f"{token} is kept as {canon} and written as {kind}")
            if size_of(canon) > size_of(kind):
                if kind[0] == "f":
                    self.form.refuse(f"{token} is wider than the float that is written to it")
                text, kind = f"({text}).astype({kind[0]}{canon[1]})", f"{kind[0]}{canon[1]}"
            if canon != kind:
                text = f"({text}).view({canon})"
        mask = mask or self.mask(ins)
        self.emit(
            at, f"R[{number}] = {text}" if mask == "None" else f"R[{number}] = merge({mask}, {text}, R[{number}])"
        )

    def same(self, *tokens: str) -> str:
        """The kind of a move between registers, the first of which is written: it means bits and no type."""
        return self.program.canon[tokens[0]]

    def bits(self, size: int) -> str:
        """The kind of untyped data of `size` bytes."""
        return f"u{size}"

    def register(self, token: str, kind: str) -> int:
        """The number of a register that the machine itself reads or writes, and finds in the given kind."""
        if self.program.canon[token] != kind:
            self.form.refuse(f"{token} is needed as {kind} and kept as {self.program.canon[token]}")
        return self.program.number[token]


__all__ = ["KINDS", "SMEM_BASE", "Unsupported", "Writer", "size_of"]
