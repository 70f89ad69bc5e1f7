"""The augmentation chain against torchvision's functional operations, image by image, with the same parameters."""

import dataclasses

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from PIL import Image
from PIL.ImageFilter import GaussianBlur
from torch import Tensor

from bingo.kernels.augment import (
    augment,
    colour_jitter,
    cutmix,
    cutmix_on_device,
    gaussian_blur,
    horizontal_flip,
    normalise,
    to_grey,
)
from tests.support.views import MEAN, STD, make_images, make_params, torchvision_blur, torchvision_jitter


def to_levels(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float().contiguous()


def share_identical(levels: Tensor, expected: Tensor) -> float:
    return (levels == expected.float()).float().mean().item()


def test_jitter_is_torchvisions() -> None:
    images, params = make_images(200), make_params(200)
    expected = torch.stack([torchvision_jitter(x, params, i) for i, x in enumerate(images.permute(0, 3, 1, 2))])
    ours = colour_jitter(to_levels(images), params)
    assert share_identical(ours, expected) >= 0.999
    assert not torch.equal(expected, images.permute(0, 3, 1, 2))


@pytest.mark.parametrize("operation", range(4))
def test_each_colour_operation_alone_is_torchvisions(operation: int) -> None:
    """Each operation over all its range, the other three at the identity (hue 0 is nearly one)."""
    count = 60
    params, rng = make_params(count), np.random.default_rng(1)
    names = ["brightness", "contrast", "saturation", "hue"]
    changes = {name: np.full(count, 0 if name == "hue" else 1, np.float32) for name in names}
    changes[names[operation]] = np.linspace(-0.5 if operation == 3 else 0, 0.5 if operation == 3 else 3, count)
    params = dataclasses.replace(params, jitter=np.ones(count, bool), **changes)
    images = make_images(count, seed=int(rng.integers(99)))
    expected = torch.stack([torchvision_jitter(x, params, i) for i, x in enumerate(images.permute(0, 3, 1, 2))])
    assert share_identical(colour_jitter(to_levels(images), params), expected) >= 0.999


def test_grey_is_torchvisions_on_every_colour_of_a_grid() -> None:
    axis = torch.arange(0, 256, 5, dtype=torch.uint8)
    image = torch.cartesian_prod(axis, axis, axis).view(1, 52, 52 * 52, 3)
    expected = TF.rgb_to_grayscale(image.permute(0, 3, 1, 2), num_output_channels=3)
    assert share_identical(to_grey(to_levels(image), np.array([True])), expected) >= 0.999


def test_flip_is_exact() -> None:
    images, chosen = make_images(9), np.arange(9) % 2 == 0
    ours = horizontal_flip(to_levels(images), chosen)
    for i, image in enumerate(to_levels(images)):
        assert torch.equal(ours[i], TF.horizontal_flip(image) if chosen[i] else image)


@pytest.mark.parametrize(("kernel", "size"), [(3, (24, 20)), (9, (20, 33)), (23, (40, 12))])
def test_blur_is_torchvisions_within_a_level(kernel: int, size: tuple[int, int]) -> None:
    images, sigma = make_images(12, *size), np.linspace(0, 2, 12, dtype=np.float32)
    ours = gaussian_blur(to_levels(images), sigma, kernel)
    expected = torch.stack(
        [torchvision_blur(x, float(s), kernel) for x, s in zip(images.permute(0, 3, 1, 2), sigma, strict=True)]
    )
    assert (ours - expected.float()).abs().max() <= 1
    assert share_identical(ours, expected) >= 0.999


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.3, 0.5, 1.0, 2.0])
def test_blur_as_pil_is_pils_away_from_the_border(sigma: float) -> None:
    """Noise and edges, the worst case for PIL's rounding after each of its six passes. Borders are reflected here."""
    images = make_images(6, 60, 52)
    expected = torch.stack(
        [torch.from_numpy(np.array(Image.fromarray(x.numpy()).filter(GaussianBlur(sigma)))) for x in images]
    ).permute(0, 3, 1, 2)
    ours, sampled = (
        gaussian_blur(to_levels(images), np.full(6, sigma, np.float32), 23, blur) for blur in ("pil", "gaussian")
    )
    inside = (..., slice(8, -8), slice(8, -8))
    difference = (ours - expected).abs()[inside]
    assert difference.max() <= 4
    assert difference.mean() < 1
    if sigma in (0.2, 0.3):
        assert (sampled - expected).abs()[inside].mean() > 2


