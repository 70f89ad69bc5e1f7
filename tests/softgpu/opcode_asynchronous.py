"""cp.async, TMA, mbarriers, proxy fences and wgmma as calls of the machine."""

import re

from tests.softgpu.parse import Instruction
from tests.softgpu.writer import Writer

COPIES = (4, 8, 16)  # bytes of a cp.async
TILE = re.compile(r"\[\s*([%\w]+)\s*,\s*\{\s*([%\w-]+)\s*,\s*([%\w-]+)\s*\}\s*\]")


class AsynchronousOpcodes(Writer):
    """Mixed into the translator."""

    def do_cp(self, at: int, ins: Instruction) -> None:
        self.form.need("async")
        if self.form.flag("bulk"):
            self._cp_tile(at, ins)
        elif self.form.flag("commit_group"):
            self.form.operands(0)
            self.emit(at, f"T.cp_commit({at}, {self.mask(ins)})")
        elif self.form.flag("wait_group"):
            (allowed,) = self.form.operands(1)
            self.emit(at, f"T.cp_wait({at}, {self.integer(allowed)}, {self.mask(ins)})")
        elif self.form.flag("wait_all"):
            self.form.operands(0)
            self.emit(at, f"T.cp_wait_all({at}, {self.mask(ins)})")
        else:
            self._cp_thread(at, ins)

    def _cp_thread(self, at: int, ins: Instruction) -> None:
        """cp.async.{ca,cg}.shared{::cta}.global [to], [from], bytes{, bytes that are read}"""
        cache = self.form.need("ca", "cg")
        self.form.need("shared", "shared::cta")
        self.form.need("global")
        to, source, size, *present = self.form.operands(3, 4)
        if self.integer(size) not in (COPIES if cache == "ca" else (16,)):
            self.form.refuse(f"copies {size} bytes")
        length = self.use(present[0], "u4") if present else "None"
        places = f"{self.address(to, 'u4')}, {self.address(source, 'u8')}"
        self.emit(at, f"T.cp_async({at}, {places}, {self.integer(size)}, {length}, {self.mask(ins)})")

    def _cp_tile(self, at: int, ins: Instruction) -> None:
        """.tensor.2d.shared::cta.global{.tile}.mbarrier::complete_tx::bytes [to], [map, {x, y}], [bar]"""
        form = self.form
        form.need("tensor")
        form.need("2d")
        form.need("shared::cta", "shared::cluster")  # without a cluster both windows are the same
        form.need("global")
        form.take("tile")  # what is meant without it, too
        form.need("mbarrier::complete_tx::bytes")
        to, source, barrier = form.operands(3)
        tile = TILE.fullmatch(source)
        if not tile:
            form.refuse(f"source {source} is not known")
        where = (
            f"{self.address(to, 'u4')}, {self.use(tile[1], 'u8')}, {self.use(tile[2], 'i4')}, {self.use(tile[3], 'i4')}"
        )
        self.emit(at, f"T.tma_load({at}, {where}, {self.address(barrier, 'u4')}, {self.mask(ins)})")

    def do_fence(self, at: int, ins: Instruction) -> None:
        """Of the fences, that between the generic and the async proxy of shared memory."""
        self.form.need("proxy")
        self.form.need("async")
        self.form.take("shared::cta")  # without it all state spaces are meant
        self.form.operands(0)
        self.emit(at, f"T.fence_proxy({self.mask(ins)})")

    def do_mbarrier(self, at: int, ins: Instruction) -> None:
        action = self.form.need("init", "inval", "arrive", "expect_tx", "test_wait", "try_wait")
        getattr(self, f"_mbarrier_{action}")(at, ins)

    def _mbarrier_space(self) -> None:
        """.shared{::cta}.b64; a state space must be named, for a generic address means something else."""
        self.form.need("shared", "shared::cta")
        self.form.need("b64")

    def _mbarrier_init(self, at: int, ins: Instruction) -> None:
        self._mbarrier_space()
        address, count = self.form.operands(2)
        self.emit(
            at, f"T.mbarrier_init({at}, {self.address(address, 'u4')}, {self.use(count, 'u4')}, {self.mask(ins)})"
        )

    def _mbarrier_inval(self, at: int, ins: Instruction) -> None:
        self._mbarrier_space()
        (address,) = self.form.operands(1)
        self.emit(at, f"T.mbarrier_inval({at}, {self.address(address, 'u4')}, {self.mask(ins)})")

    def _mbarrier_arrive(self, at: int, ins: Instruction) -> None:
        """arrive{.expect_tx}{.release.cta}.shared{::cta}.b64 _, [bar]{, arrivals or bytes}"""
        expects = self.form.flag("expect_tx")
        self._mbarrier_order("release")
        self._mbarrier_space()
        state, address, *number = self.form.operands(3 if expects else 2, 3)
        if state != "_":
            self.form.refuse("the state of an mbarrier is asked for")
        text = self.use(number[0], "u4") if number else "None"
        extra = f"{text}, None" if expects else f"None, {text}"
        self.emit(at, f"T.mbarrier_arrive({at}, {self.address(address, 'u4')}, {extra}, {self.mask(ins)})")

    def _mbarrier_expect_tx(self, at: int, ins: Instruction) -> None:
        """expect_tx.relaxed.cta.shared{::cta}.b64 [bar], bytes"""
        if self.form.flag("relaxed"):
            self.form.need("cta")
        self._mbarrier_space()
        address, number = self.form.operands(2)
        self.emit(
            at, f"T.mbarrier_expect({at}, {self.address(address, 'u4')}, {self.use(number, 'u4')}, {self.mask(ins)})"
        )

    def _mbarrier_order(self, what: str) -> None:
        """{.release.cta} or {.acquire.cta}: what is meant without them, too."""
        if self.form.flag(what):
            self.form.need("cta")

    def _mbarrier_test_wait(self, at: int, ins: Instruction) -> None:
        done, arguments = self._mbarrier_wait_form(2)
        self.put(at, ins, done, f"T.mbarrier_test_wait({at}, {arguments}, {self.mask(ins)})", "p")

    def _mbarrier_try_wait(self, at: int, ins: Instruction) -> None:
        done, arguments = self._mbarrier_wait_form(3)  # how long to wait at most is a hint
        self.emit(at, f"w = T.mbarrier_try_wait({at}, F, {arguments}, {self.mask(ins)})")
        self.emit(at, "if w is None: return None")
        self.put(at, ins, done, "w", "p")
        self.emit(at, f"return {at + 1}")

    def _mbarrier_wait_form(self, most: int) -> tuple[str, str]:
        """.parity{.acquire.cta}.shared{::cta}.b64 done, [bar], parity: the predicate; address and parity."""
        self.form.need("parity")
        self._mbarrier_order("acquire")
        self._mbarrier_space()
        done, address, parity = self.form.operands(3, most + 1)[:3]
        return done, f"{self.address(address, 'u4')}, {self.use(parity, 'u4')}"

    def do_wgmma(self, at: int, ins: Instruction) -> None:
        action = self.form.need("fence", "commit_group", "wait_group", "mma_async")
        self.form.need("sync")
        self.form.need("aligned")
        if ins.guard:
            self.form.refuse("is executed under a predicate")
        if action == "fence":
            self.form.operands(0)
            self.emit(at, f"T.wgmma_fence({at}, R, m)")
        elif action == "commit_group":
            self.form.operands(0)
            self.emit(at, f"T.wgmma_commit({at}, m)")
        elif action == "wait_group":
            (allowed,) = self.form.operands(1)
            self.emit(at, f"T.wgmma_wait({at}, R, {self.integer(allowed)}, m)")
        else:
            self._wgmma_product(at)

    def _wgmma_product(self, at: int) -> None:
        """.m64nNk16.f32.KIND.KIND {d}, a, b, add to d, 1, 1{, A transposed}, B transposed"""
        n = self._wgmma_columns()
        kind = self._wgmma_kind()
        d, a, b, add, *numbers = self.form.operands(7, 8)
        registers = tuple(self.register(t, "f4") for t in self.group(d))
        left = self.group(a) if a.startswith("{") else []
        if len(registers) != n // 2 or len(left) not in (0, 4) or len(numbers) != (3 if left else 4):
            self.form.refuse("has a wrong number of operands or registers")
        signs, transposed = [self.integer(t) for t in numbers[:2]], [self.integer(t) for t in numbers[2:]]
        if signs != [1, 1] or any(t not in (0, 1) for t in transposed):
            self.form.refuse(f"operands are scaled or transposed by {signs + transposed}")
        source = tuple(self.program.number[t] for t in left) if left else self.use(a, "u8")
        pair = (0, *transposed)[-2:]
        scale = self.use(add, "p") if add in self.kernel.registers else bool(self.integer(add))
        self.emit(
            at, f"T.wgmma({at}, R, {n}, '{kind}', {registers}, {source}, {self.use(b, 'u8')}, {scale}, {pair}, m)"
        )

    def _wgmma_columns(self) -> int:
        shape = re.fullmatch(r"m64n(\d+)k16", self.form.left[0])
        n = int(shape[1]) if shape else 0
        if n % 8 or not 8 <= n <= 256:
            self.form.refuse(f"shape {self.form.left[0]} is not known")
        self.form.take(self.form.left[0])
        return n

    def _wgmma_kind(self) -> str:
        self.form.need("f32")
        kind = self.form.need("f16", "bf16")
        self.form.need(kind)
        return kind
