"""Groups of settings: what follows from them, and their bounds."""

from collections.abc import Callable

import pytest

from bingo.config_parts import Augmentation, Contrast, Loader, Optimiser, Runtime, TrainingLoader
from bingo.errors import UserError

pytestmark = pytest.mark.quick


def test_sizes_follow_the_images() -> None:
    assert (Augmentation().blur_kernel, Augmentation().eval_resize) == (23, 256)
    assert (Augmentation(size=8).blur_kernel, Augmentation(size=32).eval_resize) == (3, 36)
    resized = {size: Augmentation(size=size).eval_resize for size in range(8, 600)}
    assert all((side - size) % 2 == 0 and abs(side - size * 256 / 224) <= 1 for size, side in resized.items())


def test_the_learning_rate_goes_along_a_cosine() -> None:
    by_epoch, by_step = (Optimiser(epochs=2, batch=512, lr=0.1, schedule=kind) for kind in ("epoch", "step"))  # type: ignore[arg-type]
    assert [round(by_epoch.lr_at(step, 4), 6) for step in (0, 3, 4, 7)] == [0.2, 0.2, 0.1, 0.1]
    rates = [by_step.lr_at(step, 4) for step in range(9)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], round(rates[4], 6), round(rates[8], 6)) == (0.2, 0.1, 0)


def test_how_many_images_may_be_bad() -> None:
    assert TrainingLoader().most_bad(1_281_167) == 1281
    assert TrainingLoader(max_bad=0).most_bad(10) == 0
    assert TrainingLoader(allow_bad=True).most_bad(10) is None


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (Augmentation, {"size": 7}, "augment.size=7 is not allowed: it must be between 8 and 4096"),
        (Augmentation, {"hue": 0.6}, "augment.hue=0.6 is not allowed: it must be between 0 and 0.5"),
        (Augmentation, {"flip_p": -0.1}, "augment.flip-p=-0.1 is not allowed"),
        (Optimiser, {"momentum": 1.0}, "optim.momentum=1.0 is not allowed"),
        (Optimiser, {"lr": 0.0}, "optim.lr=0.0 is not allowed: it must be > 0"),
        (Runtime, {"log_every": 0}, "runtime.log-every=0 is not allowed: it must be between 1"),
        (Loader, {"prefetch": 0}, "loader.prefetch=0 is not allowed"),
        (TrainingLoader, {"max_bad": 1.5}, "loader.max-bad=1.5 is not allowed"),
        (TrainingLoader, {"hw_decoder_load": 2.0}, "loader.hw-decoder-load=2.0 is not allowed"),
        (Contrast, {"temperature": 0.0}, "contrast.temperature=0.0 is not allowed"),
    ],
)
def test_bounds(make: Callable[..., object], settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**settings)
