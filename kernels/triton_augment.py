"""Triton kernels of augmentation and CutMix: the arithmetic of `augment.py`, operation by operation.

Up to four launches. `luma_kernel` adds up each jittered image's grey level as it is when contrast's turn comes;
`colour_kernel` does everything to an image that is not blurred, and leaves the others as whole levels in uint8, which
is exact; `blur_rows_kernel` and `blur_columns_kernel` blur those and end the chain. All that the host decides reaches
the device in one array, in one asynchronous copy: nothing waits.

The launches forbid the compiler to contract products and sums: PyTorch rounds twice where it calls two operations, and
once, hence the explicit `fma`, where it calls `add` with `alpha`.
Legend: N images of H x W pixels, S of them blurred, T taps; a word is one int32 or, bit for bit, fp32 of `params`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from bingo.kernels.splits import ceil_div
from bingo.kernels.transfer import to_device
from bingo.kernels.view_params import BLURS, BRIGHTNESS, CONTRAST, GREY_WEIGHTS, SATURATION, ViewParams

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Words of an image's row of `params`: what is done, in order; factor of each operation (hue: sixths of a turn); what
# the other image of a blend is multiplied with; then single words, and from TAPS on the blur. SLOT is the image's place
# among the blurred ones, or -1; row s holds in IMAGE the one at place s, or -1.
ORDER, FACTOR, REST = tl.constexpr(0), tl.constexpr(4), tl.constexpr(8)
OPERATIONS, BEFORE_CONTRAST, LUMA_SUM = tl.constexpr(12), tl.constexpr(13), tl.constexpr(14)
GREY, FLIP, SLOT, IMAGE = tl.constexpr(15), tl.constexpr(16), tl.constexpr(17), tl.constexpr(18)
TAPS = tl.constexpr(19)
IS_BRIGHTNESS, IS_CONTRAST, IS_SATURATION = (tl.constexpr(code) for code in (BRIGHTNESS, CONTRAST, SATURATION))
RED, GREEN, BLUE = (tl.constexpr(weight) for weight in GREY_WEIGHTS)
BACK_TO_LEVELS, PER_LEVEL = tl.constexpr(255.999 / 255), tl.constexpr(1 / 255)
# Adding and taking away 1.5 * 2^23 rounds fp32 to whole numbers, halves to the even one, as torch.round does.
ROUNDER = tl.constexpr(12582912.0)

PIXELS = 512
ROWS, COLUMNS = 8, 64
WARPS = 4
OPTIONS: dict[str, Any] = {"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": False}
# An image's grey levels are added up in an int32.
MOST_PIXELS = (2**31 - 1) // 255


@triton.jit
def luma(red, green, blue):  # type: ignore[no-untyped-def]
    return tl.floor(tl.fma(blue, BLUE, tl.fma(green, GREEN, red * RED)))


@triton.jit
def cut(x):  # type: ignore[no-untyped-def]
    """Down to a whole level in 0 .. 255."""
    return tl.floor(tl.minimum(tl.maximum(x, 0.0), 255.0))


@triton.jit
def turned(position, largest, spread):  # type: ignore[no-untyped-def]
    """One channel of `augment._hue`."""
    position -= 6.0 * tl.floor(position * (1.0 / 6.0))
    falloff = tl.minimum(tl.maximum(tl.minimum(position, 4.0 - position), 0.0), 1.0)
    return tl.floor((largest - spread * falloff) * BACK_TO_LEVELS)


@triton.jit
def operate(operation, red, green, blue, mean, factor, rest):  # type: ignore[no-untyped-def]
    """One of the four operations of colour jitter on fp32 levels; mean: the grey level that contrast blends with."""
    if operation == IS_BRIGHTNESS:
        red, green, blue = cut(red * factor), cut(green * factor), cut(blue * factor)
    elif operation == IS_CONTRAST:
        other = mean * rest
        red, green, blue = cut(red * factor + other), cut(green * factor + other), cut(blue * factor + other)
    elif operation == IS_SATURATION:
        other = luma(red, green, blue) * rest
        red, green, blue = cut(red * factor + other), cut(green * factor + other), cut(blue * factor + other)
    else:
        largest = tl.maximum(tl.maximum(red, green), blue)
        spread = largest - tl.minimum(tl.minimum(red, green), blue)
        after_red = tl.where(largest == green, blue - red + 2.0 * spread, red - green + 4.0 * spread)
        sixths = tl.div_rn(tl.where(largest == red, green - blue, after_red), tl.maximum(spread, 1.0)) + factor
        red = turned(sixths + 5.0, largest, spread)
        green = turned(sixths + 3.0, largest, spread)
        blue = turned(sixths + 1.0, largest, spread)
    return red, green, blue


@triton.jit
def jitter(  # type: ignore[no-untyped-def]
    images_ptr, words, floats, image, pixels, count, mean, H, W
):  # fmt: skip
    """The first `count` operations of an image on some of its pixels, as three channels of fp32 levels."""
    first = images_ptr + image.to(tl.int64) * (H * W * 3) + pixels * 3
    live = pixels < H * W
    red = tl.load(first, mask=live, other=0).to(tl.float32)
    green = tl.load(first + 1, mask=live, other=0).to(tl.float32)
    blue = tl.load(first + 2, mask=live, other=0).to(tl.float32)
    for turn in range(count):
        operation = tl.load(words + ORDER + turn)
        factor, rest = tl.load(floats + FACTOR + operation), tl.load(floats + REST + operation)
        red, green, blue = operate(operation, red, green, blue, mean, factor, rest)
    return red, green, blue


@triton.jit
def normalised(level, mean, std):  # type: ignore[no-untyped-def]
    return tl.div_rn(level * PER_LEVEL - mean, std)


@triton.jit
def luma_kernel(images_ptr, params_ptr, floats_ptr, H, W, STRIDE: tl.constexpr, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add the grey levels of PIXELS pixels, as contrast will find them, to the image's word."""
    image = tl.program_id(0)
    words = params_ptr + image * STRIDE
    count = tl.load(words + BEFORE_CONTRAST)
    if count >= 0:
        pixels = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
        red, green, blue = jitter(images_ptr, words, floats_ptr + image * STRIDE, image, pixels, count, 0.0, H, W)
        levels = tl.where(pixels < H * W, luma(red, green, blue), 0.0)
        # Whole numbers: the order in which blocks arrive does not matter.
        tl.atomic_add(words + LUMA_SUM, tl.sum(levels.to(tl.int32)))


