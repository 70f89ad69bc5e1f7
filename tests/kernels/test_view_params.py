"""The parameters of a batch of views: tensors are taken, bad values are named."""

import dataclasses

import numpy as np
import pytest
import torch

from bingo.config_parts import Augmentation
from bingo.kernels.augment import augment
from bingo.kernels.view_params import ViewParams, box_taps, gaussian_taps
from tests.support.views import MEAN, STD, make_images, make_params


def test_parameters_may_be_tensors() -> None:
    images, params = make_images(8), make_params(8)
    tensors = ViewParams(**{f.name: torch.from_numpy(getattr(params, f.name)) for f in dataclasses.fields(params)})
    results = [augment(images, p, mean=MEAN, std=STD, blur_kernel=3) for p in (params, tensors)]
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grey": np.zeros(3, bool)}, r"grey has shape \(3,\); with 4 images it must be \(4,\)"),
        ({"order": np.zeros((4, 3), int)}, r"order has shape \(4, 3\)"),
        ({"order": np.zeros((4, 4), int)}, "permutation of 0, 1, 2, 3"),
        ({"hue": np.full(4, 0.6)}, r"hue must be in \[-0.5, 0.5\]"),
        ({"contrast": np.full(4, -1.0)}, "contrast must be finite and not negative"),
        ({"blur_sigma": np.full(4, np.nan)}, "blur_sigma must be finite"),
    ],
)
def test_bad_parameters_are_named(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make_params(4), **change)


def test_a_part_holds_the_values_of_its_images() -> None:
    params = make_params(8)
    part = params[2:5]
    assert len(part) == 3
    for field in dataclasses.fields(params):
        np.testing.assert_array_equal(getattr(part, field.name), getattr(params, field.name)[2:5])


def test_taps_are_a_gaussian_that_sums_to_one() -> None:
    taps = gaussian_taps(np.array([0.1, 1.5], np.float32), 5)
    assert (taps.shape, taps.dtype) == ((2, 5), np.float32)
    np.testing.assert_allclose(taps.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(taps[0], [0, 0, 1, 0, 0], atol=1e-6)
    assert taps[1, 3] / taps[1, 2] == pytest.approx(np.exp(-0.5 / 1.5**2))
    np.testing.assert_array_equal(taps, taps[:, ::-1])


def test_taps_of_boxes_keep_the_variance() -> None:
    sigma = np.linspace(0.05, 2.0, 40, dtype=np.float32)
    taps = box_taps(sigma, 23)
    assert (taps.shape, taps.dtype) == ((40, 23), np.float32)
    assert (taps >= 0).all()
    np.testing.assert_allclose(taps.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(taps, taps[:, ::-1])
    np.testing.assert_allclose(taps @ (np.arange(23) - 11) ** 2, sigma**2, rtol=1e-5)
    assert (gaussian_taps(sigma[:5], 23) @ (np.arange(23) - 11) ** 2 < 0.5 * sigma[:5] ** 2).all()
    cut = box_taps(sigma, 3)  # what does not fit is left out
    np.testing.assert_allclose(cut.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(("sigma", "size"), [((0.1, 2.0), 224), ((0.1, 2.0), 32), ((0.1, 5.0), 96), ((0.1, 0.3), 8)])
def test_a_blur_like_pils_has_room_for_its_largest_sigma(sigma: tuple[float, float], size: int) -> None:
    width = Augmentation(size=size, blur="pil", blur_sigma=sigma).blur_kernel
    whole, found = (box_taps(np.array(sigma[1:], np.float32), kernel)[0] for kernel in (101, width))
    np.testing.assert_array_equal(found, whole[50 - width // 2 : 51 + width // 2])
    assert width >= Augmentation(size=size, blur_sigma=sigma).blur_kernel
    assert Augmentation(size=8, blur="pil", blur_sigma=(1.0, 9.0)).blur_kernel == 15, "no more than the image reflects"
