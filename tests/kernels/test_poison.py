"""The poison in fresh memory is in force, and shows in every op whose kernel leaves its outputs as they were."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bingo.kernels import NewKeys, bag_loss, queue_logsumexp, queue_softmax, triton_augment, triton_combine, triton_knn
from bingo.kernels.augment import augment, cutmix
from bingo.kernels.knn import nearest
from bingo.kernels.view_params import ViewParams
from tests.support.naive import DEVICE, unit_rows

Q, QUEUE = unit_rows(6, 16, 0, torch.float32), unit_rows(40, 16, 1, torch.float32)


def test_fresh_memory_is_poisoned() -> None:
    whole = torch.zeros(2, 3, device=DEVICE)
    for fresh in (torch.empty(3), torch.empty_like(whole), whole.new_empty(4), torch.empty_strided((2,), (1,))):
        assert fresh.isnan().all()
    assert whole.new_empty(2, dtype=torch.int32).tolist() == [2**31 - 1] * 2
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.from_numpy(np.empty(8, np.uint8)).view(dtype).isnan().all()
    assert not torch.zeros(3).isnan().any()


class Idle:
    """A kernel that can be launched and does nothing."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **options: None


def views() -> Tensor:
    on, one = np.ones(2, bool), np.ones(2, np.float32)
    params = ViewParams(on, one, one, one, 0 * one, np.tile(np.arange(4), (2, 1)), on, one, on)
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8, device=DEVICE)
    return augment(images, params, mean=(0, 0, 0), std=(1, 1, 1), blur_kernel=3, impl="triton")


def mixed() -> Tensor:
    a, b = Q.view(1, 6, 4, 4), QUEUE[:6].view(1, 6, 4, 4)
    return cutmix(a, b, (0, 0, 2, 2), impl="triton")[0]


def losses() -> Tensor:
    new = NewKeys(Q, torch.zeros(2, dtype=torch.int64, device=DEVICE))
    weights = torch.ones(1, 1, device=DEVICE)
    return bag_loss(Q, Q[:, None], weights, QUEUE, 0.2, impl="triton", new_keys=new)


CASES: dict[str, tuple[Any, tuple[str, ...], Callable[[], Tensor]]] = {
    "queue_softmax": (
        triton_combine,
        ("combine_kernel",),
        lambda: torch.cat([x.flatten() for x in queue_softmax(Q, QUEUE, 0.2, impl="triton")]),
    ),
    "queue_logsumexp": (triton_combine, ("combine_kernel",), lambda: queue_logsumexp(Q, QUEUE, 0.2, impl="triton")),
    "bag_loss": (triton_combine, ("bag_kernel",), losses),
    "nearest": (triton_knn, ("nearest_kernel",), lambda: nearest(Q, QUEUE, 3, impl="triton")[0]),
    "augment": (triton_augment, ("colour_kernel", "blur_columns_kernel"), views),
    "cutmix": (triton_augment, ("cutmix_kernel",), mixed),
}


@pytest.mark.parametrize("op", CASES)
def test_an_output_that_is_not_written_shows(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, kernels, call = CASES[op]
    assert not call().isnan().any()
    for kernel in kernels:
        monkeypatch.setattr(module, kernel, Idle())
    assert call().isnan().all()
