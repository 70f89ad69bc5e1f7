"""What `bingo bench kernels` writes: `GpuResult` with a `Case` per size and task and a `Row` per variant; `CpuResult`.

Names that end in _s are seconds; intervals are bootstrap 95 % intervals [low, high].
"""

from typing import Literal, Required, TypedDict

from bingo.bench.samples import Estimate, Interval, Median


class OverOurs(Estimate):
    """A variant's time over that of our fastest kernel, timed beside it; ours: that kernel's name."""

    ours: str


class Row(TypedDict, total=False):
    """One variant. The first eight keys are always there; the others as far as it came."""

    variant: Required[str]
    group: Required[str]
    rows: Required[int]
    task: Required[str]
    status: Required[str]
    """ok; wrong, absent, failed or skipped, with the reason."""
    reason: Required[str]
    note: Required[str]
    repeat: Required[bool]
    """Timed before; here only to be beside the others."""
    prepare_s: float
    option: str
    """The fastest of its settings."""
    sweep: dict[str, float | str]
    """Setting -> seconds per call, or why there are none."""
    error: dict[str, float | None]
    """Relative error against fp64 of L, or of loss and dq; None: not a number."""
    tolerance: dict[str, float]
    bitwise_repeats: int
    extra_bytes: int | None
    host_s: list[float]
    """Until the call returns, without waiting for the device."""
    method: str
    calls_per_sample: int
    method_note: str
    samples_s: list[float]
    median_s: float
    interval_s: list[float]
    n: int
    over_ours: OverOurs
    flops_per_second: float
    share_of_roof: float
    """Of the matrix products measured in this run, 0..1."""
    over_floor: float
    """Time over the case's floor."""
    as_accurate_as_torch: bool


class Noise(Estimate):
    """A variant's second timing over its first."""

    variant: str


class Case(TypedDict, total=False):
    """One number of rows and one task; the floors are there where the roof was measured."""

    rows: Required[int]
    task: Required[str]
    flops: Required[int]
    """Of the matrix products."""
    results: Required[list[Row]]
    least_bytes: Required[int]
    floors_s: dict[str, float]
    floor_s: float
    """The largest of them."""
    noise: Noise


class Roof(TypedDict):
    """A GPU's ceilings, medians per second; seconds: every sample of each."""

    matmul_flops: float
    copy_bytes: float
    exp_per_second: float
    seconds: dict[str, list[float]]
    work: str


class Device(TypedDict):
    """Where the kernels ran, and the versions."""

    type: str
    name: str
    l2_bytes: int
    torch: str
    triton: str | None


class GpuShape(TypedDict):
    """Sizes of all cases."""

    rows: list[int]
    queue: int
    dim: int
    positives: int
    temperature: float
    dtype: str


class Settings(TypedDict):
    """How it was timed; queues: how many were used in turn."""

    rounds: int
    samples: int
    repeats: int
    queues: int
    seed: int
    seconds_budget: float
    order: str


class Aim(TypedDict, total=False):
    """An aim beside what was measured: µs, MB or a ratio; text says it all in a line."""

    rows: Required[int]
    what: Required[str]
    aim: Required[float]
    measured: float
    interval: list[float]
    verdict: Required[str]
    """met, missed, unsure (the interval holds the aim) or not measured."""
    text: Required[str]


class GpuResult(TypedDict):
    """What `run_gpu` returns."""

    kind: Literal["gpu"]
    device: Device
    shape: GpuShape
    settings: Settings
    roof: Roof | None
    cases: list[Case]
    seconds: float
    aims: list[Aim]


class CpuShape(TypedDict):
    """Sizes of the one problem."""

    rows: int
    queue: int
    dim: int
    positives: int
    dtype: str


class CpuAccuracy(TypedDict):
    """Relative errors against fp64, and the most that is allowed of either."""

    ok: bool
    loss: float
    gradient: float
    bound: float


class CpuResult(TypedDict):
    """What `on_cpu.run` returns; dictionaries go by the loss's name, ours being "chunked"."""

    kind: Literal["cpu"]
    shape: CpuShape
    threads: int
    cpu: str
    torch: str
    accuracy: dict[str, CpuAccuracy]
    failed: dict[str, str]
    """Why a loss has no figures: not installed, failed, or wrong."""
    cpu_seconds: dict[str, list[float]]
    """Of all threads."""
    seconds: dict[str, list[float]]
    """By the wall clock, of the same samples."""
    median_seconds: dict[str, float]
    interval_seconds: dict[str, Interval]
    over_chunked: dict[str, Median]
    """CPU time over ours, sample by sample."""
    extra_bytes: dict[str, int | None]
    host_seconds: dict[str, list[float]]
    """Per call of a tiny problem."""
