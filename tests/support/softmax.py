"""`queue_softmax` in fp64, and how far an answer may be from it."""

import torch
from torch import Tensor

from bingo.kernels import queue_softmax
from tests.support.naive import unit_rows

T = 0.2
SHAPES = [(0, 5, 16), (1, 1, 16), (3, 7, 32), (65, 257, 64), (64, 256, 128), (130, 301, 48), (2, 130, 256)]


def oracle(q: Tensor, queue: Tensor, temperature: float, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both outputs in fp64, materialised; values: averaged in place of the queue's keys."""
    logits = torch.einsum("rc,kc->rk", q.double(), queue.double()) / temperature
    averaged = (queue if values is None else values).double()
    return torch.logsumexp(logits, 1), torch.einsum("rk,kd->rd", torch.softmax(logits, 1), averaged)


def same_dtype_torch(
    q: Tensor, queue: Tensor, temperature: float, values: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What plain PyTorch gives when everything stays in the input's dtype: the error that a kernel may not exceed."""
    logits = (q @ queue.T) / temperature
    return torch.logsumexp(logits, 1), torch.softmax(logits, 1) @ (queue if values is None else values)


def worst(ours: Tensor, truth: Tensor) -> float:
    return (ours.double() - truth).abs().max().item() if truth.numel() else 0.0


def check_accuracy(impl: str, dtype: torch.dtype, rows: int, keys: int, channels: int, *, apart: bool = False) -> None:
    """Both outputs are no further from fp64 than PyTorch's in the same dtype; apart: values are not the keys."""
    q, queue = unit_rows(rows, channels, 0, dtype), unit_rows(keys, channels, 1, dtype)
    values = unit_rows(keys, channels, 2, dtype) if apart else None
    ours, truth = queue_softmax(q, queue, T, impl=impl, values=values), oracle(q, queue, T, values)
    peer = same_dtype_torch(q, queue, T, values)
    # The fused kernels round q / T once to the queue's dtype: half a unit in the last place of each logit's terms.
    rounding = torch.finfo(dtype).eps / 2 / T if impl == "triton" else 0.0
    for mine, theirs, exact in zip(ours, peer, truth, strict=True):
        assert mine.dtype == torch.float32
        assert mine.shape == exact.shape
        assert worst(mine, exact) <= worst(theirs, exact) + 2e-6 + rounding
