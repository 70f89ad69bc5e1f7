"""Lines of PTX, and the run, of tests of tensor memory; beside `snippets.py`."""

from typing import Any

import numpy as np
import torch

from tests.softgpu.harness import run
from tests.softgpu.operands import Operand, small
from tests.softgpu.snippets import ADDRESS

SIZE = 24576  # bytes of shared memory for operands
SLOT, BAR = SIZE, SIZE + 16  # where the address of the columns and the mbarrier lie
ONE_WARP = "mov.u32 %r60, %warpid; setp.eq.u32 %p5, %r60, 0;\n"
BEFORE, AFTER = "tcgen05.fence::before_thread_sync;\n", "tcgen05.fence::after_thread_sync;\n"
LOADED, STORED = "tcgen05.wait::ld.sync.aligned;\n", "tcgen05.wait::st.sync.aligned;\n"
COMMIT = f"@%p7 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r63+{BAR}];\n"


def columns(count: int = 512) -> tuple[str, str]:
    """Warp 0 asks for columns, whose address all threads have in %r50; and gives them back."""
    group = "cta_group::1.sync.aligned"
    start = f"{ADDRESS}\n{ONE_WARP}@%p5 tcgen05.alloc.{group}.shared::cta.b32 [%r63+{SLOT}], {count};\nbar.sync 0;\n"
    start += f"ld.shared.b32 %r50, [%r63+{SLOT}];\nbar.sync 0;\n@%p5 tcgen05.relinquish_alloc_permit.{group};\n"
    return start, f"bar.sync 0;\n@%p5 tcgen05.dealloc.{group}.b32 %r50, {count};\n"


# The address of a warp's own lanes, in %r51.
OWN = "mov.u32 %r51, %warpid; and.b32 %r51, %r51, 3; shl.b32 %r51, %r51, 21; add.u32 %r51, %r51, %r50;\n"


def registers(count: int, name: str = "v") -> str:
    return "{" + ", ".join(f"%{name}{i}" for i in range(count)) + "}"


def load(count: int, half: int | None = None, address: str = "%r51", name: str = "v") -> str:
    shape, end = ("32x32b", "") if half is None else ("16x32bx2", f", {half}")
    return f"tcgen05.ld.sync.aligned.{shape}.x{count}.b32 {registers(count, name)}, [{address}]{end};\n"


def store(count: int, half: int | None = None, address: str = "%r51", name: str = "u") -> str:
    shape, middle = ("32x32b", "") if half is None else ("16x32bx2", f"{half}, ")
    return f"tcgen05.st.sync.aligned.{shape}.x{count}.b32 [{address}], {middle}{registers(count, name)};\n"


def execute(body: str, inputs: dict[str, Any], outputs: dict[str, Any], threads: int = 128, held: int = 512,
            **options: Any) -> dict[str, np.ndarray]:  # fmt: skip
    start, end = columns(held)
    given = inputs | {name: np.zeros(threads, dtype) for name, dtype in outputs.items()}
    return run(start + OWN + body + end, given, outputs, threads=threads, arch=100, shared=SIZE + 64,
               **{"strict": True, **options})  # fmt: skip


def form(m: int, n: int, kind: str = "bf16", transposed: tuple[bool, bool] = (False, False)) -> int:
    """The instruction descriptor, by the manual's table."""
    code = {"f16": 0, "bf16": 1}[kind]
    return 1 << 4 | code << 7 | code << 10 | transposed[0] << 15 | transposed[1] << 16 | n // 8 << 17 | m // 16 << 24


def mma(d: str = "%r50", a: str = "%da", b: str = "%db", add: str = "%p0", instruction: str = "%form") -> str:
    return f"@%p7 tcgen05.mma.cta_group::1.kind::f16 [{d}], {a}, {b}, {instruction}, {add};\n"


START = "setp.eq.u32 %p0, 1, 0; setp.eq.u32 %p1, 1, 1;\n"


def bits(numbers: np.ndarray, kind: str = "bf16") -> np.ndarray:
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[kind]
    return torch.from_numpy(np.ascontiguousarray(numbers)).to(dtype).view(torch.int16).numpy().view("u2")


def operands(m: int, n: int, width: int = 128, transposed: tuple[bool, bool] = (False, False), kind: str = "bf16",
             k: int = 16) -> tuple[np.ndarray, np.ndarray, Operand, Operand]:  # fmt: skip
    rng = np.random.default_rng(n + width)
    left, right = small(rng, m, k), small(rng, n, k)
    return (
        left,
        right,
        Operand(bits(left, kind), width, transposed[0]),
        Operand(bits(right, kind), width, transposed[1], start=16384),
    )
