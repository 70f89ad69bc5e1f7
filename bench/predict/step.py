"""One step predicted: its kernels on a machine, launches of the host, gradients that are waited for, decoding."""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from bingo.bench.predict import network, passes
from bingo.bench.predict.flow import Kernel, fused
from bingo.bench.predict.gpus import Machine
from bingo.objectives import OBJECTIVES

Precision = Literal["bf16", "tf32"]
Teacher = Literal["plain", "folded", "compiled", "library", "none"]
Student = Literal["plain", "compiled", "bound"]
PARTS = ("augment", "teacher", "student", "loss", "optimiser")
CORE_IMAGES = 440.0
"""Images that a core decodes and crops twice in a second: 2.27 ms each, `bingo bench loader` on an EPYC core."""
BACKWARD = 2 / 3
"""Share of the student's time that is its backward pass."""


class Passes(NamedTuple):
    """Per image of a batch: views that pass the student, views that pass the teacher, images that are decoded."""

    student: int
    teacher: int
    decoded: int


PASSES = {name: Passes(row.passes(), row.keys, 1 + row.bags) for name, row in OBJECTIVES.items()}
PASSES["pretrain"] = Passes(1, 1, 1)
"""Loss -> its passes; of a pre-training the momentum encoder is the teacher."""


@dataclass(frozen=True)
class Job:
    """What is distilled: networks, pixels per side, images per step and GPU, the loss, and on how many GPUs."""

    student: str = "resnet18"
    teacher: str = "resnet50"
    size: int = 224
    rows: int = 256
    objective: str = "release"
    queue: int = 65536
    dim: int = 128
    hidden: int = 2048
    nodes: int = 1
    per_node: int = 1

    @property
    def gpus(self) -> int:
        return self.nodes * self.per_node

    @property
    def views(self) -> int:
        """Images that pass the student per image of a batch."""
        return PASSES[self.objective].student

    @property
    def keys(self) -> int:
        """Images that pass the teacher per image of a batch."""
        return PASSES[self.objective].teacher


@dataclass(frozen=True)
class Variant:
    """How the step is taken. teacher: `library` is cuDNN's fused convolution, bias, add and ReLU; `none`, cached keys.

    student: `bound` is its convolutions, products and pools alone. layout: convolutions of NCHW images are surrounded
    by passes that reorder them. note: what of it the code does not have.
    """

    name: str
    precision: Precision = "bf16"
    teacher: Teacher = "plain"
    student: Student = "plain"
    graph: bool = False
    release: bool = False
    layout: bool = False
    note: str = ""


