"""PTX to Python: one function per stretch of code without a branch or a blocking instruction.

Registers of a team of L threads are NumPy arrays of length L, never changed in place. Each stretch is generated twice:
for all L threads, and for some of them (`m`, a boolean array; writes are merged).
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from tests.softgpu import floats, halves, integers, numbers
from tests.softgpu.opcodes import Opcodes
from tests.softgpu.parse import Instruction, Kernel, Unsupported, parse
from tests.softgpu.registers import PLAIN, Survey, undefined

# After these the machine may have to wait: a stretch ends with them, and begins with them when they are tried again.
BLOCKING = ("bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync", "bar.warp.sync")
BLOCKING += ("mbarrier.try_wait", "setmaxnreg")
# So do these where threads of a warp may be apart: they wait for the other members of their mask.
TOGETHER = ("shfl", "vote", "match", "redux", "elect")
BRANCHES = ("bra", "brx", "ret", "exit")
HELPERS = {
    name: value
    for module in (numbers, integers, halves, floats)
    for name, value in vars(module).items()
    if not name.startswith("_") and name not in ("Any", "Callable")
}


class Program:
    """The functions of a kernel for teams of `lanes` threads, made when they are first asked for.

    number: place of each register in R. canon: the kind in which it is kept. undefined: registers that nothing writes.
    sources: by the name of a function's file, the instruction of each of its lines. `Unsupported` names all that is not
    known in the kernel, a line each, before anything runs.
    """

    def __init__(self, kernel: Kernel, lanes: int) -> None:
        self.kernel, self.lanes = kernel, lanes
        self.number = {name: i for i, name in enumerate(kernel.registers)}
        self.canon = {name: PLAIN[letter] for name, letter in kernel.registers.items()}
        self.constants: dict[str, Any] = {}
        survey = Survey(self, False)
        problems = survey.look()
        if problems:
            raise Unsupported("\n".join(problems))
        self.canon = survey.kinds()
        self.undefined = undefined(kernel, survey.written)
        self.constants = {}
        self.cache: dict[tuple[int, bool], Callable] = {}
        self.sources: dict[str, list[int]] = {}
        self.leaders = {kernel.labels[ins.operands[0]] for ins in kernel.code if ins.parts[0] == "bra"}
        self.leaders |= {kernel.labels[name] for table in kernel.tables.values() for name in table}

    def function(self, start: int, masked: bool) -> Callable:
        """The function for the stretch from instruction `start` on; it returns the index to go on at, or None."""
        key = (start, masked)
        if key not in self.cache:
            self.cache[key] = self._compile(start, masked)
        return self.cache[key]

    def _compile(self, start: int, masked: bool) -> Callable:
        writer = Opcodes(self, masked)
        self._write(writer, start)
        name = f"ptx_{self.kernel.name}_{start}_{int(masked)}"
        text = f"def {name}(T, R, m, F):\n" + "".join(f"    {line}\n" for line in writer.lines)
        space = {**HELPERS, **self.constants}
        exec(compile(text, f"<{name}>", "exec"), space)
        self.sources[f"<{name}>"] = writer.origins
        return space[name]

    def _write(self, writer: Opcodes, start: int) -> None:
        code, at, copies = self.kernel.code, start, EarlyCopies(writer)
        waits = BLOCKING + TOGETHER if writer.masked else BLOCKING
        while True:
            ins = code[at]
            ends = ins.parts[0] in BRANCHES or ins.op.startswith(BLOCKING)
            if ends or ins.op.startswith(waits):
                copies.write()
            if ins.op.startswith(waits) and at != start:
                writer.emit(at, f"return {at}")
                return
            if not copies.takes(at, ins):
                writer.instruction(at, ins)
                copies.follow(ins)
            if ends:
                return
            at += 1
            if at in self.leaders:
                copies.write()
                writer.emit(at - 1, f"return {at}")
                return


class EarlyCopies:
    """Copies of registers that a tcgen05.ld has yet to write: they are made behind its wait, if that comes in time.

    The PTX manual gives such a register no value yet. Triton's compiler packs two of them into a 64-bit register all
    the same, and an assembler keeps a copy behind what it copies. The machine warns, or faults if it is strict.
    """

    def __init__(self, writer: Opcodes) -> None:
        self.writer = writer
        self.empty: set[str] = set()
        self.late: list[tuple[int, Instruction]] = []

    def takes(self, at: int, ins: Instruction) -> bool:
        """Whether the instruction is such a copy, which is then put off; until then its target holds nothing."""
        targets = (
            [name for name in _names(ins.operands[0]) if name in self.writer.program.number] if ins.operands else []
        )
        if any(name in _names(copy.operands[1]) for _, copy in self.late for name in targets):
            self.write()
        if (
            ins.parts[0] != "mov"
            or ins.guard
            or self.writer.masked
            or not self.empty.intersection(_names(ins.operands[1]))
        ):
            return False
        self.writer.emit(at, f"T.copied_early({at}, R, {[self.writer.program.number[name] for name in targets]})")
        self.late.append((at, ins))
        self.empty.update(targets)
        return True

    def follow(self, ins: Instruction) -> None:
        """After an instruction was written: what it loads, waits for, or overwrites."""
        if ins.op.startswith("tcgen05.ld"):
            self.empty.update(_names(ins.operands[0]))
        elif ins.op.startswith("tcgen05.wait::ld"):
            self.write()

    def write(self) -> None:
        """Make the copies now."""
        for at, ins in self.late:
            self.writer.instruction(at, ins)
        self.late, self.empty = [], set()


def _names(operand: str) -> list[str]:
    return re.findall(r"[%\w$@]+", operand)


@functools.lru_cache(maxsize=256)
def translate(kernel: Kernel, lanes: int) -> Program:
    """The program of a kernel; `parse` gives one kernel for equal texts, so that equal texts are translated once."""
    return Program(kernel, lanes)


def unknown(text: str) -> list[str]:
    """What the executor does not know in a module of PTX: line, instruction and reason."""
    try:
        translate(parse(text), 32)
    except Unsupported as error:
        return str(error).split("\n")
    return []
