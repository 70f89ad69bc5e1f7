"""The portable kernel on devices with a copy engine, which the interpreter poses as."""

import pytest
import torch

from bingo.kernels import queue_softmax, splits
from bingo.kernels.triton_queue_softmax import is_interpreted
from tests.support.naive import DEVICE, unit_rows
from tests.support.softmax import SHAPES, check_accuracy, oracle, worst

T = 0.2


@pytest.fixture
def sm_90(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter follows the descriptors of the variant for sm_90 and later."""
    if not is_interpreted():
        pytest.skip("only the interpreter can pose as another device")
    pose = lambda device: (90, splits.INTERPRETER_SMS)  # noqa: E731
    monkeypatch.setattr("bingo.kernels.triton_queue_softmax.device_limits", pose)


@pytest.mark.usefixtures("sm_90")
def test_the_copy_engine_is_left_out_where_a_queue_starts_at_an_odd_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bingo.kernels.triton_queue_softmax.TensorDescriptor", None)
    q, flat = unit_rows(3, 16, 0, torch.float16), torch.zeros(1 + 200 * 16, dtype=torch.float16, device=DEVICE)
    queue = flat[1:].view(200, 16).copy_(unit_rows(200, 16, 1, torch.float16))
    assert worst(queue_softmax(q, queue, T, impl="triton")[0], oracle(q, queue, T)[0]) < 1e-3
    with pytest.raises(AttributeError):
        queue_softmax(q, queue.clone(), T, impl="triton")


@pytest.mark.usefixtures("sm_90")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tiles_through_the_copy_engine(dtype: torch.dtype) -> None:
    for rows, keys, channels in SHAPES[1:]:
        check_accuracy("triton", dtype, rows, keys, channels)
