"""What `bingo bench step` writes: one `Result` per batch size, with a `Figures` for every variant."""

from typing import TypedDict

from bingo.bench.samples import Estimate, Samples


class LossGate(TypedDict):
    """Relative difference of the first loss from the release-style one's, and the most that is allowed."""

    ok: bool
    error: float
    bound: float


class Figures(TypedDict, total=False):
    """One variant. One that failed has an `error` alone; one that was not timed has no `seconds`."""

    error: str
    first_loss: float
    peak_bytes: int | None
    """What the variant adds to the GPU's memory at most; None on a CPU."""
    parts: dict[str, list[float]]
    """Seconds of each part of the step, by `table.PARTS`."""
    order: str
    discarded_steps: int
    seconds: Samples
    """Per whole step, by the wall clock."""
    cpu_seconds: Samples
    """The same of the process's CPU time; on a CPU, where ratios are of it."""
    samples_per_second: float
    """Images, at the median."""
    loss_gate: LossGate
    over_release: Estimate
    """How many times as fast as the release-style step, pair by pair; only where the loss gate holds."""
    over_peers: dict[str, Estimate]
    """The same against the release-style steps at the same precision."""


class ShapeRecord(TypedDict):
    """The fields of `StepShape`, with the device's name."""

    student: str
    teacher: str
    size: int
    batch: int
    queue: int
    dim: int
    hidden: int
    samples: int
    burst: int
    impl: str
    compile: bool
    only: tuple[str, ...]
    device: str


class Arithmetic(TypedDict):
    """PyTorch's own settings during the run."""

    cudnn_benchmark: bool
    convolutions_may_use_tf32: bool
    float32_matmul_precision: str


class Result(TypedDict):
    """Every variant at one shape."""

    shape: ShapeRecord
    hardware: str
    threads: int
    torch: str
    settings: Arithmetic
    variants: dict[str, Figures]
