"""The augmentation's Triton kernels against the PyTorch chain, which torchvision is the oracle of."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bingo.config_parts import Augmentation
from bingo.kernels.augment import augment, cutmix
from bingo.kernels.triton_augment import augment_triton, augment_words, pack
from bingo.kernels.view_params import ViewParams
from bingo.views.plan import Plan
from tests.support.naive import DEVICE
from tests.support.on_gpu import GENERATIONS, in_turn
from tests.support.views import MEAN, STD, make_images, make_params

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def both(
    images: Tensor,
    params: ViewParams,
    blur_kernel: int = 3,
    dtype: torch.dtype = torch.float32,
    blur: str = "gaussian",
) -> tuple[Tensor, Tensor]:
    run = {"mean": MEAN, "std": STD, "blur_kernel": blur_kernel, "dtype": dtype, "blur": blur}
    expected = augment(images, params, impl="reference", **run)
    found = augment(images.to(DEVICE), params, impl="triton", **run).cpu()
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    return found, expected


def share_identical(found: Tensor, expected: Tensor) -> float:
    return (found == expected).float().mean().item()


@pytest.mark.parametrize(
    ("gpu", "count", "height", "width", "taps", "dtype"),
    [
        *((generation, 24, 24, 20, 5, torch.bfloat16) for generation in GENERATIONS),
        (in_turn(0), 9, 8, 8, 3, torch.float32),
        (in_turn(1), 3, 41, 67, 9, torch.float16),
        (in_turn(2), 2, 70, 13, 1, torch.bfloat16),
    ],
    indirect=["gpu"],
)
def test_the_whole_chain_is_the_references(count: int, height: int, width: int, taps: int, dtype: torch.dtype) -> None:
    """More pixels than one program takes, and more columns than one tile, among the sizes."""
    found, expected = both(make_images(count, height, width), make_params(count), taps, dtype)
    assert share_identical(found, expected) >= 0.9999


def test_every_order_of_the_operations_is_exact() -> None:
    orders = np.array(list(itertools.permutations(range(4))))
    params = replace(
        make_params(24), order=orders, jitter=np.ones(24, bool), blur_sigma=np.zeros(24), grey=np.zeros(24, bool)
    )
    found, expected = both(make_images(24, 16, 12), params)
    assert torch.equal(found, expected)


def test_every_combination_of_flags() -> None:
    """The eight without a blur are exact."""
    jitter, grey, flip, blur = np.array(list(itertools.product([False, True], repeat=4))).T
    params = replace(make_params(16), jitter=jitter, grey=grey, flip=flip, blur_sigma=np.where(blur, 1.3, 0))
    found, expected = both(make_images(16, 12, 15), params, 5)
    assert torch.equal(found[~blur], expected[~blur])
    assert share_identical(found, expected) >= 0.9999


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_extreme_factors_are_exact(name: str) -> None:
    factors = [-0.5, -0.25, -1e-9, 1e-9, 0.37, 0.5] if name == "hue" else [0, 1e-3, 1, 1.7, 40, 1e6]
    on, off = np.ones(6, bool), np.zeros(6, bool)
    params = replace(make_params(6), jitter=on, grey=off, blur_sigma=np.zeros(6), **{name: np.array(factors)})
    found, expected = both(make_images(6, 16, 16), params)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("taps", [3, 11, 23])  # each is compiled for itself
def test_widths_of_the_blur(taps: int) -> None:
    """From a sigma that leaves the image as it is to one that is flat over the kernel; sizes down to the smallest."""
    sigma = np.array([0.1, 0.5, 5])
    params = replace(make_params(3), blur_sigma=sigma)
    found, expected = both(make_images(3, taps // 2 + 1, 24), params, taps)
    assert share_identical(found, expected) >= 0.999
    assert (found - expected).abs().max() <= 1.01 / 255 / min(STD)


def test_parameters_of_a_real_plan() -> None:
    config = Augmentation(size=16)
    plan = Plan(np.full((64, 2), 100, np.int32), 24, config, seed=5)
    params = plan.step(1).views[0][0].params
    found, expected = both(make_images(24, 16, 16), params, config.blur_kernel)
    assert all(some.any() for some in (params.jitter, params.grey, params.flip, params.blur_sigma > 0))
    assert share_identical(found, expected) >= 0.9999


def test_blur_as_pil_is_the_references() -> None:
    images, params = make_images(4, 9, 12), make_params(4)
    assert (params.blur_sigma > 0).any()
    found, expected = both(images, params, 7, blur="pil")
    assert share_identical(found, expected) >= 0.9999
    other = augment(images, params, mean=MEAN, std=STD, blur_kernel=7)
    assert share_identical(expected, other) < 0.95


@pytest.mark.quick
@pytest.mark.parametrize("count", [0, 1])
def test_no_image_and_one(count: int) -> None:
    found, expected = both(make_images(1, 9, 7)[:count], make_params(count), 3)
    assert torch.equal(found, expected)


def test_images_in_other_memory_formats() -> None:
    images, params = make_images(6, 20, 12), make_params(6)
    planes = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    cropped = torch.full((6, 22, 14, 3), 255, dtype=torch.uint8)
    cropped[:, 1:-1, 1:-1] = images
    _, expected = both(images, params)
    for other in (planes, cropped[:, 1:-1, 1:-1]):
        assert not other.is_contiguous()
        assert share_identical(both(other, params)[0], expected) >= 0.9999


def test_repeats_are_bitwise_and_an_image_does_not_depend_on_its_batch() -> None:
    images, params = make_images(8, 30, 30), make_params(8)
    whole = both(images, params)[0]
    assert torch.equal(whole, both(images, params)[0])
    for part in (slice(0, 1), slice(1, 8)):
        assert torch.equal(both(images[part], params[part])[0], whole[part])


@pytest.mark.quick
@pytest.mark.parametrize("box", [(2, 3, 10, 9), (0, 0, 24, 20), (5, 5, 5, 9), (23, 0, 24, 20), (0, 16, 1, 17)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cutmix(box: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    a, b = torch.randn(2, 3, 3, 24, 20, device=DEVICE).to(dtype)
    last = torch.channels_last
    for first, second in ((a, b), (a.to(memory_format=last), b), (a, b.to(memory_format=last)), (a[:0], b[:0])):
        found, share = cutmix(first, second, box, impl="triton")
        expected, same = cutmix(first, second, box, impl="reference")
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
        assert share == same


def test_what_cannot_run_is_named() -> None:
    images, params = make_images(2), make_params(2)
    huge = torch.empty(1, 1, 1, 3, dtype=torch.uint8, device=DEVICE).expand(2, 2902, 2902, 3)
    run = {"mean": MEAN, "std": STD, "blur_kernel": 3}
    with pytest.raises(ValueError, match="unknown impl 'hopper'; the augmentation's are auto, reference, triton"):
        augment(images, params, impl="hopper", **run)
    with pytest.raises(
        ValueError, match=r"gives float16, bfloat16 or float32, not torch\.float64; pass impl='reference'"
    ):
        augment(images.to(DEVICE), params, impl="triton", dtype=torch.float64, **run)
    with pytest.raises(ValueError, match="blur kernel is 4"):
        augment(images.to(DEVICE), params, impl="triton", **(run | {"blur_kernel": 4}))
    with pytest.raises(ValueError, match="up to 8421504 pixels, not 2902x2902; pass impl='reference'"):
        augment(huge, params, impl="triton", **run)


def test_more_places_than_blurred_images_change_nothing() -> None:
    """What a captured step asks for, since its launches are the same whatever the parameters are."""
    images, params = make_images(6, 20, 24), make_params(6)
    assert 0 < (params.blur_sigma > 0).sum() < 6
    expected = augment_triton(images.to(DEVICE), params, MEAN, STD, 5, torch.float32)
    words = torch.from_numpy(pack(params, 5)).to(DEVICE)
    found = augment_words(images.to(DEVICE), words, MEAN, STD, 5, torch.float32, len(images))
    assert torch.equal(found, expected)
    plain = replace(params, jitter=params.jitter & False, blur_sigma=params.blur_sigma * 0)
    words = torch.from_numpy(pack(plain, 5)).to(DEVICE)
    found = augment_words(images.to(DEVICE), words, MEAN, STD, 5, torch.float32, len(images))
    assert torch.equal(found, augment_triton(images.to(DEVICE), plain, MEAN, STD, 5, torch.float32))