@dataclass(frozen=True)
class Step:
    """What was predicted, seconds per step. parts: of the GPU."""

    variant: Variant
    rows: int
    gpus: int
    parts: dict[str, float] = field(default_factory=dict)
    launches: int = 0
    host_s: float = 0.0
    exposed_s: float = 0.0
    straggler_s: float = 0.0
    loader_s: float = 0.0

    @property
    def gpu_s(self) -> float:
        return sum(self.parts.values())

    @property
    def seconds(self) -> float:
        """Without the loader."""
        return max(self.gpu_s, self.host_s) + self.exposed_s + self.straggler_s

    @property
    def images_per_second(self) -> float:
        """Of all GPUs, the loader included: it works ahead, so the slower of both counts."""
        return self.rows * self.gpus / max(self.seconds, self.loader_s)

    @property
    def bound(self) -> str:
        """What holds the step up."""
        if self.loader_s > self.seconds:
            return "loader"
        return "host" if self.host_s > self.gpu_s else "GPU"

    def hours(self, images: int, epochs: int) -> float:
        """Of training; whole steps."""
        return epochs * (images // (self.rows * self.gpus)) * max(self.seconds, self.loader_s) / 3600


def predict(job: Job, variant: Variant, machine: Machine, *, cores: int = 8) -> Step:
    """A step of `variant` on every one of the job's GPUs. cores: of the host, for each GPU's loader."""
    kernels = kernels_of_step(job, variant)
    parts = {part: seconds(kernels[part], machine, layout=variant.layout) for part in PARTS}
    launches = sum(map(len, kernels.values()))
    exposed = _exposed(job, variant, machine, parts["student"])
    host = 0.0 if variant.graph else launches * machine.host_s
    # The slowest of N ranks is further behind the more there are: the expected largest of N normal numbers.
    behind = machine.straggler * math.sqrt(2 * math.log(job.gpus)) if job.gpus > 1 else 0.0
    decoded = PASSES[job.objective].decoded * job.rows / (cores * CORE_IMAGES + machine.decoder)
    return Step(
        variant, job.rows, job.gpus, parts, launches, host, exposed, behind * max(sum(parts.values()), host), decoded
    )


def _exposed(job: Job, variant: Variant, machine: Machine, student_s: float) -> float:
    if job.gpus == 1:
        return 0.0
    weights = [4 * weight.numel() for weight in passes.network(job.student, job.dim, job.hidden).parameters()]
    found = network.exposed_s(weights, BACKWARD * student_s, job.views, machine, job.nodes, job.per_node)
    if variant.release:
        found += network.release_gathers_s(job.rows, job.size, machine, job.nodes, job.per_node)
    return found


@functools.lru_cache(maxsize=256)
def kernels_of_step(job: Job, variant: Variant) -> dict[str, Sequence[Kernel]]:
    """Part of the step -> its kernels."""
    half = variant.precision == "bf16"
    dtype, sizes = torch.bfloat16 if half else torch.float32, (job.dim, job.hidden)
    calls = 2 if variant.teacher == "none" else job.keys + 2
    loss: Iterable[Kernel]
    if variant.release:
        loss = passes.release_loss_pass(job.rows, job.views, job.queue, job.dim)
    else:
        loss = passes.loss_pass(job.rows, job.views, job.queue, job.dim)
    return {
        "augment": passes.augment_pass(
            job.rows, job.size, 2 if half else 4, calls, copied=variant.layout, mixed=job.objective == "release"
        ),
        "teacher": _teacher(job, variant, dtype),
        "student": _student(
            passes.student_pass(job.student, job.rows, job.size, dtype, *sizes, job.views), variant.student
        ),
        "loss": list(loss),
        "optimiser": passes.optimiser_pass(job.student, *sizes, fused=not variant.release),
    }


def _teacher(job: Job, variant: Variant, dtype: torch.dtype) -> Sequence[Kernel]:
    """One forward pass over all key views; a release-style step has one for each."""
    if variant.teacher == "none":
        return []
    calls = job.keys if variant.release else 1
    rounded = variant.teacher != "plain"  # an engine keeps its weights in bf16
    rows = job.keys * job.rows // calls
    kernels = passes.teacher_pass(job.teacher, rows, job.size, dtype, job.dim, job.hidden, rounded=rounded)
    if variant.teacher in ("compiled", "library"):
        return fused(kernels, epilogues=variant.teacher == "library") * calls
    return list(kernels) * calls  # folded: the same passes over memory, see `flow.py`


def _student(kernels: Sequence[Kernel], how: Student) -> Sequence[Kernel]:
    if how == "plain":
        return kernels
    joined = fused(kernels)
    return joined if how == "compiled" else [kernel for kernel in joined if kernel.kind == "other"]


def seconds(kernels: Iterable[Kernel], machine: Machine, *, layout: bool = False) -> float:
    """The sum over kernels of the longest of arithmetic, memory traffic and the shortest kernel."""
    total = 0.0
    for kernel in kernels:
        total += max(kernel.flops / _rate(kernel, machine), kernel.bytes / machine.memory, machine.kernel_s)
        if layout and kernel.name.startswith("convolution") and kernel.kind == "other":
            total += max(2 * kernel.bytes / machine.memory, 2 * machine.kernel_s)  # each tensor is read and written
    return total


def _rate(kernel: Kernel, machine: Machine) -> float:
    """fp32 convolutions may use TF32 by PyTorch's defaults, other fp32 products may not."""
    if kernel.dtype in (torch.bfloat16, torch.float16):
        return machine.bf16
    return machine.tf32 if kernel.name.startswith("convolution") else machine.fp32
