"""A frozen network as an inference engine: batch norm in its convolutions, channels last, bf16 weights, compiled.

One function makes it, for the live teacher, features, keys and evaluation alike. What it gives is what the network
gives, up to rounding (unit rows within 1e-5 in fp32); a first pass over noise compares the two. A network that is still
trained is not for it: it keeps the weights that it was made of.
"""

import copy
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from bingo.config_parts import Runtime
from bingo.files import first_line
from bingo.models.arithmetic import autocast, engine_of, precision_of
from bingo.models.encoder import Encoder

log = logging.getLogger(__name__)
FAR = {"fp32": 1e-3, "bf16": 5e-2}
"""Precision -> the largest difference between unit rows of a network and of its engine that is rounding.

TF32 and bf16 round far more coarsely than fp32; a wrong engine is off by about 1.
"""


def frozen_engine(
    encoder: Encoder,
    runtime: Runtime,
    device: torch.device,
    *,
    rows: int,
    size: int,
    dtype: torch.dtype = torch.float32,
) -> Encoder:
    """The frozen encoder, in eval mode, as `runtime.engine` wants it on its device; its `engine` says what it became.

    rows: images of a call; size: their pixels per side; dtype: theirs, float32 or what `view_dtype` says. A compiled
    engine takes calls of other numbers of images too, cut and padded to `rows`. A network that cannot be traced, and a
    compiler that fails, cost one sentence and the step that they would have been. `plain` is the encoder itself.
    """
    encoder.eval().requires_grad_(False)
    kind = engine_of(runtime, device)
    if kind == "plain":
        return encoder
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    images = noise[torch.arange(rows, device=device) % 2].contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), autocast(runtime, device):
        expected = encoder.features(images[:2])
        engine = _folded(encoder)
        if precision_of(runtime, device) == "bf16":
            _round_weights(engine)
        if runtime.channels_last:
            engine.to(memory_format=torch.channels_last)
        engine.engine = "folded"
        if kind == "compiled":
            engine = _compiled(engine, images)
        found = engine.features(images)[:2]
    far = (F.normalize(found, dim=1) - F.normalize(expected, dim=1)).abs().max().item()
    if not far <= FAR[precision_of(runtime, device)]:
        log.warning("%s runs as it is: its %s engine gives other features (by %.2g)", encoder.name, engine.engine, far)
        return encoder
    log.info("%s: the frozen network runs %s", encoder.name, engine.engine)
    return engine


def _folded(encoder: Encoder) -> Encoder:
    """A copy whose batch norms are part of the convolution or linear layer before them, where there is one."""
    from torch.fx.experimental.optimization import fuse

    engine = copy.deepcopy(encoder)
    for name in ("backbone", "head"):
        try:
            part = fuse(engine.get_submodule(name), inplace=True)
        except Exception as error:  # of the tracer, in many types: what a network does may depend on its images
            log.info("%s: batch norm of the %s stays, it cannot be traced (%s)", encoder.name, name, first_line(error))
        else:
            setattr(engine, name, part.requires_grad_(False))
    return engine


def _round_weights(engine: Encoder) -> None:
    """Weights of products in bf16, as autocast rounds them in each call: here it is done once."""
    for module in engine.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.to(torch.bfloat16)


def compiled_or_not(function: Callable[[torch.Tensor], torch.Tensor], name: str) -> Callable[..., torch.Tensor]:
    """The function compiled for what its first call gives it; as it is, with a sentence, where the compiler fails.

    name: of the network, for the sentence.
    """
    chosen: list[Callable[[torch.Tensor], torch.Tensor]] = []

    def call(images: torch.Tensor) -> torch.Tensor:
        if chosen:
            return chosen[0](images)
        compiled = torch.compile(function)
        try:
            found = compiled(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the compiler, in many types
            log.warning("%s: cannot be compiled, and runs as it is (%s)", name, first_line(error))
            chosen.append(function)
            return function(images)
        chosen.append(compiled)
        return found

    return call


def _compiled(engine: Encoder, images: torch.Tensor) -> Encoder:
    """The engine with a compiled backbone, or as it is where the compiler fails; images: what it will be called with.

    The head stays: it is a few small products.
    """
    backbone = engine.backbone
    engine.backbone = _Static(backbone, len(images))
    try:
        engine.features(images)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of the compiler, in many types; the same images without it raise what is another's
        log.warning("%s: cannot be compiled, and runs folded (%s)", engine.name, first_line(error))
        engine.backbone = backbone
        return engine
    engine.engine = "compiled"
    return engine


class _Static(nn.Module):
    """A network compiled for one number of images; calls with others are cut and padded to it, never compiled anew."""

    def __init__(self, network: nn.Module, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.run = torch.compile(network, dynamic=False)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) == self.rows:
            return self.run(self._whole(images))
        return torch.cat([self.run(self._whole(part))[: len(part)] for part in images.split(self.rows)])

    def _whole(self, part: torch.Tensor) -> torch.Tensor:
        if missing := self.rows - len(part):
            part = torch.cat([part, part.new_zeros(missing, *part.shape[1:])])
        return part.contiguous(memory_format=torch.channels_last)
