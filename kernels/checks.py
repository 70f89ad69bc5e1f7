"""What the ops refuse: one sentence each, naming the argument and what is allowed."""

import math

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(q: Tensor, queue: Tensor) -> None:
    """ValueError unless q (R, C) and queue (K, C) fit each other."""
    if q.ndim != 2 or queue.ndim != 2 or q.shape[1] != queue.shape[1]:
        raise ValueError(f"q must be (R, C) and queue (K, C), not {tuple(q.shape)} and {tuple(queue.shape)}")
    if queue.shape[0] < 1 or queue.shape[1] < 1:
        raise ValueError(f"queue is {tuple(queue.shape)}; it needs at least one key and one channel")
    if q.dtype not in DTYPES:
        raise ValueError(f"q is {q.dtype}; supported are float16, bfloat16, float32 and float64")
    half = queue.dtype in (torch.float16, torch.bfloat16)
    if q.dtype != queue.dtype and not (half and q.dtype == torch.float32):
        raise ValueError(f"q is {q.dtype} but queue is {queue.dtype}; convert one of them")
    if q.device != queue.device:
        raise ValueError(f"q is on {q.device} but queue is on {queue.device}; move one of them")
    if not queue.is_contiguous():
        raise ValueError("queue must be contiguous with keys in rows; pass queue.contiguous() (once, not every step)")


def check_values(values: Tensor | None, queue: Tensor) -> None:
    """ValueError unless values (K, D) fit the queue (K, C)."""
    if values is None:
        return
    keys = queue.shape[0]
    if values.ndim != 2 or values.shape[0] != keys or values.shape[1] < 1:
        raise ValueError(f"values is {tuple(values.shape)}; it must be ({keys}, D), one row per key of the queue")
    if values.dtype != queue.dtype or values.device != queue.device or not values.is_contiguous():
        raise ValueError(
            f"values is {values.dtype} on {values.device}; it must be contiguous {queue.dtype} on {queue.device}, as "
            "the queue"
        )


def check_constants(queue: Tensor, temperature: float) -> None:
    """ValueError for what cannot have a gradient but asks for one."""
    if isinstance(temperature, Tensor):
        raise ValueError("temperature is a tensor, but the op has no gradient for it; pass a Python number")
    if queue.requires_grad:
        raise ValueError("queue requires a gradient, but the op gives it none; pass queue.detach()")


def check_no_gradient(q: Tensor, values: Tensor | None) -> None:
    """ValueError where a mean over values, which has no gradient, is asked for one."""
    if values is None:
        return
    if values.requires_grad:
        raise ValueError("values requires a gradient, but the op gives it none; pass values.detach()")
    if q.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "q requires a gradient, which queue_softmax with values has not; pass q.detach(), or use no_grad()"
        )


def check_all(
    q: Tensor,
    queue: Tensor,
    temperature: float,
    exclude: Tensor | None,
    queue_ids: Tensor | None,
    values: Tensor | None,
) -> None:
    """ValueError unless everything that `queue_softmax` takes fits together."""
    check_tensors(q, queue)
    check_values(values, queue)
    check_temperature(temperature)
    check_exclude(exclude, queue_ids, q, queue)


def check_temperature(temperature: float) -> None:
    """ValueError unless it is a finite number above 0."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}; it must be a finite number above 0, such as 0.2")


def check_exclude(exclude: Tensor | None, queue_ids: Tensor | None, q: Tensor, queue: Tensor) -> None:
    """ValueError unless exclude (G, E) and queue_ids (K), int64, fit q and queue."""
    if exclude is None:
        return
    if queue_ids is None:
        raise ValueError("exclude is given without queue_ids; pass the int64 id of every key in the queue as queue_ids")
    if exclude.ndim != 2 or exclude.shape[0] < 1 or q.shape[0] % exclude.shape[0]:
        raise ValueError(
            f"exclude is {tuple(exclude.shape)}; it must be (G, E) with the {q.shape[0]} rows of q a multiple of G"
        )
    check_ids("queue_ids", queue_ids, queue)
    if exclude.dtype != torch.int64 or exclude.device != q.device or not exclude.is_contiguous():
        raise ValueError(
            f"exclude is {exclude.dtype} on {exclude.device}; it must be contiguous int64 on {q.device}, as q"
        )


def check_ids(name: str, ids: Tensor, keys: Tensor) -> None:
    """ValueError unless `ids` holds one int64 per row of `keys`."""
    if ids.shape != keys.shape[:1]:
        raise ValueError(f"{name} is {tuple(ids.shape)}; it must be ({keys.shape[0]},), one id per key")
    if ids.dtype != torch.int64 or ids.device != keys.device or not ids.is_contiguous():
        raise ValueError(f"{name} is {ids.dtype} on {ids.device}; it must be contiguous int64 on {keys.device}")
