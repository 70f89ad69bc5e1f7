"""New keys enter the ring once the queue was read, and no graph with them."""

import pytest
import torch

from bingo.kernels import NewKeys, bag_loss
from tests.support.bag_inputs import draw
from tests.support.naive import DEVICE, unit_rows

T = 0.2
IMPLS = ["reference", "chunked", "triton"]


@pytest.mark.parametrize("impl", IMPLS)
def test_no_rows_still_write_the_ring(impl: str) -> None:
    inputs = draw(1, 3, 1, 20, 16, torch.float32)
    cursor, fresh = torch.zeros(2, dtype=torch.int64, device=DEVICE), unit_rows(2, 16, 9, torch.float32)
    inputs["q"] = inputs["q"][:0].requires_grad_()
    loss = bag_loss(**inputs, temperature=T, impl=impl, new_keys=NewKeys(fresh, cursor))
    assert loss.shape == (0,)
    assert torch.autograd.grad(loss.sum(), inputs["q"])[0].shape == (0, 16)
    torch.testing.assert_close(inputs["queue"][:2], fresh)
    assert cursor.tolist() == [2, 0]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("count", [1, 7, 10, 25])
@pytest.mark.parametrize("with_ids", [False, True])
def test_new_keys_enter_the_ring_after_the_queue_was_read(impl: str, count: int, with_ids: bool) -> None:
    inputs = draw(2, 3, 1, 10, 16, torch.float32)
    untouched = bag_loss(**inputs, temperature=T, normalize=True, impl=impl)
    ids = torch.arange(10, device=DEVICE) if with_ids else None
    cursor = torch.tensor([7, 0], device=DEVICE)
    rows, slots = inputs["queue"].clone(), list(range(10))
    history = unit_rows(3 * count, 16, 9, torch.float32)
    for step in range(3):
        fresh = torch.arange(100 + step * count, 100 + (step + 1) * count, device=DEVICE) if with_ids else None
        new = NewKeys(history[step * count : (step + 1) * count], cursor, fresh)
        before = inputs["queue"].clone()
        loss = bag_loss(**inputs, temperature=T, normalize=True, impl=impl, queue_ids=ids, new_keys=new)
        expected = bag_loss(**{**inputs, "queue": before}, temperature=T, normalize=True, impl=impl)
        torch.testing.assert_close(loss, expected, rtol=0, atol=0)
        if step == 0:
            torch.testing.assert_close(loss, untouched, rtol=0, atol=0)
        for i in range(count):
            slot = (7 + step * count + i) % 10
            rows[slot], slots[slot] = history[step * count + i], 100 + step * count + i
        torch.testing.assert_close(inputs["queue"], rows, rtol=0, atol=0)
        assert cursor.tolist() == [(7 + (step + 1) * count) % 10, 0]
        assert ids is None or ids.tolist() == slots


@pytest.mark.parametrize("impl", IMPLS)
def test_the_queue_takes_values_and_no_graph(impl: str) -> None:
    inputs = draw(2, 3, 1, 10, 16, torch.float32)
    inputs["keys"].requires_grad_()
    new = NewKeys(inputs["keys"][:, 0], torch.zeros(2, dtype=torch.int64, device=DEVICE))
    loss = bag_loss(**inputs, temperature=T, normalize=True, impl=impl, new_keys=new)
    loss.sum().backward()
    assert not inputs["queue"].requires_grad
    assert torch.equal(inputs["queue"][:3], inputs["keys"][:, 0])