def test_normalise_is_torchvisions() -> None:
    images = make_images(6)
    expected = TF.normalize(TF.to_dtype(images.permute(0, 3, 1, 2), torch.float32, scale=True), MEAN, STD)
    ours = normalise(to_levels(images), MEAN, STD)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_whole_chain_is_torchvisions(dtype: torch.dtype) -> None:
    images, params = make_images(150, seed=3), make_params(150, seed=4)
    before = images.clone()
    ours = augment(images, params, mean=MEAN, std=STD, blur_kernel=5, dtype=dtype)
    assert ours.dtype == dtype
    assert ours.shape == (150, 3, 24, 20)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    expected = []
    for i, image in enumerate(images.permute(0, 3, 1, 2)):
        image = torchvision_jitter(image, params, i)
        image = TF.rgb_to_grayscale(image, num_output_channels=3) if params.grey[i] else image
        image = torchvision_blur(image, float(params.blur_sigma[i]), 5)
        image = TF.horizontal_flip(image) if params.flip[i] else image
        expected.append(TF.normalize(TF.to_dtype(image, torch.float32, scale=True), MEAN, STD))
    near = (ours.float() - torch.stack(expected)).abs() <= (1e-5 if dtype == torch.float32 else 1e-2)
    assert near.float().mean() >= 0.999


def test_an_image_does_not_depend_on_its_batch() -> None:
    """The same bytes whether augmented alone or among others: what exact resume and rank counts rest on."""
    images, params = make_images(40), make_params(40)
    whole = augment(images, params, mean=MEAN, std=STD, blur_kernel=5)
    for part in (slice(0, 1), slice(1, 14), slice(14, 40)):
        assert torch.equal(augment(images[part], params[part], mean=MEAN, std=STD, blur_kernel=5), whole[part])


def test_nothing_chosen_leaves_the_images_alone_and_no_images_are_fine() -> None:
    images, off = make_images(3), np.zeros(3, bool)
    params = dataclasses.replace(make_params(3), jitter=off, grey=off, flip=off, blur_sigma=np.zeros(3))
    ours = augment(images, params, mean=(0, 0, 0), std=(1, 1, 1), blur_kernel=3)
    torch.testing.assert_close(ours, to_levels(images) / 255)
    assert augment(images[:0], make_params(0), mean=MEAN, std=STD, blur_kernel=3).shape == (0, 3, 24, 20)


@pytest.mark.parametrize("box", [(2, 3, 10, 9), (0, 0, 24, 20), (5, 5, 5, 9)])
def test_cutmix(box: tuple[int, int, int, int]) -> None:
    a, b = torch.zeros(2, 3, 24, 20).to(memory_format=torch.channels_last), torch.ones(2, 3, 24, 20)
    mixed, share = cutmix(a, b, box)
    there = cutmix_on_device(a, b, torch.tensor(box))
    assert torch.equal(there, mixed)
    assert there.stride() == mixed.stride()
    assert mixed.mean().item() == pytest.approx(1 - share, abs=1e-6)
    assert mixed[:, :, box[0] : box[2], box[1] : box[3]].eq(1).all()
    assert a.eq(0).all()
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_bad_input_is_named() -> None:
    images, params = make_images(4), make_params(4)
    run = {"mean": MEAN, "std": STD, "blur_kernel": 3}
    with pytest.raises(ValueError, match=r"images must be \(N, H, W, 3\) uint8, not \(4, 24, 20, 3\) torch\.float32"):
        augment(images.float(), params, **run)
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\) uint8, not \(4, 3, 24, 20\)"):
        augment(images.permute(0, 3, 1, 2), params, **run)
    with pytest.raises(ValueError, match="3 images but parameters for 4"):
        augment(images[:3], params, **run)
    for kernel in (4, 41, 0):
        with pytest.raises(ValueError, match=f"blur kernel is {kernel}; it must be odd and below 40 for 24x20"):
            augment(images, params, **(run | {"blur_kernel": kernel}))
    with pytest.raises(ValueError, match="blur is 'box'; it must be one of gaussian, pil"):
        augment(images, params, **run, blur="box")
    with pytest.raises(ValueError, match=r"box \(0, 0, 25, 3\) must satisfy"):
        cutmix(to_levels(images), to_levels(images), (0, 0, 25, 3))
    with pytest.raises(ValueError, match="one shape, dtype and device"):
        cutmix(to_levels(images), to_levels(images)[:2], (0, 0, 1, 1))
