"""The portable kernel on devices with a copy engine."""

import pytest
import torch

from bingo.kernels import queue_softmax
from tests.support.naive import DEVICE, unit_rows
from tests.support.on_gpu import REAL
from tests.support.softmax import oracle, worst

T = 0.2


@pytest.mark.skipif(REAL, reason="asks for a pretended GPU of compute capability 9.0")
@pytest.mark.parametrize("gpu", [90], indirect=True)
def test_the_copy_engine_is_left_out_where_a_queue_starts_at_an_odd_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bingo.kernels.triton_queue_softmax.TensorDescriptor", None)
    q, flat = unit_rows(3, 16, 0, torch.float16), torch.zeros(1 + 200 * 16, dtype=torch.float16, device=DEVICE)
    queue = flat[1:].view(200, 16).copy_(unit_rows(200, 16, 1, torch.float16))
    assert worst(queue_softmax(q, queue, T, impl="triton")[0], oracle(q, queue, T)[0]) < 1e-3
    with pytest.raises(AttributeError):
        queue_softmax(q, queue.clone(), T, impl="triton")
