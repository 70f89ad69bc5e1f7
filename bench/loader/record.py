"""What `bingo bench loader` writes: a `Result` with a `Row` per variant and stage; times are per decoded image."""

from typing import Required, TypedDict

from bingo.bench.samples import Estimate, Median, Samples


class Row(TypedDict, total=False):
    """One variant up to one stage. One that failed has an `error` in place of the figures."""

    variant: Required[str]
    stage: Required[str]
    error: str
    cpu_seconds: Samples
    """Of all threads and worker processes."""
    wall_seconds: Samples
    images_per_cpu_second: float
    images_per_second: float
    over_release: Estimate
    """Its images per CPU second over the release-style loader's, up to the same stage."""
    over_release_whole: Estimate
    """The same over the release-style loader's whole chain."""
    over_ours: Median
    """Its CPU time over that of our packed loader up to the same stage, sample by sample."""
    numerics: str
    """Of a rival: whose pixels come out, torchvision's or its own."""


class CropGate(TypedDict):
    """The worst crop's mean difference from torchvision's, in levels of 255, and the most that is allowed."""

    ok: bool
    worst_mean_levels: float
    bound: float


class ColourGate(TypedDict):
    """Share of finished values that equal torchvision's, and the least that is allowed."""

    ok: bool
    share_equal: float
    bound: float


class Gate(TypedDict):
    """Whether our views are right; without that no ratio is shown."""

    crops: CropGate
    colours: ColourGate


class Images(TypedDict):
    """The image files that were read."""

    images: int
    mean_bytes: float
    mean_megapixels: float
    median_width_height: list[float]


class SweepRow(TypedDict, total=False):
    """One setting of the GPU's decoder: load of its engines, images per batch, fancy or plain upsampling."""

    name: Required[str]
    load: Required[float]
    batch: Required[int]
    fancy: Required[bool]
    seconds: Required[Samples | list[float]]
    """Per image; the bare samples where there is only the warm-up."""
    error: str
    images_per_second: float


class Pixels(TypedDict):
    """The GPU's crops against the CPU's: equal values (0..1), and differences in levels of 255."""

    fancy: bool
    share_equal: float
    mean_levels: float
    largest_levels: int


class Memory(TypedDict):
    """Memory in use on the device: [seconds, bytes] about once a second; growth over the second half."""

    batch: int
    marks: list[list[float]]
    growth_bytes: float


class Gpu(TypedDict, total=False):
    """What only a GPU shows; elsewhere `absent` says why there is nothing. decoder: versions of what decodes."""

    absent: str
    decoder: dict[str, str | None]
    sweep: list[SweepRow]
    pixels: list[Pixels]
    memory: Memory


class ShapeRecord(TypedDict):
    """The fields of `LoaderShape`, with the device's name."""

    device: str
    batch: int
    burst: int
    rounds: int
    threads: int
    seconds: float
    variants: tuple[str, ...]


class Hardware(TypedDict):
    """Names of the CPU and, where it was used, the GPU."""

    cpu: str
    gpu: str | None


class Measured(TypedDict):
    """The rows, and the order in which their samples were taken, after so many discarded bursts of each."""

    order: list[str]
    discarded_bursts: int
    rows: list[Row]


class Result(Measured):
    """What `run` returns."""

    shape: ShapeRecord
    hardware: Hardware
    images: Images
    gate: Gate
    gpu: Gpu
