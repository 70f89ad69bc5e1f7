"""The plan is a pure function of (seed, epoch, position, view), and its crops are torchvision's."""

import numpy as np
import pytest
import torchvision.transforms as T
from scipy import stats
from torch import arange, stack, zeros

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


@pytest.mark.parametrize("size", [8, 24, 224, 299])
def test_centre_crop_is_where_torchvision_cuts(size: int) -> None:
    """Both on images whose pixels are their own coordinates: what torchvision returns tells where it was cut."""
    augment = Augmentation(size=size)
    sizes = np.random.default_rng(2).integers(20, 400, (40, 2))
    start, end = centre_crop(sizes, augment)
    for (height, width), low, high in zip(sizes, start, end, strict=True):
        rows, columns = arange(int(height)).float() + 0.5, arange(int(width)).float() + 0.5
        image = stack([rows[:, None].expand(-1, int(width)), columns[None].expand(int(height), -1)])
        resize = T.Resize(augment.eval_resize, antialias=False)
        found = T.CenterCrop(size)(resize(image)).double()
        step = (high - low) / size
        for axis, line in enumerate((found[0, :, 0], found[1, 0])):
            expected = low[axis] + (np.arange(size) + 0.5) * step[axis]
            limit = (int(height), int(width))[axis] - 0.5  # interpolation ends at the centre of the outermost pixel
            np.testing.assert_allclose(line, expected.clip(0.5, limit), atol=2e-3)


def test_beta22_is_the_inverse_distribution_function() -> None:
    u = np.linspace(0, 1, 101)
    np.testing.assert_allclose([beta22(x) for x in u], stats.beta(2, 2).ppf(u), atol=1e-9)


def test_cutmix_boxes_stay_inside_and_vary() -> None:
    boxes = [plan().cutmix_box(epoch, step) for epoch in range(40) for step in range(5)]
    assert len(set(boxes)) > 150
    for y0, x0, y1, x1 in boxes:
        assert 0 <= y0 <= y1 <= 224
        assert 0 <= x0 <= x1 <= 224


def test_boxes_of_blocks_are_drawn_apart_and_the_first_is_the_steps() -> None:
    """The share of a step with 8 boxes has an eighth of the variance of one box."""
    p = plan()
    assert all(p.cutmix_box(e, s, 0) == p.cutmix_box(e, s) for e in range(3) for s in range(6))

    def share(box: tuple[int, int, int, int]) -> float:
        return 1 - (box[2] - box[0]) * (box[3] - box[1]) / 224**2

    shares = np.array([[share(p.cutmix_box(0, step, block)) for block in range(8)] for step in range(2000)])
    assert stats.ks_2samp(shares[:, 0], shares[:, 5]).pvalue > 1e-4
    assert abs(np.corrcoef(shares.T) - np.eye(8)).max() < 0.1
    assert 6 < shares[:, 0].var() / shares.mean(axis=1).var() < 10.5


def test_batch_larger_than_the_dataset() -> None:
    with pytest.raises(UserError, match=r"batch of 204 is larger than the dataset of 203"):
        plan(batch=204)
