"""What `bingo bench step` times: the sizes of a step, and how each variant takes it."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from bingo.config_parts import Precision

BASE = "release-style fp32"
TWIN = "ours bf16 channels-last"
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


@dataclass(frozen=True)
class Changes:
    """How a variant differs from `DistillConfig`'s defaults; cached: keys from an array and no teacher."""

    precision: Precision = "fp32"
    channels_last: bool = True
    queue_dtype: QueueDtype = "fp32"
    cached: bool = False
    compile: bool = False


def default_shape(device: torch.device) -> StepShape:
    """The published setting on a GPU, a toy elsewhere."""
    if device.type == "cuda":
        return StepShape(device)
    return StepShape(device, "tiny-4", "tiny-8", 32, 16, 512, 16, 32, samples=5, burst=1, compile=False)


def variants(shape: StepShape) -> dict[str, Changes]:
    """Variant -> its settings; the compiled one is last."""
    plain, half = Changes(channels_last=False), Changes("bf16", queue_dtype="bf16")
    every = {
        BASE: plain,
        "ours fp32": plain,
        "ours fp32, cached keys": replace(plain, cached=True),
        TWIN: half,
        f"{TWIN}, cached": replace(half, cached=True),
        f"{TWIN}, compiled": replace(half, compile=True),
    }
    return {name: changes for name, changes in every.items() if shape.compile or not changes.compile}
