"""The implementations in plain PyTorch against fp64."""

import pytest
import torch

from bingo.kernels import queue_softmax
from tests.support.naive import unit_rows
from tests.support.softmax import oracle, worst

T = 0.2


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize(("rows", "keys", "channels"), [(0, 3, 5), (1, 1, 1), (1100, 4500, 7)])
def test_fp64_is_exact(impl: str, rows: int, keys: int, channels: int) -> None:
    q, queue = unit_rows(rows, channels, 0), unit_rows(keys, channels, 1)
    torch.testing.assert_close(queue_softmax(q, queue, T, impl=impl), oracle(q, queue, T), rtol=1e-12, atol=1e-12)


def test_chunked_takes_bfloat16() -> None:
    q, queue = unit_rows(5, 16, 0, torch.bfloat16), unit_rows(99, 16, 1, torch.bfloat16)
    for mine, exact in zip(queue_softmax(q, queue, T), oracle(q, queue, T), strict=True):
        assert mine.dtype == torch.float32
        assert worst(mine, exact) < 2e-6
