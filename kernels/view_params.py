"""What is done to each image of a batch, and constants that both augmentations share."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
GREY_WEIGHTS = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class ViewParams:
    """What happens to each of N images; numpy arrays (CPU tensors are accepted and converted).

    jitter (N) bool: whether the four colour factors apply; brightness, contrast, saturation (N) fp32 >= 0: 1 leaves the
    image as it is; hue (N) fp32 in [-0.5, 0.5] turns; order (N, 4) int64: the order of the four operations, a
    permutation of 0..3 = brightness, contrast, saturation, hue; grey (N) bool; blur_sigma (N) fp32, pixels, 0 for no
    blur; flip (N) bool. Raises ValueError for lengths or values outside these.
    """

    jitter: NDArray[np.bool_]
    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]
    saturation: NDArray[np.float32]
    hue: NDArray[np.float32]
    order: NDArray[np.int64]
    grey: NDArray[np.bool_]
    blur_sigma: NDArray[np.float32]
    flip: NDArray[np.bool_]

    def __post_init__(self) -> None:
        kinds = {"jitter": np.bool_, "grey": np.bool_, "flip": np.bool_, "order": np.int64}
        for field in fields(self):
            array: NDArray = np.asarray(getattr(self, field.name), dtype=kinds.get(field.name, np.float32))
            object.__setattr__(self, field.name, array)
        self._check_shapes()
        self._check_values()

    def __len__(self) -> int:
        return len(self.jitter)

    def __getitem__(self, rows: slice) -> "ViewParams":
        """Those of some of the images; checked already."""
        part = object.__new__(ViewParams)
        part.__dict__.update({name: array[rows] for name, array in self.__dict__.items()})
        return part

    def _check_shapes(self) -> None:
        for field in fields(self):
            shape = getattr(self, field.name).shape
            expected = (len(self), 4) if field.name == "order" else (len(self),)
            if shape != expected:
                raise ValueError(f"{field.name} has shape {shape}; with {len(self)} images it must be {expected}")

    def _check_values(self) -> None:
        for name in ("brightness", "contrast", "saturation", "blur_sigma"):
            if not (np.isfinite(getattr(self, name)).all() and (getattr(self, name) >= 0).all()):
                raise ValueError(f"{name} must be finite and not negative for every image")
        if not (np.abs(self.hue) <= 0.5).all():
            raise ValueError("hue must be in [-0.5, 0.5] turns for every image")
        if not (np.sort(self.order, axis=1) == np.arange(4)).all():
            raise ValueError("each row of order must be a permutation of 0, 1, 2, 3")


def gaussian_taps(sigma: NDArray[np.float32], kernel: int) -> NDArray[np.float32]:
    """Normalised taps (N, kernel) of a Gaussian with standard deviation `sigma` in pixels."""
    distance = np.arange(kernel) - kernel // 2
    taps = np.exp(-0.5 * (distance / sigma[:, None].astype(np.float64)) ** 2)
    return (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


def box_taps(sigma: NDArray[np.float32], kernel: int) -> NDArray[np.float32]:
    """Normalised taps (N, kernel) of PIL's GaussianBlur: a box with fractional ends, three times over.

    Its variance is sigma^2 however small sigma is, where a sampled Gaussian below 0.4 is hardly more than its centre.
    Source: Gwosdek et al. 2011, equations 7, 11 and 14; PIL rounds to levels after each pass, which is left out here.
    """
    half = kernel // 2
    taps = np.zeros((len(sigma), kernel))
    for row, variance in zip(taps, np.asarray(sigma, np.float64) ** 2 / 3, strict=True):
        inner = int((np.sqrt(12 * variance + 1) - 1) / 2)
        edge = (2 * inner + 1) * (inner * (inner + 1) - 3 * variance) / (6 * (variance - (inner + 1) ** 2))
        box = np.array([edge, *[1.0] * (2 * inner + 1), edge])
        thrice = np.convolve(np.convolve(box, box), box)
        reach = min(3 * (inner + 1), half)
        middle = len(thrice) // 2
        row[half - reach : half + reach + 1] = thrice[middle - reach : middle + reach + 1]
    return (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


BLURS = {"gaussian": gaussian_taps, "pil": box_taps}
