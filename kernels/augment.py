"""Batched image augmentation with parameters for each image: colours, blur, flip, normalise; CutMix.

No randomness here: the parameters say what happens to each image. The arithmetic is torchvision's on uint8 tensors
(`torchvision.transforms.v2.functional`), including its rounding to whole levels after every operation; a stage touches
only the images it concerns, and finds them on the host, so that a GPU is never waited for.

Stages take and return "levels": fp32 (N, 3, H, W), whole numbers 0..255, and may overwrite what they take.
"""

import functools
import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bingo.kernels.device import per_device
from bingo.kernels.dispatch import reference_or_triton
from bingo.kernels.transfer import to_device
from bingo.kernels.view_params import BLURS, BRIGHTNESS, CONTRAST, GREY_WEIGHTS, HUE, SATURATION, ViewParams

CACHED_PIXELS = 100_000
# On a CPU the blur's matrices are cut to the band around their diagonal, this many rows at a time.
BAND_ROWS = 32

logger = logging.getLogger(__name__)


def augment(
    images: Tensor,
    params: ViewParams,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    blur_kernel: int,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
    blur: str = "gaussian",
) -> Tensor:
    """The whole chain: jitter, grey, blur, flip, normalise.

    images: (N, H, W, 3) uint8, left unchanged. mean, std: per channel, of values in 0..1. blur_kernel: odd, pixels.
    impl: "reference" (PyTorch), "triton", or "auto": Triton on CUDA, PyTorch elsewhere. They differ where a blurred
    value lies between two levels within rounding. blur: "gaussian" as torchvision's, or "pil" as PIL's. Returns
    (N, 3, H, W) in `dtype`, channels-last in memory. ValueError for other shapes, dtypes and blurs, and for an impl
    that cannot run.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must be (N, H, W, 3) uint8, not {tuple(images.shape)} {images.dtype}")
    if len(params) != len(images):
        raise ValueError(f"there are {len(images)} images but parameters for {len(params)}")
    _check_blur(blur_kernel, *images.shape[1:3])
    if blur not in BLURS:
        raise ValueError(f"blur is {blur!r}; it must be one of {', '.join(BLURS)}")
    if _choose_impl(impl, images.device.type) == "triton":
        from bingo.kernels.triton_augment import augment_triton

        return augment_triton(images, params, mean, std, blur_kernel, dtype, blur)
    count, height, width, _ = images.shape
    views = _fresh((count, height, width, 3), dtype, images.device).permute(0, 3, 1, 2)
    # On a CPU a few images at a time: their levels then stay in the core's own cache from one operation to the next.
    group = count if images.is_cuda else max(1, CACHED_PIXELS // (height * width))
    with torch.inference_mode():  # without autograd's bookkeeping, which costs as much as a short operation
        for first in range(0, count, group):
            rows = slice(first, first + group)
            levels = images[rows].permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
            levels = to_grey(colour_jitter(levels, params[rows]), params.grey[rows])
            levels = gaussian_blur(levels, params.blur_sigma[rows], blur_kernel, blur)
            levels = horizontal_flip(levels, params.flip[rows])
            views[rows] = _scaled(levels, mean, std)
    return views


def _fresh(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor; on a CPU in numpy's memory, which comes in huge pages: a large batch costs a quarter of the page
    faults' time."""
    if device.type != "cpu" or 0 in shape:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


@per_device
def _choose_impl(impl: str, device_type: str) -> str:
    return reference_or_triton(impl, device_type, "augment", logger, "the augmentation's")


def _on(levels: Tensor, chosen: NDArray[np.int64] | NDArray[np.bool_], apply: Callable[[Tensor], Tensor]) -> Tensor:
    """`apply` to the chosen images (indices, or N bool); the others stay as they are."""
    indices = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
    if len(indices) == len(levels) or len(indices) == 0:
        return apply(levels) if len(indices) else levels
    where = to_device(indices, levels.device)
    return levels.index_copy_(0, where, apply(levels.index_select(0, where)))


def colour_jitter(levels: Tensor, params: ViewParams) -> Tensor:
    """torchvision's ColorJitter on the images with `params.jitter`, each in its own order of operations."""
    jittered = np.flatnonzero(params.jitter)
    if len(jittered) == 0:
        return levels
    factors_N4 = np.stack([params.brightness, params.contrast, params.saturation, params.hue], axis=1)
    order = params.order[jittered]
    groups = [
        (operation, jittered[order[:, slot] == operation])
        for slot in range(4)
        for operation in sorted(set(order[:, slot].tolist()))
    ]
    # One copy to the device for all groups: on a GPU sixteen small ones would cost more than the arithmetic.
    indices = to_device(np.concatenate([chosen for _, chosen in groups]), levels.device)
    factors = np.concatenate([factors_N4[chosen, operation] for operation, chosen in groups]).astype(np.float64)
    # torchvision blends with 1 - factor, subtracted in double precision.
    pairs = to_device(np.stack([factors, 1 - factors]).astype(np.float32), levels.device)[:, :, None, None, None]
    start = 0
    for operation, chosen in groups:
        part = slice(start, start + len(chosen))
        start = part.stop
        if len(chosen) == len(levels):
            levels = _OPERATIONS[operation](levels, pairs[0, part], pairs[1, part])
        else:
            touched = levels.index_select(0, indices[part])
            levels.index_copy_(0, indices[part], _OPERATIONS[operation](touched, pairs[0, part], pairs[1, part]))
    return levels


