"""The queue of keys: a ring, and its state."""

import pytest
import torch

from bingo.kernels.ring import write_keys
from bingo.losses.queue import KeyQueue

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch", [1, 7, 10, 25])
def test_the_ring_keeps_the_last_keys(batch: int) -> None:
    queue = KeyQueue(10, 4, dtype="fp32", device=CPU, seed=0)
    torch.testing.assert_close(queue.keys_KC.norm(dim=1), torch.ones(10))
    history = torch.arange(3 * batch * 4, dtype=torch.float32).view(-1, 4)
    for part in history.split(batch):
        write_keys(queue.keys_KC, queue.ids_K, queue.entry(part, part[:, 0].long()))
    held = {tuple(row.tolist()) for row in queue.keys_KC}
    pointer = queue.state()["pointer"]
    assert {tuple(row.tolist()) for row in history[-10:]} <= held
    assert pointer == 3 * batch % 10
    if len(history) >= 10:
        newest = queue.keys_KC[(pointer - 1) % 10]
        torch.testing.assert_close(newest, history[-1])
        assert torch.equal(queue.ids_K, queue.keys_KC[:, 0].long())


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_queue_comes_back_from_its_state_exactly(dtype: str) -> None:
    queue, other = (KeyQueue(10, 4, dtype=dtype, device=CPU, seed=seed) for seed in (0, 1))
    write_keys(queue.keys_KC, queue.ids_K, queue.entry(torch.rand(13, 4), torch.arange(13)))
    other.load(queue.state())
    for name in ("keys_KC", "ids_K", "cursor"):
        assert torch.equal(getattr(queue, name), getattr(other, name))
