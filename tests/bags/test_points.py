"""Feature rows as unit vectors, the similarity of pairs, groups of copies."""

import numpy as np
import pytest
import torch

from bingo.bags import points
from bingo.bags.neighbours import knn_bags
from bingo.bags.points import Points
from bingo.errors import UserError

FEATURES = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
WRONG = {
    "shape of groups": (np.zeros(19, int), "groups must be 20 integers"),
    "not the lowest": (np.full(20, 3), "the lowest index among its copies"),
    "chain": (np.array([0, 0, 1, *range(3, 20)]), "the lowest index among its copies"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_groups(case):
    groups, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        knn_bags(FEATURES, 2, groups=groups)


def test_members_and_the_one_left_out():
    plain = Points(FEATURES)
    assert (len(plain), plain.dim) == (20, 4)
    assert plain.own.tolist() == plain.database.tolist() == list(range(20))
    grouped = Points(FEATURES, np.array([0, 1, 0, 1, *range(4, 20)]))
    assert grouped.own[:5].tolist() == [0, 1, 0, 1, 4]
    assert grouped.database.tolist() == [0, 1, *range(4, 20)]


def test_rows_are_unit_vectors_of_any_size():
    """Of squares that overflow fp32, too; a row and its double have the same bits."""
    rows = np.concatenate([FEATURES * np.float32(1e30), FEATURES * np.float32(2e30)])
    unit = Points(rows).unit(np.arange(40))
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(unit[:20], torch.nn.functional.normalize(torch.from_numpy(FEATURES), dim=1))


def test_similarities_do_not_depend_on_what_is_asked_with_them(monkeypatch):
    found, left = Points(FEATURES), np.array([3, 0, 7])
    right = np.array([[3, 1], [5, 0], [7, 19]])
    whole = found.similarity(left, right)
    unit = found.unit(np.arange(20)).double().numpy()
    np.testing.assert_allclose(whole, (unit[left][:, None] * unit[right]).sum(2), rtol=1e-6)
    np.testing.assert_allclose(whole[[0, 1, 2], [0, 1, 0]], 1, rtol=1e-6)
    monkeypatch.setattr(points, "PAIR_ELEMENTS", 1)
    assert np.array_equal(found.similarity(left, right), whole)
    assert np.array_equal(found.similarity(left[1:2], right[1:2, 1:]), whole[1:2, 1:])


@pytest.mark.parametrize(("value", "what"), [(np.nan, "not finite"), (0, "all zeros")])
def test_who_is_to_blame_for_bad_rows(value, what):
    rows = FEATURES.copy()
    rows[[4, 9]] = value
    with pytest.raises(UserError, match=rf"feature row 4 is {what}.* \(2 of 20 are\): look at that image"):
        Points(rows)
    rows[:] = value
    with pytest.raises(
        UserError, match=rf"all 20 feature rows are {what}.*: the network that made them is broken, not"
    ):
        Points(rows)


def test_blocks_cover_all_rows():
    parts = list(points.blocks(10, 3, 12))
    assert [(part.start, part.stop) for part in parts] == [(0, 4), (4, 8), (8, 10)]
    assert len(list(points.blocks(3, 100, 12))) == 3, "at least one row"
    assert list(points.blocks(0, 3)) == []
