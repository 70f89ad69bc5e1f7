"""This GPU's ceilings, measured in the same run: matrix products, copies, exponentials."""

import statistics

import torch
import triton
import triton.language as tl
from torch import Tensor

from bingo.bench.ceilings import COPY_BYTES, copy_seconds, seconds_of
from bingo.bench.kernels.record import Roof
from bingo.roof import matmul_roof

SAMPLES = 9
EXP_ROUNDS = 4096
EXP_BLOCK = 1024


@triton.jit
def exp_kernel(x_ptr, rounds, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Chains of x = 2^-x in registers, one per element: nothing but the exponential unit can hold it up."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets)
    for _ in range(rounds):
        x = tl.exp2(-x)
    tl.store(x_ptr + offsets, x)


def measure_roof(device: torch.device) -> Roof:
    """Matrix products, copies and exponentials: medians per second, with every sample (seconds)."""
    size, matmul = COPY_BYTES["cuda"], matmul_roof(device, torch.bfloat16)
    copy = copy_seconds(device, samples=SAMPLES)
    x = torch.rand(32 * EXP_BLOCK * multiprocessors(device), device=device)
    exp = seconds_of(device, lambda: run_exp(x, EXP_ROUNDS), 1, SAMPLES)
    return {
        "matmul_flops": matmul.flops,
        "copy_bytes": 2 * size / statistics.median(copy),
        "exp_per_second": x.numel() * EXP_ROUNDS / statistics.median(exp),
        "seconds": {"matmul": matmul.seconds, "copy": copy, "exp": exp},
        "work": f"bf16 {matmul.side}^3 on random data; {size} bytes, read and written; exp2 in registers",
    }


def run_exp(x: Tensor, rounds: int) -> None:
    """x: fp32, a multiple of EXP_BLOCK elements; replaced by `rounds` steps of 2^-x."""
    exp_kernel[(x.numel() // EXP_BLOCK,)](x, rounds, BLOCK=EXP_BLOCK)


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
