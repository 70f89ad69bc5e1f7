"""Correctness and speed of the augmentation's Triton kernels against the PyTorch chain."""

import numpy as np
import torch
from torch import Tensor

from bingo.bench.gpu.checks import Outcome, Setting, need_cuda, no_waiting
from bingo.bench.timing import interleave, make_timer
from bingo.config_parts import Augmentation
from bingo.kernels.augment import augment, cutmix
from bingo.kernels.view_params import ViewParams
from bingo.views.plan import view_params

# Share of values that may differ: those that the blur leaves between two levels within rounding.
SHARE = 1e-3
TIMED_VIEWS, TIMED_ROUNDS = 1024, 3


def make_views(count: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, ViewParams]:
    """Images (N, H, W, 3) uint8 on the CPU, half of them noise and half smooth, and MoCo-v2's parameters, hue wider."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    ramp = np.linspace(0, 200, height * width * 3).reshape(height, width, 3)
    images[::2] = ramp + images[::2, :1, :1] / 5
    config = Augmentation(hue=0.5, grey_p=0.3)
    return torch.from_numpy(images), view_params(rng.random((count, 14)), config)


def run(images: Tensor, params: ViewParams, impl: str, blur_kernel: int, dtype: torch.dtype) -> Tensor:
    config = Augmentation()
    return augment(images, params, mean=config.mean, std=config.std, blur_kernel=blur_kernel, dtype=dtype, impl=impl)


def chain(s: Setting, count: int, height: int, width: int, blur_kernel: int) -> Outcome:
    """Share of values that differ from the CPU's, none by more than a level; and an equal call gives equal bits."""
    images, params = make_views(count, height, width)
    expected = run(images, params, "reference", blur_kernel, s.dtype)
    found, again = (run(images.to(s.device), params, s.impl, blur_kernel, s.dtype) for _ in range(2))
    assert torch.equal(found, again), "two equal calls differ"
    furthest = (found.cpu().float() - expected.float()).abs().max().item() * 255 * max(Augmentation().std)
    assert furthest <= 1.5, f"a value is {furthest:.1f} levels off"  # a level, and the dtype's rounding
    return Outcome((found.cpu() != expected).float().mean().item(), SHARE, "of the values differ")


def mixes(s: Setting, count: int, height: int, width: int) -> Outcome:
    """CutMix is a copy: not one value differs, in both memory formats."""
    wrong = 0
    for memory in (torch.channels_last, torch.contiguous_format):
        a, b = (
            run(*make_views(count, height, width, seed), "reference", 3, s.dtype).to(s.device, memory_format=memory)
            for seed in (1, 2)
        )
        for box in ((1, 2, height // 2, width - 1), (0, 0, height, width), (3, 3, 3, 5)):
            mixed, expected = (cutmix(a, b, box, impl=impl)[0] for impl in (s.impl, "reference"))
            wrong += int((mixed != expected).sum())
    return Outcome(wrong, 0, "values differ")


def never_waits(s: Setting, count: int, size: int) -> Outcome:
    """The chain and CutMix never make the host wait."""
    need_cuda(s)
    images, params = make_views(count, size, size)
    images = images.to(s.device)

    def call() -> None:
        views = run(images, params, s.impl, 23, s.dtype)
        cutmix(views, views, (3, 4, size - 5, size - 6), impl=s.impl)

    call()
    torch.cuda.synchronize()
    with no_waiting():
        call()
    return Outcome(0, 0, "no wait seen")


def speed(s: Setting, size: int) -> Outcome:
    """Time of a large batch over that of the PyTorch chain on the same device, host included; at most 1."""
    need_cuda(s)
    images, params = make_views(TIMED_VIEWS, size, size)
    images, timer = images.to(s.device), make_timer(s.device)
    no_capture = "its parameters come from the host"
    timed = {
        impl: timer.prepare(lambda i, impl=impl: (run(images, params, impl, 23, s.dtype),), 1, no_capture)  # type: ignore[misc]
        for impl in (s.impl, "reference")
    }
    samples = interleave(timed, TIMED_ROUNDS, 10, 0.1)
    ours, theirs = (float(np.median(samples[impl])) for impl in (s.impl, "reference"))
    note = f"{1e3 * ours:.2f} ms for {TIMED_VIEWS} views of {size} pixels; PyTorch {1e3 * theirs:.2f} ms"
    return Outcome(ours / theirs, 1.0, note)
