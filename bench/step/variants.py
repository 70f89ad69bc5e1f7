"""What `bingo bench step` times: the sizes of a step, and how each variant takes it."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from bingo.bench.arguments import chosen
from bingo.config_parts import Engine, Precision

RELEASE = "release-style"
BASE = f"{RELEASE} fp32"
QueueDtype = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class StepShape:
    """What is run: networks, pixels, images per step, keys and channels, head width, timed samples, steps in each."""

    device: torch.device
    student: str = "resnet18"
    teacher: str = "resnet50"
    size: int = 224
    batch: int = 256
    queue: int = 65536
    dim: int = 128
    hidden: int = 2048
    samples: int = 12
    burst: int = 3
    impl: str = "auto"
    compile: bool = True
    only: tuple[str, ...] = ()
    """Beginnings of names, or of what follows a comma in them: these variants alone."""


@dataclass(frozen=True)
class Changes:
    """How a variant differs from `DistillConfig`'s defaults; cached: keys from an array and no teacher.

    engine: how the frozen teacher runs, by `Runtime.engine`; compile: the student goes through torch.compile, of the
    release-style step both networks.
    """

    precision: Precision = "fp32"
    channels_last: bool = True
    queue_dtype: QueueDtype = "fp32"
    cached: bool = False
    compile: bool = False
    engine: Engine = "plain"

    @property
    def compiles(self) -> bool:
        """Whether a compiler has to run before the first step."""
        return self.compile or self.engine == "compiled"


def default_shape(device: torch.device) -> StepShape:
    """The published setting on a GPU, a toy elsewhere."""
    if device.type == "cuda":
        return StepShape(device)
    return StepShape(device, "tiny-4", "tiny-8", 32, 16, 512, 16, 32, samples=5, burst=1, compile=False)


def variants(shape: StepShape) -> dict[str, Changes]:
    """Variant -> its settings. Method, precision and compiler apart: each precision has its release-style step."""
    contiguous = Changes(channels_last=False)
    every = {BASE: contiguous, "ours fp32": contiguous}
    for precision, plain in (("fp32", Changes()), ("bf16", Changes("bf16", queue_dtype="bf16"))):
        every |= _release(f"{RELEASE} {precision} channels-last", plain)
        every |= _ours(f"ours {precision} channels-last", plain)
    names = [name for name, changes in every.items() if shape.compile or not changes.compiles]
    return {name: every[name] for name in chosen(names, shape.only)}


def _release(name: str, plain: Changes) -> dict[str, Changes]:
    return {name: plain, f"{name}, compiled": replace(plain, compile=True)}


def _ours(name: str, plain: Changes) -> dict[str, Changes]:
    return {
        name: plain,
        f"{name}, teacher folded": replace(plain, engine="folded"),
        f"{name}, teacher compiled": replace(plain, engine="compiled"),
        f"{name}, both compiled": replace(plain, engine="compiled", compile=True),
        f"{name}, cached keys": replace(plain, cached=True),
        f"{name}, cached keys and compiled": replace(plain, cached=True, compile=True),
    }


def peers(name: str) -> tuple[str, ...]:
    """The release-style steps that one of ours is set against beside `BASE`: at its precision in channels-last memory,
    plain and compiled."""
    if name.startswith(RELEASE):
        return ()
    own = f"{RELEASE} {'bf16' if 'bf16' in name else 'fp32'} channels-last"
    return own, f"{own}, compiled"