def _luma(levels: Tensor) -> Tensor:
    """ITU-R 601 luma (N, 1, H, W), not rounded."""
    red, green, blue = levels.split(1, dim=1)
    return red.mul(GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2])


def _blend(levels: Tensor, other: Tensor, factor: Tensor, rest: Tensor) -> Tensor:
    """factor * levels + rest * other, cut to whole levels."""
    return levels.mul_(factor).add_(other.mul(rest)).clamp_(0, 255).floor_()


def _brightness(levels: Tensor, factor: Tensor, rest: Tensor) -> Tensor:
    return levels.mul_(factor).clamp_(0, 255).floor_()


def _contrast(levels: Tensor, factor: Tensor, rest: Tensor) -> Tensor:
    return _blend(levels, _luma(levels).floor_().mean(dim=(1, 2, 3), keepdim=True), factor, rest)


def _saturation(levels: Tensor, factor: Tensor, rest: Tensor) -> Tensor:
    return _blend(levels, _luma(levels).floor_(), factor, rest)


def _hue(levels: Tensor, turns: Tensor, rest: Tensor) -> Tensor:
    """Turn the hue, keeping HSV's saturation and value.

    With h in sixths of a turn, channel c is max - range * clamp(min(k, 4 - k), 0, 1), k = (c's offset + h) mod 6: the
    closed form of the six cases of HSV to RGB.
    """
    red, green, blue = levels.split(1, dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    spread = largest - torch.minimum(torch.minimum(red, green), blue)
    # Masks of 0 and 1 choose among whole numbers without an error, and faster than `where` on a CPU.
    sixths = (red - green).add_(spread, alpha=4)
    sixths.addcmul_((blue - red).add_(spread, alpha=2).sub_(sixths), largest.clone().eq_(green))
    sixths.addcmul_((green - blue).sub_(sixths), largest.clone().eq_(red))
    sixths = torch.addcdiv(6 * turns, sixths, spread.clamp(min=1))
    position = sixths + _hue_offsets(levels.device)
    position.sub_((position * (1 / 6)).floor_(), alpha=6)
    falloff = torch.minimum(position, 4 - position).clamp_(0, 1)
    # torchvision goes back to uint8 through a product with 255.999: truncation then keeps whole levels.
    return torch.sub(largest, falloff.mul_(spread), out=levels).mul_(255.999 / 255).floor_()


@functools.cache
def _hue_offsets(device: torch.device) -> Tensor:
    return torch.tensor([5.0, 3.0, 1.0], device=device).view(1, 3, 1, 1)


_OPERATIONS: dict[int, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    BRIGHTNESS: _brightness,
    CONTRAST: _contrast,
    SATURATION: _saturation,
    HUE: _hue,
}


def to_grey(levels: Tensor, chosen: NDArray[np.bool_]) -> Tensor:
    """Replace the three channels of the chosen images (N bool) by their luma."""
    return _on(levels, chosen, lambda part: part.copy_(_luma(part).floor_()))


def gaussian_blur(levels: Tensor, sigma: NDArray[np.float32], kernel: int, blur: str = "gaussian") -> Tensor:
    """Gaussian blur with reflected borders, rounded, of the images whose sigma (N, pixels) is above 0.

    blur: whose taps, a key of `view_params.BLURS`.

    Each pass is a product with a banded matrix per image, which holds the taps and the reflection: at these sizes that
    is faster than a grouped convolution. TF32 products, if the caller allows them, can move a pixel by one level.
    ValueError if `kernel` is even, or reaches past the reflected image.
    """
    height, width = levels.shape[2:]
    _check_blur(kernel, height, width)
    indices = np.flatnonzero(sigma > 0)
    if len(indices) == 0:
        return levels
    taps_NT = to_device(BLURS[blur](sigma[indices], kernel), levels.device)
    across = _bands(taps_NT, width)
    down = across if height == width else _bands(taps_NT, height)

    def blurred_of(sharp: Tensor) -> Tensor:
        count = len(sharp)
        planes, half = sharp.reshape(3 * count, height, width), torch.empty_like(sharp)
        lines, blurred = half.view(count, 3 * height, width), torch.empty_like(sharp)
        with torch.autocast(levels.device.type, enabled=False):
            for pixels, sources, matrix in down:
                thrice = matrix[:, None].expand(-1, 3, -1, -1).reshape(-1, *matrix.shape[1:])
                half.view_as(planes)[:, pixels] = thrice.bmm(planes[:, sources])
            for pixels, sources, matrix in across:
                blurred.view_as(lines)[:, :, pixels] = lines[:, :, sources].bmm(matrix.transpose(1, 2))
        return blurred.round_()

    return _on(levels, indices, blurred_of)


def _check_blur(kernel: int, height: int, width: int) -> None:
    if kernel < 1 or kernel % 2 == 0 or kernel // 2 >= min(height, width):
        raise ValueError(
            f"blur kernel is {kernel}; it must be odd and below {2 * min(height, width)} for {height}x{width} images"
        )


def _bands(taps_NT: Tensor, size: int) -> list[tuple[slice, slice, Tensor]]:
    """Pixels of a blurred line, the pixels they are made of, and the matrices (N, ., .) between the two."""
    bands, made = [], dict[Tensor, Tensor]()
    with torch.autocast(taps_NT.device.type, enabled=False):
        for pixels, sources, reflection in _reflections(size, taps_NT.shape[1], taps_NT.device):
            if reflection not in made:
                made[reflection] = (taps_NT @ reflection).view(
                    -1, pixels.stop - pixels.start, sources.stop - sources.start
                )
            bands.append((pixels, sources, made[reflection]))
    return bands


@functools.lru_cache(maxsize=16)
def _reflections(size: int, kernel: int, device: torch.device) -> list[tuple[slice, slice, Tensor]]:
    """For every band its pixels, their sources, and (kernel, pixels * sources): 1 where tap t of a pixel reads a
    source, borders reflected without repeat. Bands that are alike share the tensor."""
    read = (torch.arange(size)[None, :] + torch.arange(kernel)[:, None] - kernel // 2).abs()
    read = torch.where(read >= size, 2 * (size - 1) - read, read)
    # One band, the whole matrix, where that is little work and on a GPU, where few launches count.
    rows = size if device.type == "cuda" or size <= 2 * BAND_ROWS else BAND_ROWS
    bands, known = [], dict[bytes, Tensor]()
    for first in range(0, size, rows):
        band = read[:, first : first + rows]
        start, stop = int(band.min()), int(band.max()) + 1
        one_hot = torch.nn.functional.one_hot(band - start, stop - start).to(device, torch.float32).view(kernel, -1)
        one_hot = known.setdefault((band - start).numpy().tobytes(), one_hot)
        bands.append((slice(first, min(first + rows, size)), slice(start, stop), one_hot))
    return bands


def horizontal_flip(levels: Tensor, chosen: NDArray[np.bool_]) -> Tensor:
    """Mirror the chosen images (N bool) left to right."""
    return _on(levels, chosen, lambda part: part.flip(3))


def normalise(
    levels: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32
) -> Tensor:
    """(levels / 255 - mean) / std per channel, in `dtype`, channels-last in memory."""
    return _scaled(levels, mean, std).to(dtype, memory_format=torch.channels_last)


def _scaled(levels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    constants = to_device(np.array([mean, std], dtype=np.float32), levels.device).view(2, 1, 3, 1, 1)
    return levels.mul_(1 / 255).sub_(constants[0]).div_(constants[1])


def cutmix(a: Tensor, b: Tensor, box: tuple[int, int, int, int], *, impl: str = "auto") -> tuple[Tensor, float]:
    """Images `a` with the pixels of `b` inside one box, and the share of pixels that is still `a`'s.

    a, b: (N, C, H, W), same shape, dtype and device, without gradients; box: (y0, x0, y1, x1), whole pixels, ends
    exclusive, possibly empty; impl: as in `augment`. Returns the mixed images in a's memory format and `share_left`.
    ValueError for a box outside the image.
    """
    height, width = a.shape[2:]
    y0, x0, y1, x1 = box
    _check_mixed(a, b)
    if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
        raise ValueError(f"box {box} must satisfy 0 <= y0 <= y1 <= {height} and 0 <= x0 <= x1 <= {width}")
    if _choose_impl(impl, a.device.type) == "triton":
        from bingo.kernels.triton_augment import cutmix_triton

        mixed = cutmix_triton(a, b, box)
    else:
        mixed = a.clone()
        mixed[:, :, y0:y1, x0:x1] = b[:, :, y0:y1, x0:x1]
    return mixed, share_left(box, height, width)


def share_left(box: tuple[int, int, int, int], height: int, width: int) -> float:
    """1 - box area / image area."""
    y0, x0, y1, x1 = box
    return 1 - (y1 - y0) * (x1 - x0) / (height * width)


def cutmix_on_device(a: Tensor, b: Tensor, box: Tensor) -> Tensor:
    """`cutmix` with a box (int64 (4)) that lies on the images' device, and must lie in the images: nobody looks.

    So a captured step can have another box at each replay.
    """
    _check_mixed(a, b)
    y0, x0, y1, x1 = box
    rows, columns = (torch.arange(side, device=box.device) for side in a.shape[2:])
    inside = ((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))
    return torch.where(inside, b, a, out=torch.empty_like(a))


def _check_mixed(a: Tensor, b: Tensor) -> None:
    if (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
        raise ValueError(
            "cutmix needs two batches of one shape, dtype and device, not "
            f"{tuple(a.shape)} {a.dtype} on {a.device} and {tuple(b.shape)} {b.dtype} on {b.device}"
        )
    if a.requires_grad or b.requires_grad:
        raise ValueError("cutmix passes no gradient on, but its images want one; detach them")
