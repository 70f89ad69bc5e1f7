"""Launch arguments of Triton's types as the bytes of PTX parameters, and the memory of the tensors among them."""

import ctypes
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from tests.softgpu.memory import GlobalMemory
from tests.softgpu.parse import Unsupported

INTEGERS = {f"{sign}{bits}": bits // 8 for sign in "iu" for bits in (8, 16, 32, 64)} | {"i1": 1, "u1": 1}
FLOATS = {"fp16": "<e", "fp32": "<f", "f32": "<f", "fp64": "<d"}


def flat(values: Iterable[Any]) -> Iterator[Any]:
    """Triton passes tuples of arguments as tuples; the code has them one after the other."""
    for value in values:
        if isinstance(value, tuple):
            yield from flat(value)
        else:
            yield value


def scalar(kind: str, value: Any) -> bytes:
    """A number as its parameter holds it, little-endian; integers that do not fit are an error, as in Triton."""
    if kind in INTEGERS:
        size, number = INTEGERS[kind], int(value)
        return number.to_bytes(size, "little", signed=number < 0)
    if kind == "bf16":
        return torch.tensor(float(value), dtype=torch.bfloat16).view(torch.int16).numpy().tobytes()
    if kind in FLOATS:
        return struct.pack(FLOATS[kind], float(value))
    raise Unsupported(f"an argument of type {kind}")


def pack(parameters: dict[str, tuple[str, int]], values: list[Any]) -> dict[str, Any]:
    """The kernel's parameters by name: bytes, or a tensor map as it is.

    parameters: type and bytes of each, as parsed. Triton adds pointers to scratch memory at the end, which is refused
    where a kernel needs any: they are null.
    """
    filled = [*values, *[0] * (len(parameters) - len(values))]
    packed = {}
    for (name, (_, size)), value in zip(parameters.items(), filled, strict=True):
        packed[name] = value.to_bytes(size, "little") if isinstance(value, int) else value
        if isinstance(value, bytes) and len(value) != size:
            raise Unsupported(f"{len(value)} bytes for the parameter {name} of {size}")
    return packed


def memory_of(tensors: list[torch.Tensor]) -> GlobalMemory:
    """The storages of the tensors; what overlaps is one allocation."""
    pieces: list[list[Any]] = []  # first byte, end, names
    named = [(tensor.untyped_storage(), f"tensor {i} {tuple(tensor.shape)}") for i, tensor in enumerate(tensors)]
    for storage, name in sorted(named, key=lambda pair: pair[0].data_ptr()):
        begin, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        if begin == end:
            continue
        if pieces and begin < pieces[-1][1]:
            pieces[-1][1] = max(pieces[-1][1], end)
            pieces[-1][2].append(name)
        else:
            pieces.append([begin, end, [name]])
    memory = GlobalMemory()
    for begin, end, names in pieces:
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * (end - begin)).from_address(begin))
        memory.add(begin, raw, ", ".join(names))
    return memory
