"""Exchange between the threads of a warp."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer

REDUCTIONS = {
    **dict.fromkeys(("add", "min", "max"), ("u32", "s32")),
    **dict.fromkeys(("and", "or", "xor"), ("b32",)),
}


class Across(Writer):
    """shfl, vote, elect, redux."""

    def do_shfl(self, at: int, ins: Instruction) -> None:
        """shfl.sync.MODE.b32 d, a, b, c, members; c says where a part of a warp ends: here it is always the whole."""
        self.form.type("b32")
        self.form.need("sync")
        mode = self.form.need("bfly", "idx", "up", "down")
        d, a, b, c, members = self.form.operands(5)
        if "|" in d or self.integer(c) != (0 if mode == "up" else 31):
            self.form.refuse(f"a result in two parts, or parts of a warp (c = {c})")
        self._everybody(members)
        kind = self.same(d, a)
        self.put(at, ins, d, f"T.shuffle('{mode}', {self.use(a, kind)}, {self.use(b, 'u4')})", kind)

    def do_vote(self, at: int, ins: Instruction) -> None:
        self.form.need("sync")
        self.form.need("ballot")
        self.form.need("b32")
        d, p, members = self.form.operands(3)
        self._everybody(members)
        self.put(at, ins, d, f"T.ballot({self.use(p, 'p')}, {self.mask(ins)})", "u4")

    def do_elect(self, at: int, ins: Instruction) -> None:
        self.form.need("sync")
        both, members = self.form.operands(2)
        self._everybody(members)
        lane, _, predicate = both.partition("|")
        self.emit(at, f"e_lane, e_first = T.elect({self.mask(ins)})")
        self.put(at, ins, lane, "e_lane", "u4")
        self.put(at, ins, predicate, "e_first", "p")

    def do_redux(self, at: int, ins: Instruction) -> None:
        self.form.need("sync")
        action = self.form.need(*REDUCTIONS)
        kind = KINDS[self.form.type(*REDUCTIONS[action])]
        d, a, members = self.form.operands(3)
        self._everybody(members)
        self.put(at, ins, d, f"T.redux('{action}', {self.use(a, kind)}, {self.mask(ins)})", kind)

    def _everybody(self, members: str) -> None:
        """The mask of members must be all 32 threads of the warp, where it is written as a number."""
        if members not in self.kernel.registers and self.integer(members) & 0xFFFFFFFF != 0xFFFFFFFF:
            self.form.refuse(f"members {members} of a warp")
