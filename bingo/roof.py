"""What matrix products reach on a device: the ceiling against which the use of its arithmetic is measured."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

SIDES = {"cuda": 8192, "cpu": 1024}
"""Rows of the square matrices: large enough for the device, and done in little time."""
SAMPLES = 9


@dataclass(frozen=True)
class MatmulRoof:
    """Median FLOP/s of square products of random data; a multiply-add is two.

    seconds: of one product, each sample; tf32: whether fp32 products could be rounded so, as convolutions are.
    """

    flops: float
    seconds: list[float]
    side: int
    dtype: torch.dtype
    tf32: bool


def matmul_roof(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.2, side: int = 0) -> MatmulRoof:
    """Measure for about so long, after one warm-up sample. side: rows; 0: what suits the device.

    On a CPU with the threads that torch has here. `torch.OutOfMemoryError` where three matrices find no room.
    """
    side = side or SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with _as_convolutions(device) as tf32:

        def once() -> None:
            torch.mm(a, b, out=out)

        first = _timed(once, 1, device)
        each = _timed(once, 1, device)
        slow = first > seconds
        calls = 1 if slow else max(1, round(seconds / SAMPLES / max(each, 1e-9)))
        samples = [_timed(once, calls, device) for _ in range(3 if slow else SAMPLES)]
    return MatmulRoof(2 * side**3 / statistics.median(samples), samples, side, dtype, tf32)


def _timed(call: Callable[[], None], calls: int, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / calls


@contextlib.contextmanager
def _as_convolutions(device: torch.device) -> Iterator[bool]:
    """Let fp32 products use TF32 on a GPU if its convolutions, which do most of the work, may; whether they may."""
    if device.type != "cuda" or not torch.backends.cudnn.allow_tf32:
        yield False
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield True
    finally:
        torch.set_float32_matmul_precision(before)
