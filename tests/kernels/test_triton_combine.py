"""The partials of any split of the queue join into the whole."""

import pytest
import torch

from bingo.kernels import dispatch
from bingo.kernels.request import Request
from bingo.kernels.triton_combine import combine
from tests.support.naive import unit_rows
from tests.support.softmax import oracle, worst

T = 0.2


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 1000])
def test_any_split_of_the_queue_gives_the_same(parts: int) -> None:
    q, queue = unit_rows(5, 16, 0, torch.float32), unit_rows(1333, 16, 1, torch.float32)
    request = Request(q, queue, T, "triton", unit_rows=True)
    joined = combine(*dispatch.partials(request, splits=parts), 16, grad=True)
    for mine, exact in zip(joined, oracle(q, queue, T), strict=True):
        assert worst(mine, exact) < 2e-6
