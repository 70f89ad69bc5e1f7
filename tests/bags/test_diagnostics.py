"""Diagnostics against counts by hand and, for what chance gives, against many draws."""

import numpy as np
import pytest

from bingo.bags import diagnostics
from bingo.bags.file import bag_purity, in_degree, label_bags, random_bags

DRAWS = 400
N, K = 60, 4
LABELS = np.repeat([0, 1, 2], [30, 20, 10])


def draws() -> list[np.ndarray]:
    return [random_bags(N, K, seed) for seed in range(DRAWS)]


def test_expected_purity_orphans_and_in_degrees_are_those_of_many_draws():
    found = draws()
    purity = [bag_purity(bags, LABELS) for bags in found]
    degrees = np.stack([in_degree(bags) for bags in found])
    assert np.mean(purity) == pytest.approx(diagnostics.random_purity(LABELS), abs=5 * np.std(purity) / DRAWS**0.5)
    orphans = (degrees == 0).mean(1)
    assert orphans.mean() == pytest.approx(diagnostics.random_orphans(N, K), abs=5 * orphans.std() / DRAWS**0.5)
    expected = diagnostics.random_degrees(N, K, 20)
    shares = np.bincount(degrees.ravel(), minlength=21) / degrees.size
    assert (np.abs(shares - expected) <= 5 * np.sqrt(expected / degrees.size) + 1e-4).all()
    assert expected.sum() == pytest.approx(1, abs=1e-6)
    assert expected[0] == pytest.approx(diagnostics.random_orphans(N, K))


def test_bags_of_all_others_have_one_in_degree():
    assert diagnostics.random_degrees(5, 4, 6).tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert diagnostics.random_orphans(5, 4) == 0


def test_expected_overlap_is_that_of_many_draws():
    fixed = label_bags(LABELS, 7, seed=1)
    found = [diagnostics.overlap(fixed, bags) for bags in draws()]
    assert np.mean(found) == pytest.approx(
        diagnostics.random_overlap(fixed, random_bags(N, K, 0)), abs=5 * np.std(found) / DRAWS**0.5
    )


def test_overlap_by_hand(monkeypatch):
    left = np.array([[1, 2, 3], [0, 0, 0], [4, 3, 1], [4, 0, 1], [0, 1, 2]])
    right = np.array([[3, 1], [2, 0], [0, 1], [2, 2], [0, 0]])
    by_hand = np.mean([2 / 2, 1 / 1, 1 / 2, 0, 1 / 1])
    for rows in (1 << 16, 2):
        monkeypatch.setattr(diagnostics, "ROWS", rows)
        assert diagnostics.overlap(left, right) == pytest.approx(by_hand)
        assert diagnostics.overlap(right, left) == pytest.approx(by_hand)
    assert diagnostics.overlap(left, left) == 1


def test_gini():
    assert diagnostics.gini(np.array([3, 3, 3])) == 0
    assert diagnostics.gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert diagnostics.gini(np.zeros(4)) == 0
    values = np.random.default_rng(0).integers(0, 9, 50)
    apart = np.abs(values[:, None] - values).mean() / (2 * values.mean())
    assert diagnostics.gini(values) == pytest.approx(apart)


def test_the_record_names_what_was_found_and_what_chance_gives():
    bags = label_bags(LABELS, K, seed=1)
    found = diagnostics.diagnose(bags, LABELS, 0, {"other": bags[:, ::-1]})
    assert found["purity"] == {"found": 1.0, "random": diagnostics.random_purity(LABELS)}
    chance = in_degree(random_bags(N, K, 1))
    assert found["in_degree"]["most"] == {"found": int(in_degree(bags).max()), "random": int(chance.max())}
    assert found["in_degree"]["quantile 0.9"]["random"] == np.quantile(chance, 0.9)
    assert found["overlap"]["other"] == {"found": 1.0, "random": K / (N - 1)}
    assert diagnostics.diagnose(bags, np.zeros(N, int), 0, {})["purity"] is None