@triton.jit
def colour_kernel(  # type: ignore[no-untyped-def]
    images_ptr, params_ptr, floats_ptr, levels_ptr, out_ptr, H, W, mean_r, mean_g, mean_b, std_r, std_g, std_b,
    STRIDE: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Jitter and grey of PIXELS pixels; then to `out`, flipped and normalised, or to `levels` if a blur follows."""
    image = tl.program_id(0)
    words = params_ptr + image * STRIDE
    pixels = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    live = pixels < H * W
    mean = tl.div_rn(tl.load(words + LUMA_SUM).to(tl.float32), tl.cast(H * W, tl.float32))
    count = tl.load(words + OPERATIONS)
    red, green, blue = jitter(images_ptr, words, floats_ptr + image * STRIDE, image, pixels, count, mean, H, W)
    if tl.load(words + GREY) != 0:
        red = luma(red, green, blue)
        green, blue = red, red
    slot = tl.load(words + SLOT)
    if slot >= 0:
        plane = levels_ptr + slot.to(tl.int64) * (H * W * 3) + pixels
        tl.store(plane, red.to(tl.uint8), mask=live)
        tl.store(plane + H * W, green.to(tl.uint8), mask=live)
        tl.store(plane + 2 * H * W, blue.to(tl.uint8), mask=live)
    else:
        x = pixels % W
        target = tl.where(tl.load(words + FLIP) != 0, pixels - x + (W - 1 - x), pixels)
        first = out_ptr + image.to(tl.int64) * (H * W * 3) + target * 3
        tl.store(first, normalised(red, mean_r, std_r).to(out_ptr.dtype.element_ty), mask=live)
        tl.store(first + 1, normalised(green, mean_g, std_g).to(out_ptr.dtype.element_ty), mask=live)
        tl.store(first + 2, normalised(blue, mean_b, std_b).to(out_ptr.dtype.element_ty), mask=live)


@triton.jit
def reflect(at, size):  # type: ignore[no-untyped-def]
    at = tl.abs(at)
    return tl.where(at >= size, 2 * (size - 1) - at, at)


@triton.jit
def blur_rows_kernel(  # type: ignore[no-untyped-def]
    levels_ptr, params_ptr, floats_ptr, blurred_ptr, H, W,
    STRIDE: tl.constexpr, T: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """First pass, down the columns of one plane: a tile of uint8 levels (S, 3, H, W) to fp32 `blurred` (S, 3, H, W)."""
    plane = tl.program_id(0)
    image = tl.load(params_ptr + plane // 3 * STRIDE + IMAGE)
    if image >= 0:
        taps = floats_ptr + image * STRIDE + TAPS
        y, x = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
        mask = (y < H)[:, None] & (x < W)[None, :]
        base = plane.to(tl.int64) * (H * W)
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        for t in range(T):
            # Rows past the image are not stored: any row that exists will do for them.
            source = reflect(tl.minimum(y, H - 1) + (t - T // 2), H)
            level = tl.load(levels_ptr + base + source[:, None] * W + x[None, :], mask=(x < W)[None, :], other=0)
            total = tl.fma(level.to(tl.float32), tl.load(taps + t), total)
        tl.store(blurred_ptr + base + y[:, None] * W + x[None, :], total, mask=mask)


@triton.jit
def blur_columns_kernel(  # type: ignore[no-untyped-def]
    blurred_ptr, params_ptr, floats_ptr, out_ptr, H, W, mean_r, mean_g, mean_b, std_r, std_g, std_b,
    STRIDE: tl.constexpr, T: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Second pass, along the rows of a tile of all three planes; then rounded, flipped, normalised, to `out`."""
    slot = tl.program_id(0)
    image = tl.load(params_ptr + slot * STRIDE + IMAGE)
    if image >= 0:
        taps = floats_ptr + image * STRIDE + TAPS
        y, x = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
        live = (y < H)[:, None]
        mask = live & (x < W)[None, :]
        rows = blurred_ptr + slot.to(tl.int64) * (H * W * 3) + y[:, None] * W
        red = tl.zeros([ROWS, COLUMNS], tl.float32)
        green, blue = red, red
        for t in range(T):
            source = rows + reflect(tl.minimum(x, W - 1) + (t - T // 2), W)[None, :]
            tap = tl.load(taps + t)
            red = tl.fma(tl.load(source, mask=live, other=0.0), tap, red)
            green = tl.fma(tl.load(source + H * W, mask=live, other=0.0), tap, green)
            blue = tl.fma(tl.load(source + 2 * H * W, mask=live, other=0.0), tap, blue)
        target = tl.where(tl.load(params_ptr + image * STRIDE + FLIP) != 0, W - 1 - x, x)
        first = out_ptr + image.to(tl.int64) * (H * W * 3) + (y[:, None] * W + target[None, :]) * 3
        red, green, blue = red + ROUNDER - ROUNDER, green + ROUNDER - ROUNDER, blue + ROUNDER - ROUNDER
        tl.store(first, normalised(red, mean_r, std_r).to(out_ptr.dtype.element_ty), mask=mask)
        tl.store(first + 1, normalised(green, mean_g, std_g).to(out_ptr.dtype.element_ty), mask=mask)
        tl.store(first + 2, normalised(blue, mean_b, std_b).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["y0", "x0", "y1", "x1"])  # or a box at 1 or at 16 would be compiled anew
def cutmix_kernel(  # type: ignore[no-untyped-def]
    a_ptr, b_ptr, out_ptr, H, W, y0, x0, y1, x1, C: tl.constexpr, CHANNELS_LAST: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """SIZE values of one mixed image, in the order of memory; reads of `a` and `b` only what is taken over."""
    at = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    live = at < H * W * C
    pixel = at // C if CHANNELS_LAST else at % (H * W)
    x, y = pixel % W, pixel // W
    inside = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    base = tl.program_id(0).to(tl.int64) * (H * W * C)
    kept = tl.load(a_ptr + base + at, mask=live & (inside == 0), other=0)
    pasted = tl.load(b_ptr + base + at, mask=live & inside, other=0)
    tl.store(out_ptr + base + at, tl.where(inside, pasted, kept), mask=live)


def pack(params: ViewParams, blur_kernel: int, blur: str = "gaussian") -> NDArray[np.int32]:
    """(N, TAPS + T) words: everything that the host decides, in the layout above."""
    words = np.zeros((len(params), TAPS.value + blur_kernel), np.int32)
    floats = words.view(np.float32)
    factors = np.stack([params.brightness, params.contrast, params.saturation, np.float32(6) * params.hue], axis=1)
    words[:, ORDER.value : FACTOR.value] = params.order
    floats[:, FACTOR.value : REST.value] = factors
    # torchvision blends with 1 - factor, subtracted in double precision.
    floats[:, REST.value : OPERATIONS.value] = 1 - factors.astype(np.float64)
    words[:, OPERATIONS.value] = np.where(params.jitter, 4, 0)
    words[:, BEFORE_CONTRAST.value] = np.where(params.jitter, (params.order == CONTRAST).argmax(axis=1), -1)
    words[:, GREY.value], words[:, FLIP.value] = params.grey, params.flip
    blurred = np.flatnonzero(params.blur_sigma > 0)
    words[:, SLOT.value] = -1
    words[blurred, SLOT.value] = np.arange(len(blurred))
    words[:, IMAGE.value] = -1
    words[: len(blurred), IMAGE.value] = blurred
    floats[blurred, TAPS.value :] = BLURS[blur](params.blur_sigma[blurred], blur_kernel)
    return words


def augment_triton(
    images: Tensor, params: ViewParams, mean: Sequence[float], std: Sequence[float], blur_kernel: int,
    dtype: torch.dtype, blur: str = "gaussian",
) -> Tensor:  # fmt: skip
    """`augment.augment` after its checks; ValueError for other dtypes and images of more than MOST_PIXELS pixels."""
    words = to_device(pack(params, blur_kernel, blur), images.device)
    slots = int((params.blur_sigma > 0).sum())
    return augment_words(images, words, mean, std, blur_kernel, dtype, slots, lumas=bool(params.jitter.any()))


def augment_words(
    images: Tensor, words: Tensor, mean: Sequence[float], std: Sequence[float], blur_kernel: int, dtype: torch.dtype,
    slots: int, *, lumas: bool = True,
) -> Tensor:  # fmt: skip
    """The chain on what `pack` made, on the device: the same launches whatever is in it, so that a graph holds them.

    words: written to; good for one call. slots: places for blurred images, at least as many as there are. lumas:
    whether any image is jittered. Values do not depend on either. ValueError as `augment_triton`.
    """
    count, height, width, _ = images.shape
    if dtype not in DTYPES:
        raise ValueError(f"impl 'triton' gives float16, bfloat16 or float32, not {dtype}; pass impl='reference'")
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"impl 'triton' takes images of up to {MOST_PIXELS} pixels, not {height}x{width}; pass impl='reference'"
        )
    out = images.new_empty((count, height, width, 3), dtype=dtype)
    if count == 0:
        return out.permute(0, 3, 1, 2)
    images, floats, stride, size = images.contiguous(), words.view(torch.float32), words.shape[1], (height, width)
    constants = [*map(float, mean), *map(float, std)]
    pixels = {"STRIDE": stride, "PIXELS": PIXELS, **OPTIONS}
    blocks = ceil_div(height * width, PIXELS)
    if lumas:
        luma_kernel[(count, blocks)](images, words, floats, *size, **pixels)
    levels = images.new_empty((slots, 3, *size))
    colour_kernel[(count, blocks)](images, words, floats, levels, out, *size, *constants, **pixels)
    if slots:
        blurred = torch.empty_like(levels, dtype=torch.float32)
        tiles = (ceil_div(height, ROWS), ceil_div(width, COLUMNS))
        tile = {"STRIDE": stride, "T": blur_kernel, "ROWS": ROWS, "COLUMNS": COLUMNS, **OPTIONS}
        blur_rows_kernel[(3 * slots, *tiles)](levels, words, floats, blurred, *size, **tile)
        blur_columns_kernel[(slots, *tiles)](blurred, words, floats, out, *size, *constants, **tile)
    return out.permute(0, 3, 1, 2)


def cutmix_triton(a: Tensor, b: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The mixed batch of `augment.cutmix` after its checks, in one launch."""
    count, channels, height, width = a.shape
    last = a.is_contiguous(memory_format=torch.channels_last)
    memory = torch.channels_last if last else torch.contiguous_format
    a, b = a.contiguous(memory_format=memory), b.contiguous(memory_format=memory)
    mixed = torch.empty_like(a)
    if mixed.numel():
        cutmix_kernel[(count, ceil_div(channels * height * width, PIXELS))](
            a, b, mixed, height, width, *box, C=channels, CHANNELS_LAST=last, SIZE=PIXELS, num_warps=WARPS
        )
    return mixed
