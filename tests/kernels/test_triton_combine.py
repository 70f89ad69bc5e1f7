"""The partials of any split of the queue join into the whole."""

import math

import pytest
import torch

from bingo.kernels import dispatch
from bingo.kernels.request import Request
from bingo.kernels.triton_combine import combine, combine_bags
from tests.support.naive import DEVICE, unit_rows
from tests.support.on_gpu import on_gpu
from tests.support.softmax import oracle, worst

T = 0.2


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 1000])
def test_any_split_of_the_queue_gives_the_same(parts: int) -> None:
    q, queue = unit_rows(5, 16, 0, torch.float32), unit_rows(1333, 16, 1, torch.float32)
    request = Request(q, queue, T, "triton", unit_rows=True)
    joined = combine(*dispatch.partials(request, splits=parts), 16, grad=True)
    for mine, exact in zip(joined, oracle(q, queue, T), strict=True):
        assert worst(mine, exact) < 2e-6


@pytest.mark.parametrize(("arch", "channels", "positives"), [(80, 32, 4), (90, 64, 2), (100, 48, 1)])
def test_threads_agree_on_what_they_store(arch: int, channels: int, positives: int) -> None:
    """Which of different values would stay is open, and with it whether the same inputs give the same bits."""
    q, keys = unit_rows(4, channels, 0, torch.float32), unit_rows(2 * positives, channels, 1, torch.float32)
    lse_SR = 3 * unit_rows(4, 19, 2, torch.float32).T.contiguous()
    mean_SRC = unit_rows(19 * 4, channels, 3, torch.float32).reshape(19, 4, channels)
    weights_VM = torch.full((2, positives), 0.5, device=DEVICE)
    request = Request(2 * q, keys, T, "triton", unit_rows=True, normalize=True)
    with on_gpu(arch, differing="fault"):
        mean_RC = combine(lse_SR, mean_SRC, channels, grad=True)[1]
        loss_R, _ = combine_bags(lse_SR, mean_SRC, request, keys.reshape(2, positives, channels), weights_VM, None)
    shares_SR = torch.softmax(lse_SR.double() * math.log(2), 0)
    assert worst(mean_RC, torch.einsum("sr,src->rc", shares_SR, mean_SRC.double())) < 2e-6
    scores_RM = (
        torch.einsum("rc,rmc->rm", q.double(), keys.double().reshape(2, positives, channels).repeat(2, 1, 1)) / T
    )
    lse_R1 = torch.logsumexp(lse_SR.double() * math.log(2), 0)[:, None]
    assert worst(loss_R, 0.5 * torch.nn.functional.softplus(lse_R1 - scores_RM).sum(1)) < 2e-5
