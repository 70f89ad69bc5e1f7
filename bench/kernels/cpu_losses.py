"""What `bingo bench kernels` times on a CPU: ours, what PyTorch offers, and a library that may be absent.

All take q (R, C), keys (R, M, C), weights (1, M) and the queue (K, C), and give the loss of each row (R): M positives,
each in its own softmax against the queue. None of the cross-entropies knows a positive that is not a class: they are
asked for the loss of class 0 with the queue as classifier, which is its log-sum-exp but for one product, and the rest
is plain arithmetic on R x M numbers. So each passes the queue once, which is the cheapest use of it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.bench.kernels.workload import naive_loss
from bingo.kernels import bag_loss

TEMPERATURE = 0.2
NAIVE, CHUNKED = "naive", "chunked"
# Of the chunked form of F.linear_cross_entropy; its own choice is 2 rows at these sizes, and slow.
CHUNK_ROWS = 128
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Rival(NamedTuple):
    """A loss by name. make: called once, before anything is timed; ImportError or AttributeError where it is absent.

    get: how to get it, where it may be absent.
    """

    make: Callable[[], Loss]
    get: str = ""


def naive(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    """The published code's: for each positive all R x (1 + K) logits, and a softmax over them."""
    return naive_loss(q, keys, weights, queue, TEMPERATURE)


def chunked(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    """Ours."""
    return bag_loss(q, keys, weights, queue, TEMPERATURE, impl="chunked", unit_rows=True)


def plain(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
    """Ten plain lines: one product, one log-sum-exp, and a logaddexp for each positive."""
    return _from_lse(torch.logsumexp(q @ queue.T / TEMPERATURE, dim=1), q, keys, weights)


def _from_lse(lse_R: Tensor, q_RC: Tensor, keys_RMC: Tensor, weights_1M: Tensor) -> Tensor:
    positive_RM = torch.einsum("rc,rmc->rm", q_RC, keys_RMC) / TEMPERATURE
    return (weights_1M * (torch.logaddexp(lse_R[:, None], positive_RM) - positive_RM)).sum(dim=1)


def _from_cross_entropy(cross_entropy: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Loss:
    """The loss by a fused linear cross-entropy: (rows / temperature, queue, classes) -> loss of each row."""

    def loss(q: Tensor, keys: Tensor, weights: Tensor, queue: Tensor) -> Tensor:
        scaled = q / TEMPERATURE
        classes = torch.zeros(len(q), dtype=torch.long, device=q.device)
        lse = cross_entropy(scaled, queue, classes) + scaled @ queue[0]
        return _from_lse(lse, q, keys, weights)

    return loss


def _compiled() -> Loss:
    return torch.compile(plain, dynamic=False)


def _linear_cross_entropy(options: Callable[[Any], Any]) -> Loss:
    """PyTorch's own (2.13 and later). options: of its class of options, None for the form that is not chunked."""
    chosen = options(getattr(torch.nn, "LinearCrossEntropyOptions", None))
    call = functools.partial(F.linear_cross_entropy, reduction="none", options=chosen)  # AttributeError: older torch
    return _from_cross_entropy(call)


def _cut_cross_entropy() -> Loss:
    from cut_cross_entropy.torch_compile import torch_compile_linear_cross_entropy

    return _from_cross_entropy(functools.partial(torch_compile_linear_cross_entropy, reduction="none"))


RIVALS = {
    NAIVE: Rival(lambda: naive),
    CHUNKED: Rival(lambda: chunked),
    "plain PyTorch": Rival(lambda: plain),
    "compiled plain PyTorch": Rival(_compiled),
    "F.linear_cross_entropy": Rival(lambda: _linear_cross_entropy(lambda _: None), "torch 2.13 or later"),
    "F.linear_cross_entropy, its chunks": Rival(
        lambda: _linear_cross_entropy(lambda options: options()), "torch 2.13 or later"
    ),
    f"F.linear_cross_entropy, {CHUNK_ROWS} rows": Rival(
        lambda: _linear_cross_entropy(
            lambda options: options(batch_chunk_size=CHUNK_ROWS, chunking_method=None)
        ),
        "torch 2.13 or later",
    ),
    "cut-cross-entropy, compiled": Rival(_cut_cross_entropy, "pip install --no-deps cut-cross-entropy"),
}  # fmt: skip
"""Name -> loss, the naive one and ours first."""


def build(names: Sequence[str] = ()) -> tuple[dict[str, Loss], dict[str, str]]:
    """The losses of these names (all), and for those that are absent how to get them."""
    made: dict[str, Loss] = {}
    absent: dict[str, str] = {}
    for name in names or RIVALS:
        try:
            made[name] = RIVALS[name].make()
        except (ImportError, AttributeError, TypeError) as error:
            absent[name] = f"not installed ({type(error).__name__}); {RIVALS[name].get}"
    return made, absent
