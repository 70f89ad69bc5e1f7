"""Exchange between the threads of a warp."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer

REDUCTIONS = {
    **dict.fromkeys(("add", "min", "max"), ("u32", "s32")),
    **dict.fromkeys(("and", "or", "xor"), ("b32",)),
}


class Across(Writer):
    """shfl, vote, match, activemask, elect, redux."""

    def do_shfl(self, at: int, ins: Instruction) -> None:
        """shfl.sync.MODE.b32 d{|p}, a, b, c, members: a of another thread; p: is it in range?"""
        self.form.type("b32")
        self.form.need("sync")
        mode = self.form.need("bfly", "idx", "up", "down")
        d, a, b, c, members = self.form.operands(5)
        first, _, second = d.partition("|")
        members, kind = self._members(at, ins, members), self.same(first, a)
        values = ", ".join((self.use(a, kind), self.use(b, "u4"), self.use(c, "u4"), members))
        self.emit(at, f"v, p = T.shuffle({at}, '{mode}', {values}, {self.mask(ins)})")
        self.put(at, ins, first, "v", kind)
        if second:
            self.put(at, ins, second, "p", "p")

    def do_vote(self, at: int, ins: Instruction) -> None:
        self.form.need("sync")
        mode = self.form.need("all", "any", "uni", "ballot")
        kind = KINDS[self.form.need("b32" if mode == "ballot" else "pred")]
        d, p, members = self.form.operands(3)
        members, p = self._members(at, ins, members), self.predicate(p)
        self.put(at, ins, d, f"T.vote({at}, '{mode}', {p}, {members}, {self.mask(ins)})", kind)

    def do_match(self, at: int, ins: Instruction) -> None:
        """match.any.sync d, a, members; match.all.sync d{|p}, a, members."""
        mode = self.form.need("any", "all")
        self.form.need("sync")
        kind = KINDS[self.form.need("b32", "b64")]
        d, a, members = self.form.operands(3)
        first, _, second = d.partition("|")
        if second and mode == "any":
            self.form.refuse("a result in two parts")
        members = self._members(at, ins, members)
        self.emit(at, f"v, p = T.match({at}, '{mode}', {self.use(a, kind)}, {members}, {self.mask(ins)})")
        self.put(at, ins, first, "v", "u4")
        if second:
            self.put(at, ins, second, "p", "p")

    def do_activemask(self, at: int, ins: Instruction) -> None:
        self.form.need("b32")
        (d,) = self.form.operands(1)
        self.put(at, ins, d, f"T.activemask({self.mask(ins)})", "u4")

    def do_elect(self, at: int, ins: Instruction) -> None:
        self.form.need("sync")
        both, members = self.form.operands(2)
        lane, _, predicate = both.partition("|")
        self.emit(at, f"v, p = T.elect({at}, {self._members(at, ins, members)}, {self.mask(ins)})")
        self.put(at, ins, lane, "v", "u4")
        self.put(at, ins, predicate, "p", "p")

    def do_redux(self, at: int, ins: Instruction) -> None:
        self.form.need("sync")
        action = self.form.need(*REDUCTIONS)
        kind = KINDS[self.form.type(*REDUCTIONS[action])]
        d, a, members = self.form.operands(3)
        members = self._members(at, ins, members)
        self.put(at, ins, d, f"T.redux({at}, '{action}', {self.use(a, kind)}, {members}, {self.mask(ins)})", kind)

    def _members(self, at: int, ins: Instruction, token: str) -> str:
        """The mask of members. Where threads of a warp may be apart, those who are here wait for the other members."""
        members = self.use(token, "u4")
        if self.masked:
            self.emit(at, f"if T.absent({at}, F, {members}, {self.mask(ins)}): return None")
        return members
