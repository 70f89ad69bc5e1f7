"""What `auto` stands for in the settings of arithmetic. The device decides, here and nowhere else.

On a CPU: what earlier releases did, fp32 throughout and the teacher as it is, so that recorded results keep their last
bit. On a GPU: bf16 for networks and queue, the teacher compiled, and the student too where the training is long.
"""

import functools
from typing import Literal

import torch

from bingo.config_parts import Contrast, Runtime

COMPILE_STEPS = 10_000
"""The shortest training whose student is compiled: some 10 ms less a step pay for a minute or two at the start."""


def precision_of(runtime: Runtime, device: torch.device) -> Literal["fp32", "bf16"]:
    """`auto`: bf16 on a GPU that computes in it, fp32 elsewhere."""
    if runtime.precision != "auto":
        return runtime.precision
    return "bf16" if device.type == "cuda" and _has_bf16(device.index) else "fp32"


@functools.cache
def _has_bf16(index: int | None) -> bool:
    """Whether a GPU has bf16 products of its own; a device that is not there counts as a new one."""
    return not torch.cuda.is_available() or torch.cuda.get_device_capability(index) >= (8, 0)


def queue_dtype_of(contrast: Contrast, precision: str) -> Literal["fp32", "bf16", "fp16"]:
    """`auto`: the precision of the networks that made its keys."""
    if contrast.queue_dtype != "auto":
        return contrast.queue_dtype
    return "bf16" if precision == "bf16" else "fp32"


def engine_of(runtime: Runtime, device: torch.device) -> Literal["plain", "folded", "compiled"]:
    """How a frozen network runs. `auto`: compiled on a GPU, as it is on a CPU."""
    if runtime.engine != "auto":
        return runtime.engine
    return "compiled" if device.type == "cuda" else "plain"


def student_is_compiled(runtime: Runtime, device: torch.device, steps: int) -> bool:
    """By default on a GPU, in a training of so many steps that it pays."""
    return device.type == "cuda" and steps >= COMPILE_STEPS if runtime.compile is None else runtime.compile


def autocast(runtime: Runtime, device: torch.device) -> torch.autocast:
    """bf16 autocast when the precision asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_of(runtime, device) == "bf16")
