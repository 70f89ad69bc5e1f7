"""Branches, barriers of a block, and instructions that ask for nothing here."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import Writer


class Control(Writer):
    """bra, brx, ret, exit, bar, barrier, setmaxnreg, membar, nanosleep."""

    def do_bra(self, at: int, ins: Instruction) -> None:
        self.form.flag("uni")  # promises that all threads go the same way; they are looked at anyway
        target = self.kernel.labels[self.form.operands(1)[0]]
        if ins.guard is None:
            self.emit(at, f"return {target}")
            return
        guard = ("~" if ins.guard[1] else "") + self.use(ins.guard[0], "p")
        self.emit(at, f"return T.branch(F, {guard}, m, {target}, {at + 1})")

    def do_brx(self, at: int, ins: Instruction) -> None:
        self.form.need("idx")
        self.form.flag("uni")
        self._unguarded(ins)
        index, table = self.form.operands(2)
        targets = tuple(self.kernel.labels[name] for name in self.kernel.tables[table])
        self.emit(at, f"return T.branch_table(F, {self.use(index, 'u4')}, m, {targets})")

    def do_ret(self, at: int, ins: Instruction) -> None:
        if ins.parts[0] == "ret":
            self.form.flag("uni")
        self._unguarded(ins)
        self.form.operands(0)
        self.emit(at, "return -1")

    do_exit = do_ret

    def _unguarded(self, ins: Instruction) -> None:
        if ins.guard:
            self.form.refuse("a guard is not known here")

    # Barriers

    def do_bar(self, at: int, ins: Instruction) -> None:
        if ins.parts[0] == "bar" and self.form.flag("warp"):
            self._warp_barrier(at, ins)
            return
        self.form.flag("cta")
        self.form.need("sync")
        aligned = self.form.flag("aligned") or ins.parts[0] == "bar"
        self._unguarded(ins)
        number, *count = self.form.operands(1, 2)
        threads = self.integer(count[0]) if count else None
        call = f"T.bar({at}, F, {self.integer(number)}, {threads}, {self.mask(ins)}, {aligned})"
        self.emit(at, f"return {at + 1} if {call} else None")

    do_barrier = do_bar

    def _warp_barrier(self, at: int, ins: Instruction) -> None:
        self.form.need("sync")
        self._unguarded(ins)
        (members,) = self.form.operands(1)
        call = f"T.sync_warp({at}, F, {self.use(members, 'u4')}, {self.mask(ins)})"
        self.emit(at, f"return {at + 1} if {call} else None")

    def do_setmaxnreg(self, at: int, ins: Instruction) -> None:
        more = self.form.need("inc", "dec") == "inc"
        for name in ("sync", "aligned", "u32"):
            self.form.need(name)
        self._unguarded(ins)
        count = self.integer(self.form.operands(1)[0])
        self.emit(at, f"return {at + 1} if T.setmaxnreg({at}, F, {more}, {count}, m) else None")

    # Nothing to do

    def do_membar(self, at: int, ins: Instruction) -> None:
        """Orders what other blocks see; between blocks only conflicting writes are judged."""
        self.form.need("cta", "gl", "sys")
        self.form.operands(0)

    def do_nanosleep(self, at: int, ins: Instruction) -> None:
        """Time is not modelled."""
        self.form.need("u32")
        self.form.operands(1)
