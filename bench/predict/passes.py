"""The kernels of a distillation step: the real networks, losses and optimiser on meta tensors, our own kernels by hand.

Networks run as they do under autocast: weights of convolutions and linear layers are cast once a step, batch norms keep
fp32. Nothing is computed; a pass of ResNet-50 takes a third of a second.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from torch.func import functional_call

from bingo.bench.kernels.workload import LOSS, LossShape
from bingo.bench.predict.flow import Kernel, kernels_of
from bingo.bench.step.release import ReleaseStyle
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.models import Encoder, check_name
from bingo.models.costs import Op, ops_of

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
SMALL_KERNELS = 8  # normalising, casting and joining queries and keys around the loss


@functools.lru_cache(maxsize=16)
def network(name: str, dim: int, hidden: int) -> Encoder:
    """A network on the meta device, channels-last; `UserError` for a name that is none."""
    check_name(name)
    with torch.device("meta"):
        return Encoder(name, dim=dim, hidden=hidden).to(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=64)
def teacher_pass(
    name: str, rows: int, size: int, dtype: torch.dtype, dim: int, hidden: int, *, rounded: bool
) -> tuple[Kernel, ...]:
    """One forward pass of the frozen teacher over `rows` images. rounded: its weights have the dtype already."""
    encoder = network(name, dim, hidden).eval()
    weights = _weights(encoder, dtype)

    def run() -> None:
        _project(encoder, weights if rounded else _weights(encoder, dtype), _images(rows, size, dtype), 1)

    with torch.no_grad():
        ops = _recorded(name, run)
    return tuple(kernels_of(ops, training=False))


@functools.lru_cache(maxsize=64)
def student_pass(
    name: str, rows: int, size: int, dtype: torch.dtype, dim: int, hidden: int, views: int
) -> tuple[Kernel, ...]:
    """Forward passes over `views` batches of `rows` images one after the other, and one backward pass."""
    encoder = network(name, dim, hidden).train().requires_grad_(True)

    def run() -> None:
        sums = _project(encoder, _weights(encoder, dtype), _images(rows, size, dtype), views)
        sum(sums, start=torch.zeros((), device="meta")).backward()
        encoder.zero_grad(set_to_none=True)

    return tuple(kernels_of(_recorded(name, run)))


def _recorded(name: str, call: Callable[[], Any]) -> list[Op]:
    try:
        return ops_of(call)
    except (NotImplementedError, RuntimeError) as error:  # an operation that needs more than shapes
        raise UserError(
            f"{name} cannot be predicted: {str(error).splitlines()[0]}; name another network, resnet18 for example"
        ) from error


def _images(rows: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    images = torch.zeros(rows, 3, size, size, device="meta", dtype=dtype)
    return images.to(memory_format=torch.channels_last)


def _weights(encoder: Encoder, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Those of convolutions and linear layers cast, as under autocast: once for all views of a step."""
    norms = {name for name, module in encoder.named_modules() if isinstance(module, NORMS)}
    return {
        name: weight if name.rpartition(".")[0] in norms else weight.to(dtype)
        for name, weight in encoder.named_parameters()
    }


def _project(
    encoder: Encoder, weights: dict[str, torch.Tensor], images: torch.Tensor, views: int
) -> list[torch.Tensor]:
    """The sum of each view's projections."""
    return [functional_call(encoder, weights, (images,)).sum() for _ in range(views)]


@functools.lru_cache(maxsize=16)
def optimiser_pass(name: str, dim: int, hidden: int, fused: bool) -> tuple[Kernel, ...]:
    """SGD with momentum: torch's passes over lists of tensors, or one kernel that reads and writes all once."""
    encoder = network(name, dim, hidden)
    if fused:
        size = gradient_bytes(name, dim, hidden)
        return (Kernel("sgd", "other", reads={(-1, part): size for part in range(3)},
                       writes={(-1, part): size for part in (3, 4)}),)  # fmt: skip
    weights = [torch.zeros_like(weight, requires_grad=True) for weight in encoder.parameters()]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimiser = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=True)
    optimiser.step()  # makes the momentum buffers
    return tuple(kernels_of(ops_of(optimiser.step)))


def gradient_bytes(name: str, dim: int, hidden: int) -> int:
    """Bytes of the fp32 gradients that ranks add up."""
    return sum(4 * weight.numel() for weight in network(name, dim, hidden).parameters())


def augment_pass(rows: int, size: int, width: int, calls: int, *, copied: bool, mixed: bool) -> list[Kernel]:
    """Our augmentation and CutMix, by what its kernels read and write (`kernels/triton_augment.py`).

    width: bytes of a number that the network sees; calls: of `rows` crops each; copied: to NCHW, as the release-style
    step asks; mixed: with CutMix of one batch.
    """
    pixels, blurred = 3 * rows * size * size, Augmentation().blur_p
    copy = _moved(width * pixels, width * pixels)
    per_call = [
        _moved(Augmentation().jitter_p * pixels, 0),
        _moved(pixels, width * pixels + blurred * pixels),
        _moved(blurred * pixels, 4 * blurred * pixels),
        _moved(4 * blurred * pixels, width * blurred * pixels),
    ]
    return (per_call + [copy] * copied) * calls + [copy] * mixed


def loss_pass(rows: int, views: int, keys: int, dim: int) -> list[Kernel]:
    """Our loss and its gradient in one pass over a bf16 queue, and the small operations around it."""
    shape = LossShape(views * rows, keys, dim)
    product = Kernel("mm", "other", shape.flops(LOSS), torch.bfloat16, {(-2, 0): shape.least_bytes()})
    return [product, *[_moved(4 * views * rows * dim, 4 * views * rows * dim)] * SMALL_KERNELS]


@functools.lru_cache(maxsize=16)
def release_loss_pass(rows: int, views: int, keys: int, dim: int) -> tuple[Kernel, ...]:
    """The release-style loss with its logits in memory, forwards and backwards: `bench/step/release.py` itself."""
    style = SimpleNamespace(
        queue_KC=torch.zeros(keys, dim, device="meta"),
        config=SimpleNamespace(contrast=SimpleNamespace(temperature=0.2)),
    )
    queries = torch.zeros(rows, dim, device="meta", requires_grad=True)
    positives = torch.zeros(rows, 2, dim, device="meta")

    def run() -> None:
        release = cast(ReleaseStyle, style)
        losses = [ReleaseStyle._view_loss(release, queries, positives, (0.5, 0.5)) for _ in range(views)]
        sum(losses, start=torch.zeros((), device="meta")).backward()

    return tuple(kernels_of(ops_of(run)))


def _moved(read: float, written: float) -> Kernel:
    return Kernel("ours", "other", reads={(-3, 0): int(read)}, writes={(-3, 1): int(written)})
