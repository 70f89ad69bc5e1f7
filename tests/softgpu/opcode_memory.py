"""Loads, stores and atomics of threads."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import KINDS, Writer, size_of

TYPES = (*(f"{letter}{bits}" for letter in "bus" for bits in (8, 16, 32, 64)), "f32", "f64")
SPACES = {"global": "global", "shared": "shared", "shared::cta": "shared"}
ADDRESS = {"global": "u8", "shared": "u4"}
# Ignored on purpose: what to keep in a cache changes no value, since memory here has none.
HINTS = (
    *("ca", "cg", "cs", "lu", "cv", "wb", "wt"),
    *(f"L1::{how}" for how in ("evict_normal", "evict_unchanged", "evict_first", "evict_last", "no_allocate")),
    *(f"L2::{how}" for how in ("evict_normal", "evict_first", "evict_last", "64B", "128B", "256B")),
)
ORDERS = ("relaxed", "acquire", "release", "acq_rel")
SCOPES = ("cta", "gpu", "sys")
ACTIONS = {
    "add": ("u32", "s32", "u64", "f32", "f64"),
    **dict.fromkeys(("min", "max"), ("u32", "s32", "u64", "s64")),
    **dict.fromkeys(("and", "or", "xor", "exch", "cas"), ("b32", "b64")),
    **dict.fromkeys(("inc", "dec"), ("u32",)),
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
        text, kind, before = self._atomic(at, ins, 1)
        self.put(at, ins, before[0], text, kind)

    def do_red(self, at: int, ins: Instruction) -> None:
        self.emit(at, self._atomic(at, ins, 0)[0])

    def _atomic(self, at: int, ins: Instruction, results: int) -> tuple[str, str, list[str]]:
        """An atomic on global memory: the call, its kind, and the operands before the address."""
        order, scope = self._order()
        action = self.form.need(*ACTIONS)
        kind = KINDS[self.form.type(*ACTIONS[action])]
        operands = self.form.operands(results + (3 if action == "cas" else 2))
        address = self.address(operands[results], "u8")
        values = [self.use(value, kind) for value in operands[results + 1 :]]
        value = values[0] if len(values) == 1 else f"({', '.join(values)})"
        text = f"T.atomic({at}, '{action}', {address}, {value}, {self.mask(ins)}, '{order}', '{scope}')"
        return text, kind, operands[:results]

    def _order(self) -> tuple[str, str]:
        """Order and scope, by default relaxed and gpu; the compiler and Triton write them in different places."""
        taken = {self.form.take("global", *ORDERS, *SCOPES) for _ in range(3)} - {None}
        if "global" not in taken:
            self.form.refuse("atomics of other spaces are not known")
        orders, scopes = taken & {*ORDERS}, taken & {*SCOPES}
        if len(orders) > 1 or len(scopes) > 1:
            self.form.refuse("two orders or scopes")
        return next(iter(orders), "relaxed"), next(iter(scopes), "gpu")
