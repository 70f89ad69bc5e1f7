"""What the kernels ask about a device: generation, multiprocessors, and whether Triton runs there.

Without a GPU, CPU tensors can stand for those of one: `pretend_device` says of which, whoever drives Triton runs its
code (`tests/softgpu`). Nothing else in the package knows of it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

# What the interpreter poses as: (ten times the compute capability, multiprocessors).
INTERPRETER = 80, 2

_pretended: tuple[int, int] | None = None
_caches: list[Any] = []
Asked = TypeVar("Asked", bound=Callable[..., Any])


def per_device(ask: Asked) -> Asked:
    """`functools.cache` for a function whose answer depends on devices; forgotten where pretending begins or ends."""
    cached = functools.cache(ask)
    _caches.append(cached)
    return cached  # type: ignore[return-value]


@contextlib.contextmanager
def pretend_device(arch: int, multiprocessors: int) -> Iterator[None]:
    """Inside the block CPU tensors count as those of a CUDA device with this compute capability times ten.

    It only answers questions: Triton's driver must take launches of CPU tensors, or they fail there. `auto` still
    chooses what suits a CPU. One after the other: not for two threads at once.
    """
    global _pretended
    before = _pretended
    try:
        _pretended = arch, multiprocessors
        _forget()
        yield
    finally:
        _pretended = before
        _forget()


def _forget() -> None:
    for cached in _caches:
        cached.cache_clear()


@per_device
def device_limits(device: torch.device) -> tuple[int, int]:
    """(ten times the compute capability, multiprocessors); the interpreter poses as `INTERPRETER`."""
    if device.type != "cuda":
        return _pretended or INTERPRETER
    properties = torch.cuda.get_device_properties(device)
    return 10 * properties.major + properties.minor, properties.multi_processor_count


@per_device
def device_capability(device: torch.device) -> tuple[int, int] | None:
    """Compute capability of a CUDA device, or of the one that CPU tensors stand for; None for other devices."""
    if device.type == "cpu" and _pretended:
        return _pretended[0] // 10, _pretended[0] % 10
    return torch.cuda.get_device_capability(device) if device.type == "cuda" and torch.version.cuda else None


@functools.cache
def is_interpreted() -> bool:
    """Whether TRITON_INTERPRET is set, which counts from the import of the first kernel on."""
    import triton

    return triton.knobs.runtime.interpret


def runs_triton(device_type: str) -> bool:
    """Whether Triton's kernels take tensors of such a device. Triton must be installed."""
    if device_type == "cpu":
        return _pretended is not None or is_interpreted()
    return device_type == "cuda"
