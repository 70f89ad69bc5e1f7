"""This GPU's ceilings, measured in the same run: matrix products, copies, exponentials."""

import statistics
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from bingo.bench.kernels.record import Roof

MATMUL = 8192
COPY_BYTES = 1 << 30
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
    a, b = (torch.randn(MATMUL, MATMUL, device=device, dtype=torch.bfloat16) for _ in range(2))
    matmul = _seconds(lambda: torch.mm(a, b), 3)
    source = torch.randint(256, (COPY_BYTES,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = _seconds(lambda: target.copy_(source), 3)
    x = torch.rand(32 * EXP_BLOCK * multiprocessors(device), device=device)
    exp = _seconds(lambda: run_exp(x, EXP_ROUNDS), 1)
    return {
        "matmul_flops": 2 * MATMUL**3 / statistics.median(matmul),
        "copy_bytes": 2 * COPY_BYTES / statistics.median(copy),
        "exp_per_second": x.numel() * EXP_ROUNDS / statistics.median(exp),
        "seconds": {"matmul": matmul, "copy": copy, "exp": exp},
        "work": f"bf16 {MATMUL}^3 on random data; {COPY_BYTES} bytes, read and written; exp2 in registers",
    }


def run_exp(x: Tensor, rounds: int) -> None:
    """x: fp32, a multiple of EXP_BLOCK elements; replaced by `rounds` steps of 2^-x."""
    exp_kernel[(x.numel() // EXP_BLOCK,)](x, rounds, BLOCK=EXP_BLOCK)


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _seconds(run: Callable[[], object], calls: int) -> list[float]:
    """Seconds of one call, SAMPLES times, each over `calls` calls; the first two samples are dropped."""
    samples = []
    for _ in range(SAMPLES + 2):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) / 1e3 / calls)
    return samples[2:]
