"""One process in place of several ranks: their batch-norm statistics; tests/train/test_elastic.py has whole runs."""

import pytest
import torch
from torch import nn

from bingo.train.shares import Statistics


@pytest.mark.parametrize("mean", [False, True])
def test_shares_start_from_the_same_statistics(mean: bool) -> None:
    """As two processes would: each from the statistics before the step, then the first's or the mean."""
    batches = [torch.randn(8, 3, generator=torch.Generator().manual_seed(n)) + n for n in range(2)]
    network = nn.BatchNorm1d(3)
    network(torch.randn(8, 3))
    before = [buffer.clone() for buffer in network.buffers()]
    apart = []
    for batch in batches:
        other = nn.BatchNorm1d(3)
        for buffer, value in zip(other.buffers(), before, strict=True):
            buffer.copy_(value)
        other(batch)
        apart.append(list(other.buffers()))
    statistics = Statistics(network, len(batches))
    for batch in batches:
        with statistics.of_a_share():
            network(batch)
    statistics.join(mean=mean)
    for found, first, second in zip(network.buffers(), *apart, strict=True):
        averaged = mean and found.is_floating_point()
        assert torch.equal(found, torch.stack([first, second]).mean(dim=0) if averaged else first)


def test_one_share_is_left_alone() -> None:
    network, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    rows = torch.randn(8, 3)
    statistics = Statistics(network, 1)
    with statistics.of_a_share():
        network(rows)
    statistics.join(mean=True)
    other(rows)
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), other.buffers(), strict=True))
