"""Runs a few lines of PTX on given numbers: what the tests of single instructions are written with."""

import math
from typing import Any

import numpy as np

from tests.softgpu.block import launch
from tests.softgpu.memory import GlobalMemory, TensorMap
from tests.softgpu.parse import parse

CLASSES = {2: "b16", 4: "b32", 8: "b64"}
HEAD = """
.version 8.7
.target sm_{arch}a
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry case(
{params}
)
.reqntid {threads}
{{
.reg .pred %p<8>;
.reg .b16 %h<16>;
.reg .b32 %r<64>;
.reg .b64 %d<16>;
"""


def run(body: str, inputs: dict[str, Any], outputs: dict[str, Any], *, threads: int = 32, arch: int = 90,
        shared: int = 0, grid: tuple[int, int, int] = (1, 1, 1), memory: dict[str, np.ndarray] | None = None,
        maps: dict[str, dict[str, Any]] | None = None, stats: dict[str, Any] | None = None, registers: int = 0,
        **options: Any) -> dict[str, np.ndarray]:  # fmt: skip
    """Run `body` in every thread and return what is then in the registers that `outputs` names.

    inputs: register name (without %) -> a number per thread of the grid, or one number for all; its dtype (bool for a
    predicate, else 2, 4 or 8 bytes) declares the register. outputs: register name -> dtype, declared likewise. One that
    is in both is declared once. %p0-7, %h0-15, %r0-63 and %d0-15 are there for the body (predicates, 16, 32, 64 bits).
    memory: name -> array in global memory; register %NAME holds its address, and the body changes the array itself.
    maps: name -> {"array": name in memory, "box": sizes, "swizzle": 0, 32, 64 or 128}; %NAME holds the tensor map's
    address. shared: bytes of shared memory, from `global_smem` on. stats: takes the record of the launch.
    registers: of a thread (.maxnreg), for setmaxnreg. Other options (policy, seed, races, team_warps, strict) go to
    `block.launch`. Raises what the launch raises.
    """
    memory, maps = memory or {}, maps or {}
    count = threads * math.prod(grid)
    given = {name: np.ascontiguousarray(np.broadcast_to(_stored(value), count)) for name, value in inputs.items()}
    results = {name: np.zeros(count, _stored_type(dtype)) for name, dtype in outputs.items()}
    predicates = {name for name, value in inputs.items() if np.asarray(value).dtype == bool}
    predicates |= {name for name, dtype in outputs.items() if np.dtype(dtype) == bool}
    buffers = {f"in_{n}": a for n, a in given.items()} | {f"out_{n}": a for n, a in results.items()} | memory
    widths = {n: a.dtype.itemsize for n, a in (results | given).items()}
    text = _text(body, given, results, widths, predicates, list(memory), list(maps), list(buffers), arch, threads)
    if registers:
        text = text.replace("\n{", f"\n.maxnreg {registers}\n{{", 1)
    space, parameters = GlobalMemory(), {}
    base = 1 << 32
    for name, array in buffers.items():
        assert array.flags.c_contiguous, f"{name} is not contiguous"
        space.add(base, array.reshape(-1).view(np.uint8), name)
        parameters[name] = base.to_bytes(8, "little")
        base += -(-array.nbytes // 4096) * 4096 + 4096
    for name, form in maps.items():
        parameters[name] = _tensor_map(memory, parameters, **form)
    record = launch(parse(text), space, parameters, shared, grid, **options)
    if stats is not None:
        stats.update(record)
    return {n: a.astype(bool) if n in predicates else a.view(outputs[n]) for n, a in results.items()}


def apply(op: str, result: Any, *operands: Any, **options: Any) -> np.ndarray:
    """What `op %result, %operand, ...;` gives for operands that are broadcast as in NumPy.

    The dtypes of the operands, and `result`, declare the registers. Options are those of `run`.
    """
    arrays = np.broadcast_arrays(*operands)
    count, names = arrays[0].size, [f"x{i}" for i in range(len(arrays))]
    threads = -(-count // 32) * 32
    inputs = {n: np.resize(a.reshape(-1), threads) for n, a in zip(names, arrays, strict=True)}
    words = ", ".join(f"%{name}" for name in ("out", *names))
    found = run(f"{op} {words};", inputs, {"out": result}, threads=threads, **options)["out"]
    return found[:count].reshape(arrays[0].shape)


def _stored(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.uint16) if array.dtype == bool else array


def _stored_type(dtype: Any) -> np.dtype:
    return np.dtype(np.uint16 if np.dtype(dtype) == bool else dtype)


def _tensor_map(memory: dict[str, np.ndarray], parameters: dict[str, Any], array: str, box: tuple[int, ...],
                swizzle: int = 0) -> TensorMap:  # fmt: skip
    data = memory[array]
    strides = tuple(s // data.itemsize for s in data.strides)
    return TensorMap(int.from_bytes(parameters[array], "little"), data.shape, strides, box, data.itemsize, swizzle)


def _text(body: str, given: dict, results: dict, widths: dict[str, int], predicates: set[str], memory: list[str],
          maps: list[str], buffers: list[str], arch: int, threads: int) -> str:  # fmt: skip
    params = [f".param .u64 {name}" for name in buffers]
    params += [f".param .align 64 .b8 {name}[128]" for name in maps]
    lines = [HEAD.format(arch=arch, threads=threads, params=",\n".join(params))]
    lines += [f".reg .{'pred' if n in predicates else CLASSES[size]} %{n};" for n, size in widths.items()]
    lines += [f".reg .b64 %{n};" for n in memory + maps]
    lines += [f"ld.param.b64 %{n}, [{n}];" for n in memory] + [f"mov.b64 %{n}, {n};" for n in maps]
    lines += [
        ".reg .b32 %number, %wide, %ctaid; .reg .b64 %at; .reg .b16 %flag;",
        "mov.u32 %number, %tid.x; mov.u32 %wide, %ntid.x;",
        *_block_number(),
        "mad.lo.s32 %number, %ctaid, %wide, %number;",
    ]
    for name in given:
        lines += _place(f"in_{name}", widths[name])
        if name in predicates:
            lines.append(f"ld.global.b16 %flag, [%at]; setp.ne.b16 %{name}, %flag, 0;")
        else:
            lines.append(f"ld.global.{CLASSES[widths[name]]} %{name}, [%at];")
    lines.append(body)
    for name in results:
        lines += _place(f"out_{name}", widths[name])
        if name in predicates:
            lines.append(f"selp.b16 %flag, 1, 0, %{name}; st.global.b16 [%at], %flag;")
        else:
            lines.append(f"st.global.{CLASSES[widths[name]]} [%at], %{name};")
    return "\n".join([*lines, "ret;", "}"]) + "\n"


def _block_number() -> list[str]:
    """The number of the block, its x running fastest."""
    lines = [".reg .b32 %axis, %size;", "mov.u32 %ctaid, %ctaid.z;"]
    for axis in "yx":
        lines.append(
            f".reg .b32 %n{axis}, %c{axis}; mov.u32 %n{axis}, %nctaid.{axis}; mov.u32 %c{axis}, %ctaid.{axis};"
        )
        lines.append(f"mad.lo.s32 %ctaid, %ctaid, %n{axis}, %c{axis};")
    return lines


def _place(buffer: str, width: int) -> list[str]:
    """This thread's address in a buffer, in %at."""
    return [f"ld.param.b64 %at, [{buffer}]; mad.wide.u32 %at, %number, {width}, %at;"]
