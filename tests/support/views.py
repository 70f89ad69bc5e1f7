"""Images and parameters of an augmentation, and torchvision's jitter and blur of one image."""

import numpy as np
import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor

from bingo.kernels.view_params import ViewParams

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_images(count: int, height: int = 24, width: int = 20, seed: int = 0) -> Tensor:
    """(N, H, W, 3) uint8 noise, with whole images and patches that are grey, black, white or one pure colour."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    images[::5, : height // 2] = images[::5, : height // 2, :, :1]
    images[1::7, :, : width // 2] = rng.choice([0, 255], (1, 1, 1, 3)).astype(np.uint8)
    return torch.from_numpy(images)


def make_params(count: int, seed: int = 0) -> ViewParams:
    """Every operation about half of the time, with factors wider than MoCo-v2's."""
    rng = np.random.default_rng(seed)
    brightness, contrast, saturation = rng.uniform(0.3, 1.7, (3, count)).astype(np.float32)
    return ViewParams(
        jitter=rng.random(count) < 0.8,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=rng.uniform(-0.5, 0.5, count).astype(np.float32),
        order=rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1),
        grey=rng.random(count) < 0.3,
        blur_sigma=np.where(rng.random(count) < 0.5, rng.uniform(0.1, 2.0, count), 0).astype(np.float32),
        flip=rng.random(count) < 0.5,
    )


def torchvision_jitter(image: Tensor, params: ViewParams, i: int) -> Tensor:
    operations = [
        lambda x: TF.adjust_brightness(x, float(params.brightness[i])),
        lambda x: TF.adjust_contrast(x, float(params.contrast[i])),
        lambda x: TF.adjust_saturation(x, float(params.saturation[i])),
        lambda x: TF.adjust_hue(x, float(params.hue[i])),
    ]
    for which in params.order[i] if params.jitter[i] else ():
        image = operations[which](image)
    return image


def torchvision_blur(image: Tensor, sigma: float, kernel: int) -> Tensor:
    return TF.gaussian_blur(image, [kernel, kernel], [sigma, sigma]) if sigma > 0 else image
