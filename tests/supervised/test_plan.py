"""The plan of a training on labels: each image once, the same pixels for any number of ranks, the rest of an epoch."""

import numpy as np
import pytest

from bingo.config_parts import Augmentation
from bingo.supervised.plan import LabelPlan, Share, crops_and_flips

IMAGES = np.array([3, 5, 8, 13, 21, 34, 55, 2, 1, 0])
SIZES = np.stack([np.arange(60) + 20, 90 - np.arange(60)], 1).astype(np.int32)


def plan(**changes: object) -> LabelPlan:
    augment = crops_and_flips(Augmentation(size=16, mean=(0.5, 0.5, 0.5)), (0.1, 0.9), 0.25)
    return LabelPlan(**({"sizes": SIZES, "images": IMAGES, "batch": 4, "augment": augment, "seed": 7} | changes))  # type: ignore[arg-type]


def counted(shares: list[Share]) -> dict[str, np.ndarray]:
    """The rows that count, of all ranks in order."""
    return {
        "images": np.concatenate([s.images[: s.rows] for s in shares]),
        "start": np.concatenate([s.view.start[: s.rows] for s in shares]),
        "end": np.concatenate([s.view.end[: s.rows] for s in shares]),
        "flip": np.concatenate([s.view.params.flip[: s.rows] for s in shares]),
    }


def test_crops_and_flips_alone() -> None:
    augment = plan().augment
    assert (augment.size, augment.mean, augment.scale, augment.flip_p) == (16, (0.5, 0.5, 0.5), (0.1, 0.9), 0.25)
    params = plan(batch=10).share(0, 0, 1).view.params
    assert not params.jitter.any()
    assert not params.grey.any()
    assert not params.blur_sigma.any()


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_ranks_change_no_row(ranks: int) -> None:
    """Three steps of 4, 4 and 2 images: with more ranks than images some get one that does not count."""
    whole = plan()
    assert whole.steps_per_epoch == 3
    for step in range(6):
        alone = whole.share(step, 0, 1)
        shares = [whole.share(step, rank, ranks) for rank in range(ranks)]
        assert {s.total for s in shares} == {alone.total} == {(4, 4, 2)[step % 3]}
        assert sum(s.rows for s in shares) == alone.total
        assert all(len(s.images) == max(s.rows, 1) for s in shares)
        for name, rows in counted(shares).items():
            assert np.array_equal(rows, counted([alone])[name]), name


def test_each_image_once_in_an_order_of_its_epoch() -> None:
    first, second = ([plan().share(3 * epoch + step, 0, 1) for step in range(3)] for epoch in (0, 1))
    for shares in (first, second):
        assert sorted(counted(shares)["images"]) == sorted(IMAGES)
    assert list(counted(first)["images"]) != list(counted(second)["images"])
    assert not np.array_equal(plan(seed=8).order(0), plan().order(0))


def test_without_the_rest_another_one_is_left_out_in_each_epoch() -> None:
    dropped = plan(whole=False)
    assert dropped.steps_per_epoch == 2
    left = [set(IMAGES) - set(counted([dropped.share(2 * e + s, 0, 1) for s in range(2)])["images"]) for e in range(8)]
    assert {len(images) for images in left} == {2}
    assert len(set().union(*left)) > 2


def test_a_choice_smaller_than_a_batch_is_one_step() -> None:
    share = plan(batch=64).share(1, 0, 1)
    assert (share.rows, share.total, plan(batch=64).steps_per_epoch) == (10, 10, 1)
