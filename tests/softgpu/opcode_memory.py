"""Loads, stores and atomics of threads."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer, size_of

TYPES = tuple(f"{letter}{bits}" for letter in "bus" for bits in (8, 16, 32, 64)) + ("f32", "f64")
SPACES = {"global": "global", "shared": "shared", "shared::cta": "shared"}
ADDRESS = {"global": "u8", "shared": "u4"}
# Ignored on purpose: what to keep in a cache changes no value, since memory here has none.
HINTS = (
    *("ca", "cg", "cs", "lu", "cv", "wb", "wt"),
    *(f"L1::{how}" for how in ("evict_normal", "evict_unchanged", "evict_first", "evict_last", "no_allocate")),
    *(f"L2::{how}" for how in ("evict_normal", "evict_first", "evict_last", "64B", "128B", "256B")),
)
# Ignored on purpose: which accesses of other threads an atomic orders. Blocks run one after the other, and between
# blocks only conflicting writes are judged; within a block an atomic orders nothing, so no race goes unseen.
ORDERS = ("relaxed", "acquire", "release", "acq_rel")
SCOPES = ("cta", "gpu", "sys")
ACTIONS = {
    "add": ("u32", "s32", "u64", "f32", "f64"),
    **dict.fromkeys(("min", "max"), ("u32", "s32", "u64", "s64")),
    "exch": ("b32", "b64"),
}


class Memory(Writer):
    """ld, st, atom, red."""

    def do_ld(self, at: int, ins: Instruction) -> None:
        kind = KINDS[self.form.type(*TYPES)]
        if self.form.flag("param"):
            self._load_parameter(at, ins, kind)
            return
        space, count, targets, address = self._access(0)
        size = size_of(kind)
        self.emit(at, f"v = T.load_{space}({at}, {address}, {size}, {count}, {self.mask(ins)})")
        for i, target in enumerate(targets):
            signed = kind[0] == "i" and size_of(self.program.canon[target]) > size
            self.put(
                at, ins, target, f"v[{i}].view({kind})" if signed else f"v[{i}]", kind if signed else self.bits(size)
            )

    def _load_parameter(self, at: int, ins: Instruction, kind: str) -> None:
        d, source = self.form.operands(2)
        name = source.strip("[] ")
        if name not in self.kernel.params or self.kernel.params[name][1] != size_of(kind):
            self.form.refuse(f"there is no parameter {name} of that size")
        self.put(at, ins, d, f"T.parameter('{name}', {kind})", kind)

    def do_st(self, at: int, ins: Instruction) -> None:
        size = size_of(KINDS[self.form.type(*TYPES)])
        space, _, values, address = self._access(1)
        data = ", ".join(self.use(value, self.bits(size)) for value in values)
        self.emit(at, f"T.store_{space}({at}, {address}, {size}, ({data},), {self.mask(ins)})")

    def _access(self, vector: int) -> tuple[str, int, list[str], str]:
        """Space, length and members of the vector (which operand is it?), and the address."""
        self.form.flag("weak")
        space = SPACES[self.form.need(*SPACES)]
        while self.form.take(*HINTS):
            pass
        policy = self.form.flag("L2::cache_hint")
        count = int((self.form.take("v2", "v4", "v8") or "v1")[1:])
        operands = self.form.operands(3 if policy else 2)
        members = self.group(operands[vector])
        if len(members) != count:
            self.form.refuse(f"a vector of {len(members)}")
        return space, count, members, self.address(operands[1 - vector], ADDRESS[space])

    def do_atom(self, at: int, ins: Instruction) -> None:
        self._atomic(at, ins, 3)

    def do_red(self, at: int, ins: Instruction) -> None:
        self._atomic(at, ins, 2)

    def _atomic(self, at: int, ins: Instruction, count: int) -> None:
        """In global memory. red is atom without a result."""
        self._order()
        action = self.form.need(*ACTIONS)
        kind = KINDS[self.form.type(*ACTIONS[action])]
        operands = self.form.operands(count)
        address, value = self.address(operands[-2], "u8"), self.use(operands[-1], kind)
        text = f"T.atomic({at}, '{action}', {address}, {value}, {self.mask(ins)})"
        if count == 3:
            self.put(at, ins, operands[0], text, kind)
        else:
            self.emit(at, text)

    def _order(self) -> None:
        """Space, order and scope; the compiler and Triton write them in different orders."""
        taken = [self.form.take("global", *ORDERS, *SCOPES) for _ in range(3)]
        if "global" not in taken:
            self.form.refuse("atomics of other spaces are not known")
