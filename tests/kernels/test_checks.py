"""What all ops over the queue refuse: one sentence each."""

import math

import pytest
import torch
from torch import Tensor

from bingo.kernels import queue_logsumexp, queue_ranks, queue_softmax
from tests.support.naive import DEVICE, unit_rows

T = 0.2
good = unit_rows(4, 16, 0, torch.float32)


@pytest.mark.parametrize(
    ("q", "queue", "message"),
    [
        (good[0], good, r"q must be \(R, C\) and queue \(K, C\), not \(16,\) and \(4, 16\)"),
        (good, good[:, :8].contiguous(), r"not \(4, 16\) and \(4, 8\)"),
        (good, good[:0], "at least one key and one channel"),
        (good[:, :0], good[:, :0], "at least one key and one channel"),
        (good.int(), good.int(), "q is torch.int32; supported are float16"),
        (good, good.double(), "q is torch.float32 but queue is torch.float64"),
        (good, good.to("meta"), "q is on .* but queue is on meta"),
        (good, unit_rows(16, 16, 0, torch.float32).T, "queue must be contiguous with keys in rows"),
        (good, good.clone().requires_grad_(), "queue requires a gradient"),
    ],
)
@pytest.mark.parametrize("impl", ["reference", "chunked", "triton", "auto"])
def test_bad_tensors(q: Tensor, queue: Tensor, message: str, impl: str) -> None:
    with pytest.raises(ValueError, match=message):
        queue_softmax(q, queue, T, impl=impl)
    with pytest.raises(ValueError, match=message):
        queue_logsumexp(q, queue, T, impl=impl)


IDS, NONE = torch.arange(4, device=DEVICE), torch.zeros(2, 1, dtype=torch.int64, device=DEVICE)


@pytest.mark.parametrize(
    ("exclude", "ids", "message"),
    [
        (NONE, None, "exclude is given without queue_ids"),
        (NONE[:, 0], IDS, r"exclude is \(2,\); it must be \(G, E\) with the 4 rows of q a multiple of G"),
        (torch.zeros(3, 1, dtype=torch.int64), IDS, r"exclude is \(3, 1\)"),
        (NONE[:0], IDS, r"exclude is \(0, 1\)"),
        (NONE.int(), IDS, "exclude is torch.int32 on .*must be contiguous int64"),
        (NONE.to("meta"), IDS, "exclude is torch.int64 on meta"),
        (NONE, IDS[:3], r"queue_ids is \(3,\); it must be \(4,\), one id per key"),
        (NONE, IDS.float(), "queue_ids is torch.float32"),
        (NONE, IDS.to("meta"), "queue_ids is torch.int64 on meta"),
    ],
)
@pytest.mark.parametrize("impl", ["reference", "chunked", "triton"])
def test_bad_ids(exclude: Tensor, ids: Tensor | None, message: str, impl: str) -> None:
    for op in (queue_softmax, queue_logsumexp):
        with pytest.raises(ValueError, match=message):
            op(good, good, T, impl=impl, exclude=exclude, queue_ids=ids)
    with pytest.raises(ValueError, match=message):
        queue_ranks(good, good, good[:, :1], impl=impl, exclude=exclude, queue_ids=ids)


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.inf, math.nan])
def test_bad_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        queue_softmax(good, good, temperature)


def test_temperature_as_a_tensor() -> None:
    with pytest.raises(ValueError, match="no gradient for it"):
        queue_softmax(good, good, torch.tensor(0.2))  # type: ignore[arg-type]
