"""Compiles portable kernels and augmentation as their launches ask for it, on a machine without a GPU; a program.

The interpreter checks no types, and the ahead-of-time report makes up its own arguments. Here the real launch code runs
and Triton's own binder specialises the arguments (None, 1, multiples of 16, descriptors) for a GPU that is not there;
launching is left out.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from bingo.kernels import NewKeys, dispatch
from bingo.kernels import triton_augment as chain
from bingo.kernels import triton_combine as ends
from bingo.kernels import triton_knn as knn
from bingo.kernels import triton_queue_softmax as portable
from bingo.kernels.request import Request
from bingo.kernels.view_params import ViewParams

ENDS = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class PretendDriver:
    """What the binder and the compiler ask of a driver."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)


def compile_only(kernel: Any, launched: list[str]) -> None:
    run = kernel.run

    def warm_up(*arguments: Any, grid: Any, warmup: bool = False, **options: Any) -> Any:
        launched.append(kernel.fn.__name__)
        return run(*arguments, grid=grid, warmup=True, **options)

    kernel.run = warm_up


def launch_all(rows: int, keys: int, channels: int, dtype: torch.dtype, q_dtype: torch.dtype, **settings: Any) -> None:
    """One call of everything: partials, combine, the fused end, ranks."""
    exclude, ids, new = None, None, settings.get("new", 0)
    if settings.get("exclude"):
        exclude, ids = torch.zeros(1, 2, dtype=torch.int64), torch.arange(keys)
    q, queue = torch.zeros(rows, channels, dtype=q_dtype), torch.zeros(keys, channels, dtype=dtype)
    fused, grad = settings.get("fused", False), settings.get("grad", True)
    request = Request(q, queue, settings.get("temperature", 0.2), "triton", exclude, ids, fused, fused, grad)
    parts = dispatch.partials(request)
    ends.combine(*parts, channels, grad=grad)
    bag, weights, fresh = torch.zeros(rows, 2, channels), torch.ones(1, 2), torch.zeros(new, channels, dtype=q_dtype)
    written: Tensor | None = None if ids is None else ids[:new].clone()
    writes = NewKeys(fresh, torch.zeros(2, dtype=torch.int64), written) if new else None
    ends.combine_bags(*parts, request, bag, weights, writes)
    portable.ranks(request, torch.zeros(rows, 2))


def views_all(count: int, height: int, width: int, taps: int, dtype: torch.dtype) -> None:
    """The whole chain, the same where nothing is jittered or blurred, and CutMix in both memory formats."""
    on, one = np.ones(count, bool), np.ones(count, np.float32)
    params = ViewParams(on, one, one, one, 0 * one, np.tile(np.arange(4), (count, 1)), on, one, on)
    images = torch.zeros(count, height, width, 3, dtype=torch.uint8)
    views = chain.augment_triton(images, params, *ENDS, taps, dtype)
    chain.augment_triton(images, replace(params, jitter=~on, blur_sigma=0 * one), *ENDS, taps, dtype)
    chain.cutmix_triton(views, views, (0, 1, min(16, height), width))
    chain.cutmix_triton(views.contiguous(), views, (0, 0, 0, 0))


def launch_nearest(queries: int, rows: int, channels: int, k: int, dtype: torch.dtype) -> None:
    exclude = torch.arange(queries, dtype=torch.int32)
    knn.best(torch.zeros(queries, channels, dtype=dtype), torch.zeros(rows, channels, dtype=dtype), k, exclude)


def main(arch: int) -> None:
    driver.set_active(PretendDriver(arch))
    portable.device_limits = dispatch.device_limits = knn.device_limits = lambda device: (arch, 132)
    launched: list[str] = []
    of_views = (chain.luma_kernel, chain.colour_kernel, chain.blur_rows_kernel, chain.blur_columns_kernel)
    of_keys = (portable.split_kernel, portable.rank_kernel, ends.combine_kernel, ends.bag_kernel)
    for kernel in (*of_keys, *of_views, chain.cutmix_kernel, knn.nearest_kernel):
        compile_only(kernel, launched)
    single, half = torch.float32, torch.bfloat16
    launch_all(768, 65536, 128, half, single, fused=True, new=256)
    launch_all(1, 1, 16, half, half)
    launch_all(2, 130, 48, torch.float16, torch.float16, exclude=True, new=1)
    launch_all(64, 1000, 64, half, half, grad=False)
    launch_all(10, 300, 64, half, single, temperature=0.01)
    launch_all(3, 77, 32, single, single)
    views_all(256, 224, 224, 23, half)
    views_all(3, 21, 20, 3, torch.float16)
    views_all(1, 1, 1, 1, single)
    launch_nearest(1000, 70000, 2048, 13, half)
    launch_nearest(1, 1, 1, 1, torch.float16)
    launch_nearest(130, 1000, 1000, 20, torch.float16)
    launch_nearest(64, 129, 33, 32, single)
    print(*(f"{name}:{launched.count(name)}" for name in sorted(set(launched))))


if __name__ == "__main__":
    main(int(sys.argv[1]))
