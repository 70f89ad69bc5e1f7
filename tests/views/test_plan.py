"""The plan is a pure function of (seed, epoch, position, view), and its crops are torchvision's."""

import numpy as np
import pytest
import torchvision.transforms as T
from scipy import stats
from torch import zeros

from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.views.plan import VIEW, VIEW_DRAWS, Plan, StepPlan, View, beta22, centre_crop, random_resized_crop, uniforms

SIZES = np.random.default_rng(0).integers(20, 400, (203, 2)).astype(np.int32)
BAGS = np.random.default_rng(1).integers(0, 203, (203, 5)).astype(np.int32)


def plan(batch: int = 32, **kwargs: object) -> Plan:
    return Plan(SIZES, batch, Augmentation(), views=(2, 2), bags=BAGS, **kwargs)  # type: ignore[arg-type]


def arrays(view: View) -> list[np.ndarray]:
    return [view.start, view.end, *vars(view.params).values()]


def flat(step: StepPlan) -> list[np.ndarray]:
    return [*step.groups, *(array for group in step.views for view in group for array in arrays(view))]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_slice_the_same_global_batch(world: int) -> None:
    for step in (0, 3, 7, 20):
        whole = flat(plan().step(step))
        parts = [flat(plan().step(step, rank, world)) for rank in range(world)]
        for i, expected in enumerate(whole):
            np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), expected)


def test_a_step_needs_no_history() -> None:
    used = plan()
    for step in range(9):
        used.step(step)
    for a, b in zip(flat(used.step(9)), flat(plan().step(9)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_views_of_a_position_do_not_depend_on_the_batch_size() -> None:
    whole = np.concatenate([uniforms(3, 1, VIEW, p, 1, VIEW_DRAWS) for p in range(40)])
    np.testing.assert_array_equal(uniforms(3, 1, VIEW, 0, 40, VIEW_DRAWS), whole)


def test_seed_epoch_and_view_change_everything() -> None:
    base = plan().step(0)
    assert not np.array_equal(base.groups[0], plan(seed=1).step(0).groups[0])
    assert not np.array_equal(base.groups[0], plan().step(plan().steps_per_epoch).groups[0])
    assert not np.array_equal(base.views[0][0].start, base.views[0][1].start)


def test_an_epoch_visits_images_once_and_positives_come_from_the_bag() -> None:
    p = plan()
    steps = [p.step(i) for i in range(p.steps_per_epoch)]
    anchors = np.concatenate([s.groups[0] for s in steps])
    assert len(set(anchors.tolist())) == len(anchors) == 192
    for step in steps:
        assert all(m in BAGS[a] for a, m in zip(*step.groups, strict=True))


def test_every_bag_member_is_drawn_equally_often() -> None:
    p = plan()
    columns = [np.argmax(BAGS[a] == m) for i in range(600) for a, m in zip(*p.step(i).groups, strict=True)]
    counts = np.bincount(columns, minlength=5)
    assert stats.chisquare(counts[:5]).pvalue > 1e-4


def test_crops_have_torchvisions_distribution() -> None:
    """Two-sample Kolmogorov-Smirnov of area, ratio and position against RandomResizedCrop.get_params."""
    n, height, width = 4000, 180, 300
    start, end = random_resized_crop(
        uniforms(0, 0, VIEW, 0, n, VIEW_DRAWS)[:, :22], np.tile([[height, width]], (n, 1)), (0.2, 1.0)
    )
    theirs = np.array(
        [T.RandomResizedCrop.get_params(zeros(3, height, width), [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]
    )
    ours = np.concatenate([start, end - start], 1)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-4
    assert (start >= 0).all()
    assert (end <= [height, width]).all()


def test_very_wide_images_fall_back_to_the_centre() -> None:
    u = np.full((1, 22), 0.999)
    start, end = random_resized_crop(u, np.array([[10, 4000]]), (0.9, 1.0))
    np.testing.assert_array_equal(start[0], [0, (4000 - 13) // 2])
    np.testing.assert_array_equal(end[0] - start[0], [10, 13])


def test_centre_crop_is_seven_eighths_of_the_shorter_side() -> None:
    start, end = centre_crop(np.array([[256, 512]]), Augmentation())
    np.testing.assert_allclose(start[0], [16, 144])
    np.testing.assert_allclose(end[0], [240, 368])


def test_beta22_is_the_inverse_distribution_function() -> None:
    u = np.linspace(0, 1, 101)
    np.testing.assert_allclose([beta22(x) for x in u], stats.beta(2, 2).ppf(u), atol=1e-9)


def test_cutmix_boxes_stay_inside_and_vary() -> None:
    boxes = [plan().cutmix_box(epoch, step) for epoch in range(40) for step in range(5)]
    assert len(set(boxes)) > 150
    for y0, x0, y1, x1 in boxes:
        assert 0 <= y0 <= y1 <= 224
        assert 0 <= x0 <= x1 <= 224


def test_batch_larger_than_the_dataset() -> None:
    with pytest.raises(UserError, match=r"batch of 204 is larger than the dataset of 203"):
        plan(batch=204)
