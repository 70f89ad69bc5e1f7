"""The chain of MoCo-v2 as torchvision's two generations of transforms build it, for the benchmark's peers."""

from collections.abc import Callable
from typing import Any

import torch

from bingo.config_parts import Augmentation

AUGMENT = Augmentation()


def pil_tools() -> tuple[Callable, Callable, Callable]:
    """Decode, crop and the rest, as MoCo-v2's recipe builds them from torchvision's transforms of PIL images."""
    import torchvision.transforms as T
    from PIL import Image, ImageFilter

    def decode(path: str) -> Any:
        with open(path, "rb") as file:
            return Image.open(file).convert("RGB")

    class Blur:
        def __call__(self, image: Any) -> Any:
            sigma = float(torch.empty(1).uniform_(*AUGMENT.blur_sigma))
            return image.filter(ImageFilter.GaussianBlur(radius=sigma))

    return (
        decode,
        T.RandomResizedCrop(AUGMENT.size, scale=AUGMENT.scale),
        T.Compose([*random_steps(T, Blur()), T.ToTensor(), T.Normalize(AUGMENT.mean, AUGMENT.std)]),
    )


def v2_tools() -> tuple[Callable, Callable, Callable]:
    """The same with torchvision's v2 transforms on uint8 tensors from its own decoder."""
    import torchvision.transforms.v2 as T
    from torchvision.io import ImageReadMode, decode_image, read_file

    def decode(path: str) -> torch.Tensor:
        return decode_image(read_file(path), ImageReadMode.RGB)

    blur = T.GaussianBlur(AUGMENT.blur_kernel, AUGMENT.blur_sigma)
    finish = [T.ToDtype(torch.float32, scale=True), T.Normalize(list(AUGMENT.mean), list(AUGMENT.std))]
    crop = T.RandomResizedCrop(AUGMENT.size, scale=AUGMENT.scale, antialias=True)
    return decode, crop, T.Compose([*random_steps(T, blur), *finish])


def random_steps(T: Any, blur: Any) -> list[Any]:
    """Jitter, grey, blur and flip with their probabilities, from either generation of torchvision's transforms."""
    jitter = T.ColorJitter(AUGMENT.brightness, AUGMENT.contrast, AUGMENT.saturation, AUGMENT.hue)
    return [
        T.RandomApply([jitter], p=AUGMENT.jitter_p),
        T.RandomGrayscale(p=AUGMENT.grey_p),
        T.RandomApply([blur], p=AUGMENT.blur_p),
        T.RandomHorizontalFlip(p=AUGMENT.flip_p),
    ]
