"""Measures of features without labels equal their formulas, and know collapse, spread and dead channels."""

import math

import pytest
import torch
import torch.nn.functional as F

from bingo.evaluate.representation import (
    DEAD,
    dead_dimensions,
    described,
    neighbour_agreement,
    rank_me,
    spaced,
    uniformity,
)


def noise(rows: int, channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed))


def test_rank_me_is_the_published_formula() -> None:
    x = noise(500, 24) * torch.logspace(0, -3, 24) + 1
    values = torch.linalg.svdvals(x.double())
    shares = values / values.sum() + 1e-7
    assert rank_me(x) == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-6)


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_rank_me_counts_directions_of_equal_length(directions: int) -> None:
    x = torch.eye(8)[:directions].repeat(50, 1)
    assert rank_me(x) == pytest.approx(directions, rel=1e-4)


def test_rank_me_of_nothing_but_zeros() -> None:
    assert rank_me(torch.zeros(10, 8)) == pytest.approx(1, abs=1e-3)


def test_uniformity_is_the_mean_over_pairs() -> None:
    x = noise(40, 6)
    unit = F.normalize(x.double(), dim=1)
    pairs = [float((-2 * (unit[i] - unit[j]).square().sum()).exp()) for i in range(40) for j in range(i)]
    assert uniformity(x) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-9)
    assert uniformity(5 * x) == pytest.approx(uniformity(x))
    assert uniformity(torch.ones(30, 6)) == pytest.approx(0, abs=1e-6)
    assert uniformity(x[:1]) == 0


def test_channels_that_hardly_change_are_dead() -> None:
    x = noise(300, 10) + 3
    x[:, 2], x[:, 5] = 7.0, 3 + 0.5 * DEAD * noise(300, 1, 1)[:, 0]
    x[:, 7] = 3 + 3 * DEAD * noise(300, 1, 2)[:, 0]
    assert dead_dimensions(x) == 2
    assert dead_dimensions(torch.ones(20, 10)) == 10, "a median of 0 counts them too"


def test_neighbours_agree_whatever_the_widths() -> None:
    x = noise(60, 8)
    widened = torch.cat([x, torch.zeros(60, 4)], dim=1)
    assert neighbour_agreement(x, 3 * widened) == 1
    other = x.clone()
    other[:30] = noise(30, 8, 9)
    assert 0.05 < neighbour_agreement(x, other) < 0.6
    assert neighbour_agreement(x, noise(60, 16, 3)) < 0.15, "chance is 1 of 59"


def test_samples_are_spaced_and_the_same_each_time() -> None:
    assert spaced(10, 4).tolist() == [0, 2, 5, 7]
    assert spaced(3, 4).tolist() == [0, 1, 2]
    x = noise(5000, 4)
    assert described(x) == described(x)
    assert described(x)["rankme_rows"] == 5000
