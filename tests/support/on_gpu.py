"""The GPU that Triton's kernels run on in tests: the real one, or one that tests/softgpu pretends on the CPU."""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gpus import gpu_count

REAL = gpu_count() > 0
GENERATIONS = (None,) if REAL else (80, 90, 100)
POLICIES = ("cuda",) if REAL else ("random", "lazy", "eager")
"""When asynchronous work of a pretended GPU is done."""
every_generation = pytest.mark.parametrize(
    "gpu", GENERATIONS, indirect=True, ids=lambda arch: f"sm_{arch}" if arch else "cuda"
)
"""A test that runs on each; others take one, see `of_file`."""


def in_turn(at: int) -> int | None:
    """The generation of the at-th case, where one is enough for each."""
    return GENERATIONS[at % len(GENERATIONS)]


def of_file(path: Path) -> int | None:
    """The generation of a file's tests where they name none; one for all, so that they share compiled kernels."""
    return in_turn(zlib.crc32(path.name.encode()))


@contextlib.contextmanager
def on_gpu(arch: int | None, policy: str = "random", **options: Any) -> Iterator[Any]:
    """Triton's kernels take the tensors of `naive.DEVICE`; yields the pretended GPU of two multiprocessors, if any.

    arch: compute capability times ten. policy and options: as for `softgpu.driver.pretend`. Of a real GPU no choice.
    """
    if REAL:
        yield None
        return
    from bingo.kernels.device import pretend_device
    from tests.softgpu.driver import pretend

    with pretend(arch, policy=policy, **options) as gpu, pretend_device(arch, gpu.multiprocessors):
        yield gpu
