"""Which implementation runs, and the call to it. None replaces another in silence: `auto` says once what it chose."""

import importlib.util
import logging

import torch
from torch import Tensor

from bingo.kernels.checks import check_all
from bingo.kernels.device import device_capability, device_limits, per_device, runs_triton
from bingo.kernels.reference import queue_softmax_chunked, queue_softmax_reference
from bingo.kernels.request import Request
from bingo.kernels.splits import SPLIT_KEYS, is_fast, plan_splits, split_evenly

IMPLEMENTATIONS = ("auto", "reference", "chunked", "triton", "hopper")
PLAIN_OR_TRITON = ("auto", "reference", "triton")

logger = logging.getLogger(__name__)


def resolve_impl(impl: str, device: torch.device | str) -> str:
    """The implementation that `impl` means on `device`; ValueError if it is unknown or cannot run there."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"unknown impl {impl!r}; the implementations are {', '.join(IMPLEMENTATIONS)}")
    device = torch.device(device)
    if impl == "auto":
        return "triton" if device.type == "cuda" else "chunked"
    if impl == "triton":
        require_triton(device.type, "chunked")
    if impl == "hopper":
        from bingo.kernels.hopper_queue_softmax import require_hopper

        require_hopper(device_capability(device))
    return impl


# A compiler need not follow how packages and devices are looked up. This is `torch.compiler.assume_constant_result`
# without its import of torch._dynamo, which costs each process 1.4 s and 150 MiB, compiling or not.
resolve_impl._dynamo_marked_constant = True  # type: ignore[attr-defined]


@per_device
def choose_impl(impl: str, device: torch.device) -> str:
    """`resolve_impl`, asked once per device (a step must not look for packages); says what `auto` stands for."""
    chosen = resolve_impl(impl, device)
    if impl == "auto":
        logger.info("queue_softmax: impl='auto' runs %r on %s", chosen, device.type)
    return chosen


def reference_or_triton(
    impl: str, device_type: str, op: str, log: logging.Logger, they: str = "the implementations"
) -> str:
    """What `impl` means for an op that has these two; says in `log` what "auto" stands for.

    ValueError, in which `they` are the allowed ones, as for `resolve_impl`.
    """
    if impl not in PLAIN_OR_TRITON:
        raise ValueError(f"unknown impl {impl!r}; {they} are {', '.join(PLAIN_OR_TRITON)}")
    chosen = impl
    if impl == "auto":
        chosen = "triton" if device_type == "cuda" else "reference"
        log.info("%s: impl='auto' runs %r on %s", op, chosen, device_type)
    if chosen == "triton":
        require_triton(device_type, "reference")
    return chosen


def require_triton(device_type: str, instead: str) -> None:
    """ValueError where the Triton kernels cannot run; instead: the implementation to ask for then."""
    if importlib.util.find_spec("triton") is None:
        raise ValueError(f"impl 'triton' needs the triton package, which is not installed; pass impl={instead!r}")
    if not runs_triton(device_type):
        raise ValueError(
            f"impl 'triton' needs CUDA tensors, these are on {device_type!r}; pass impl={instead!r}, "
            "or set TRITON_INTERPRET=1 before Python starts to run the kernel on the CPU in Triton's (slow) interpreter"
        )


def accept(
    q: Tensor,
    queue: Tensor,
    temperature: float,
    impl: str,
    exclude: Tensor | None,
    queue_ids: Tensor | None,
    unit_rows: bool,
    values: Tensor | None = None,
    *,
    normalize: bool = False,
    grad: bool = True,
) -> Request:
    """The arguments of an op as one object, with the implementation that `impl` stands for; ValueError if they do not
    fit together."""
    check_all(q, queue, temperature, exclude, queue_ids, values)
    chosen = choose_impl(impl, q.device)
    return Request(q, queue, temperature, chosen, exclude, queue_ids, unit_rows, normalize, grad, values)


def evaluate(request: Request) -> tuple[Tensor, Tensor]:
    """lse (R) and mean (R, D; without grad (0, D), or (R, D) from the reference) of an accepted request."""
    if request.impl == "reference":
        return queue_softmax_reference(request)
    if request.impl == "chunked":
        return queue_softmax_chunked(request)
    from bingo.kernels.triton_combine import combine
    from bingo.kernels.triton_queue_softmax import check

    q = request.q_RC
    check(request.queue_KC, request.values_KD)
    if q.shape[0] == 0:
        return q.new_empty(0, dtype=torch.float32), q.new_empty(q.shape, dtype=torch.float32)
    return combine(*partials(request), q.shape[1], grad=request.grad)


def partials(request: Request, *, splits: int | None = None) -> tuple[Tensor, Tensor]:
    """(lse_SR, mean_SRC) by impl "triton" or "hopper", fp32: per split, log2 of the sum of 2^z and the mean key.

    Without grad the second is (0,). R and K must be at least 1. splits: how many parts the queue is cut into, by
    default so many that the last wave of thread blocks is nearly full. ValueError for what the kernels do not take.
    """
    from bingo.kernels import triton_queue_softmax as portable

    q, queue = request.q_RC, request.queue_KC
    portable.check(queue, request.values_KD)
    (rows, channels), keys = q.shape, queue.shape[0]
    hopper = request.impl == "hopper" and keys >= SPLIT_KEYS
    sms = device_limits(q.device)[1]
    tile, blocks = portable.row_tile(request)
    slots = sms * blocks
    if hopper:
        from bingo.kernels.hopper_queue_softmax import ROWS_PER_BLOCK

        tile, slots = ROWS_PER_BLOCK, sms
    # The Hopper kernel takes whole tiles of keys; the portable one adds what is left as a split of its own.
    main = keys - keys % SPLIT_KEYS if hopper else keys
    per_split, count = split_evenly(main, splits) if splits else plan_splits(rows, main, tile, slots)
    lse_SR = q.new_empty((count + (main < keys), rows), dtype=torch.float32)
    mean_SRC = q.new_empty((lse_SR.shape[0], rows, channels) if request.grad else (0,), dtype=torch.float32)
    parts = [(request, lse_SR, mean_SRC)]
    if main < keys:
        parts = [
            (request.of_keys(slice(0, main)), lse_SR[:count], mean_SRC[:count]),
            (request.of_keys(slice(main, keys)), lse_SR[count:], mean_SRC[count:]),
        ]
    fast = is_fast(request.scale, keys, queue.dtype)
    for i, (part, lse, mean) in enumerate(parts):
        if hopper and i == 0:
            _write_hopper(part, per_split, lse, mean)
        else:
            portable.write_partials(part, per_split, lse, mean, safe=not fast)
        if fast and not request.unit_rows:
            portable.write_partials(part, per_split, lse, mean, safe=True, repair=True)
    return lse_SR, mean_SRC


def _write_hopper(request: Request, keys_per_split: int, lse_SR: Tensor, mean_SRC: Tensor) -> None:
    from bingo.kernels.hopper_queue_softmax import hopper_partials

    hopper_partials(request._replace(q_RC=request.q_RC.contiguous()), keys_per_split, lse_SR, mean_SRC)
