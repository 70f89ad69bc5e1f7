"""tcgen05 as calls of the machine: one block's tensor memory and the products in it."""

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import Writer

COUNTS = {f"x{n}": n for n in (1, 2, 4, 8, 16, 32, 64, 128)}


class TensorOpcodes(Writer):
    """Mixed into the translator. Everything that concerns two blocks (cta_group::2, multicast) is refused."""

    def do_tcgen05(self, at: int, ins: Instruction) -> None:
        action = self.form.left[0]
        if action.startswith(("wait::", "fence::")):
            self._tcgen05_order(at, ins)
            return
        self.form.need("alloc", "dealloc", "relinquish_alloc_permit", "ld", "st", "mma", "commit")
        getattr(self, f"_tcgen05_{action.split('_')[0]}")(at, ins)

    def _tcgen05_order(self, at: int, ins: Instruction) -> None:
        what = self.form.need("wait::ld", "wait::st", "fence::before_thread_sync", "fence::after_thread_sync")
        self.form.operands(0)
        if what.startswith("fence"):
            self.emit(at, f"T.tcgen05_fence({'before' in what}, {self.mask(ins)})")
            return
        self._tcgen05_aligned()
        if what == "wait::ld":
            self.emit(at, f"T.tmem_wait_load({at}, R, {self.mask(ins)})")
        else:
            self.emit(at, f"T.tmem_wait_store({at}, {self.mask(ins)})")

    def _tcgen05_aligned(self) -> None:
        self.form.need("sync")
        self.form.need("aligned")

    def _tcgen05_group(self) -> None:
        self.form.need("cta_group::1")

    def _tcgen05_alloc(self, at: int, ins: Instruction) -> None:
        self._tcgen05_group()
        self._tcgen05_aligned()
        self.form.need("shared::cta")
        self.form.need("b32")
        address, columns = self.form.operands(2)
        self.emit(at, f"T.tmem_alloc({at}, {self.address(address, 'u4')}, {self.integer(columns)}, {self.mask(ins)})")

    def _tcgen05_dealloc(self, at: int, ins: Instruction) -> None:
        self._tcgen05_group()
        self._tcgen05_aligned()
        self.form.need("b32")
        address, columns = self.form.operands(2)
        self.emit(at, f"T.tmem_dealloc({at}, {self.use(address, 'u4')}, {self.integer(columns)}, {self.mask(ins)})")

    def _tcgen05_relinquish(self, at: int, ins: Instruction) -> None:
        self._tcgen05_group()
        self._tcgen05_aligned()
        self.form.operands(0)
        self.emit(at, f"T.tmem_relinquish({at}, {self.mask(ins)})")

    def _tcgen05_shape(self) -> tuple[bool, int]:
        """.sync.aligned.{16x32bx2,32x32b}.xN.b32: whether it is the first, and the registers."""
        self._tcgen05_aligned()
        split = self.form.need("16x32bx2", "32x32b") == "16x32bx2"
        count = COUNTS[self.form.need(*COUNTS)]
        self.form.need("b32")
        return split, count

    def _tcgen05_registers(self, token: str, count: int) -> list[str]:
        registers = self.group(token)
        if len(registers) != count:
            self.form.refuse(f"has {len(registers)} registers for {count} columns")
        return registers

    def _tcgen05_ld(self, at: int, ins: Instruction) -> None:
        split, count = self._tcgen05_shape()
        target, address, *half = self.form.operands(3 if split else 2)
        numbers = tuple(self.register(t, "f4") for t in self._tcgen05_registers(target, count))
        offset = self.integer(half[0]) if split else None
        place = f"{self.address(address, 'u4')}, {offset}"
        self.emit(at, f"T.tmem_load({at}, R, {numbers}, {place}, {self.mask(ins)})")

    def _tcgen05_st(self, at: int, ins: Instruction) -> None:
        split, count = self._tcgen05_shape()
        address, *half, source = self.form.operands(3 if split else 2)
        values = "".join(f"{self.use(v, 'u4')}, " for v in self._tcgen05_registers(source, count))
        offset = self.integer(half[0]) if split else None
        self.emit(at, f"T.tmem_store({at}, {self.address(address, 'u4')}, ({values}), {offset}, {self.mask(ins)})")

    def _tcgen05_mma(self, at: int, ins: Instruction) -> None:
        """.cta_group::1.kind::f16 [d], a or [a], b, instruction descriptor, add to d"""
        self._tcgen05_group()
        self.form.need("kind::f16")
        d, a, b, form, add = self.form.operands(5)
        memory = a.startswith("[")
        left = self.address(a, "u4") if memory else self.use(a, "u8")
        rest = f"{self.use(b, 'u8')}, {self.use(form, 'u4')}, {self.use(add, 'p')}"
        self.emit(at, f"T.tcgen05_mma({at}, {self.address(d, 'u4')}, {memory}, {left}, {rest}, {self.mask(ins)})")

    def _tcgen05_commit(self, at: int, ins: Instruction) -> None:
        self._tcgen05_group()
        self.form.need("mbarrier::arrive::one")
        self.form.need("shared::cluster")  # a block without a cluster: the address is its own
        self.form.need("b64")
        (address,) = self.form.operands(1)
        self.emit(at, f"T.tcgen05_commit({at}, {self.address(address, 'u4')}, {self.mask(ins)})")
