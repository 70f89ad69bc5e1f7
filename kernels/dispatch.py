"""Which implementation runs, and the call to it. None replaces another in silence: `auto` says once what it chose."""

import functools
import importlib.util
import logging
import math

import torch
from torch import Tensor

from bingo.kernels.reference import queue_softmax_chunked, queue_softmax_reference

IMPLEMENTATIONS = ("auto", "reference", "chunked", "triton", "hopper")

logger = logging.getLogger(__name__)


def resolve_impl(impl: str, device: torch.device | str) -> str:
    """The implementation that `impl` means on `device`; ValueError if it is unknown or cannot run there."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"unknown impl {impl!r}; the implementations are {', '.join(IMPLEMENTATIONS)}")
    device = torch.device(device)
    if impl == "auto":
        return "triton" if device.type == "cuda" else "chunked"
    if impl == "triton":
        _require_triton(device.type)
    if impl == "hopper":
        from bingo.kernels.hopper_queue_softmax import require_hopper

        require_hopper(device)
    return impl


@functools.lru_cache
def choose_impl(impl: str, device: torch.device) -> str:
    """`resolve_impl`, asked once per device (a step must not look for packages); says what `auto` stands for."""
    chosen = resolve_impl(impl, device)
    if impl == "auto":
        logger.info("queue_softmax: impl='auto' runs %r on %s", chosen, device.type)
    return chosen


def _require_triton(device_type: str) -> None:
    if importlib.util.find_spec("triton") is None:
        raise ValueError("impl 'triton' needs the triton package, which is not installed; pass impl='chunked'")
    if device_type == "cuda":
        return
    from bingo.kernels.triton_queue_softmax import is_interpreted

    if device_type != "cpu" or not is_interpreted():
        raise ValueError(
            f"impl 'triton' needs CUDA tensors, these are on {device_type!r}; pass impl='chunked', "
            "or set TRITON_INTERPRET=1 before Python starts to run the kernel on the CPU in Triton's (slow) interpreter"
        )


def evaluate(
    q: Tensor,
    queue: Tensor,
    temperature: float,
    impl: str,
    exclude: Tensor | None,
    ids: Tensor | None,
    *,
    trusted: bool,
    grad: bool,
) -> tuple[Tensor, Tensor]:
    """lse (R) and mean key (R, C; without grad (0, C), or (R, C) from the reference) by the chosen implementation."""
    if impl == "reference":
        return queue_softmax_reference(q, queue, temperature, exclude, ids)
    if impl == "chunked":
        return queue_softmax_chunked(q, queue, temperature, exclude, ids, grad=grad)
    from bingo.kernels.triton_combine import combine
    from bingo.kernels.triton_queue_softmax import Request, check, partials

    check(queue)
    if q.shape[0] == 0:
        return q.new_empty(0, dtype=torch.float32), q.new_empty(q.shape, dtype=torch.float32)
    request = Request(q, queue, math.log2(math.e) / temperature, False, trusted, grad, exclude, ids)
    return combine(*partials(request, hopper=impl == "hopper"), q.shape[1], grad=grad)
