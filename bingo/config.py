"""Settings of every stage: frozen dataclasses, one JSON form, one sentence for every wrong value."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bingo.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
Impl = Literal["auto", "reference", "chunked", "triton", "hopper"]
Objective = Literal["paper", "release"]
BagKind = Literal["knn", "kmeans", "label", "random"]
EvalKind = Literal["linear", "knn", "fewshot"]


@dataclass(frozen=True)
class Augmentation:
    """MoCo-v2 augmentation; sizes in pixels, probabilities in [0, 1]."""

    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_p: float = 0.8
    grey_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    flip_p: float = 0.5
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _require(self.size >= 8, "augment.size", self.size, ">= 8 pixels")
        _require(0 < self.scale[0] <= self.scale[1] <= 1, "augment.scale", self.scale, "0 < low <= high <= 1")
        _require(0 < self.blur_sigma[0] <= self.blur_sigma[1], "augment.blur_sigma", self.blur_sigma, "0 < low <= high")
        _require(0 <= self.hue <= 0.5, "augment.hue", self.hue, "between 0 and 0.5")
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "between 0 and 1")
        for name in ("jitter_p", "grey_p", "blur_p", "flip_p"):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "between 0 and 1")

    @property
    def blur_kernel(self) -> int:
        """Odd kernel width of about a tenth of the image (SimCLR's rule): 23 at 224 pixels, never below 3."""
        return max(3, 2 * (self.size // 20) + 1)

    @property
    def eval_resize(self) -> int:
        """Shorter side before the centre crop: 256 for 224."""
        return round(self.size * 256 / 224)


@dataclass(frozen=True)
class Optimiser:
    """SGD with a cosine schedule to zero. `lr` is per 256 images of global batch (linear scaling)."""

    epochs: int = 200
    batch: int = 256
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "optim.epochs", self.epochs, ">= 1")
        _require(self.batch >= 1, "optim.batch", self.batch, ">= 1")
        _require(self.lr > 0, "optim.lr", self.lr, "> 0")
        _require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "in [0, 1)")
        _require(self.weight_decay >= 0, "optim.weight-decay", self.weight_decay, ">= 0")

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of global step `step` (0-based)."""
        position = step / steps_per_epoch if self.schedule == "step" else step // steps_per_epoch
        return self.lr * self.batch / 256 * 0.5 * (1 + math.cos(math.pi * position / self.epochs))


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage runs; nothing here changes what is being computed, only its speed and rounding."""

    device: Device = "auto"
    precision: Precision = "fp32"
    channels_last: bool = True
    compile: bool = False
    threads: int = 0
    """CPU threads per rank; 0 shares the machine's cores among its ranks."""
    impl: Impl = "auto"
    checkpoint_every: int = 1000
    """Steps between checkpoints; one more is written at each epoch's end, and the newest two are kept."""
    log_every: int = 50
    """Steps between flushes of metrics.jsonl (every step is in it; on a GPU each flush is one synchronisation)."""

    def __post_init__(self) -> None:
        _require(self.threads >= 0, "runtime.threads", self.threads, ">= 0 (0 = automatic)")
        _require(self.checkpoint_every >= 1, "runtime.checkpoint-every", self.checkpoint_every, ">= 1")
        _require(self.log_every >= 1, "runtime.log-every", self.log_every, ">= 1")


@dataclass(frozen=True)
class Loader:
    """Reading and decoding of images. The first three concern the GPU's JPEG decoder and change nothing on a CPU."""

    hw_decoder_load: float = 0.65
    """Share of the images that goes to the GPU's JPEG engine, where it has one; the rest to its other cores."""
    fancy_upsampling: bool = True
    """Smooth chroma, as PIL and every CPU decoder make it. The one setting here that changes pixels."""
    size_hints: bool = True
    """Allocate buffers for the largest image at the start."""
    prefetch: int = 2
    """Batches that are decoded ahead."""
    allow_bad: bool = False
    """Bad files never stop a stage that can do without them: an image folder's unreadable ones are left out, and
    training replaces any number of undecodable images."""

    def __post_init__(self) -> None:
        _require(0 <= self.hw_decoder_load <= 1, "loader.hw-decoder-load", self.hw_decoder_load, "between 0 and 1")
        _require(self.prefetch >= 1, "loader.prefetch", self.prefetch, ">= 1")


@dataclass(frozen=True)
class TrainingLoader(Loader):
    """The loader of a stage that can replace an image: features and evaluations cannot, and stop at the first."""

    max_bad: float = 0.001
    """Largest share of the images that may turn out undecodable while training; 0 stops at the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.max_bad <= 1, "loader.max-bad", self.max_bad, "between 0 and 1")

    def most_bad(self, images: int) -> int | None:
        """How many of `images` may be bad; None: all of them."""
        return None if self.allow_bad else int(self.max_bad * images)


@dataclass(frozen=True)
class Contrast:
    """The contrastive head and queue shared by pre-training and distillation."""

    dim: int = 128
    hidden: int = 2048
    queue: int = 65536
    queue_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    temperature: float = 0.2
    negatives: Literal["all", "strangers"] = "all"
    """`all`: every key in the queue, as published; `strangers`: not those of the same image nor, in distillation, of
    its bag, for queues that hold a large part of the dataset."""

    def __post_init__(self) -> None:
        _require(
            self.temperature > 0 and math.isfinite(self.temperature), "contrast.temperature", self.temperature, "> 0"
        )
        _require(self.queue >= 1, "contrast.queue", self.queue, ">= 1")
        _require(self.dim >= 1, "contrast.dim", self.dim, ">= 1")
        _require(self.hidden >= 1, "contrast.hidden", self.hidden, ">= 1")


@dataclass(frozen=True)
class Monitor:
    """kNN accuracy on a labelled validation set while training; off without `val`."""

    val: Path | None = None
    every: int = 10
    """Epochs between evaluations; the last epoch is always evaluated."""

    def __post_init__(self) -> None:
        _require(self.every >= 1, "monitor.every", self.every, ">= 1")


@dataclass(frozen=True)
class DemoDataConfig:
    """scikit-learn's handwritten digits as JPEG files in ImageFolder layout."""

    out: Path
    size: int = 32
    """Pixels per side; the originals are 8 x 8."""

    def __post_init__(self) -> None:
        _require(self.size >= 8, "size", self.size, ">= 8 pixels")


@dataclass(frozen=True)
class PackConfig:
    """An image folder as one flat file and an index."""

    source: Path
    out: Path
    convert: bool = False
    """Store CMYK, 16-bit and misnamed files in a form every decoder takes, pixels unchanged."""
    allow_bad: bool = False
    """Leave undecodable files out instead of refusing the folder."""
    workers: int = 0
    """Decoding threads; 0 uses every core."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What `pretrain` and `distill` share."""

    data: Path
    out: Path
    contrast: Contrast = field(default_factory=Contrast)
    augment: Augmentation = field(default_factory=Augmentation)
    optim: Optimiser = field(default_factory=Optimiser)
    runtime: Runtime = field(default_factory=Runtime)
    loader: TrainingLoader = field(default_factory=TrainingLoader)
    monitor: Monitor = field(default_factory=Monitor)
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed", self.seed, ">= 0")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """MoCo-v2 on unlabelled images: makes a teacher, and is the baseline a distilled student must beat."""

    model: str = "resnet50"
    key_momentum: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.key_momentum < 1, "key-momentum", self.key_momentum, "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """BINGO: a student learns to gather each image and its bag around the frozen teacher's keys."""

    bags: Path
    """A folder made by `bingo bags`, or its bags.npz."""
    teacher: Path | None = None
    """A run folder, its model.pt, or a MoCo-v2 checkpoint; this or `keys`."""
    keys: Path | None = None
    """A folder made by `bingo keys`: no teacher runs, and a step decodes and augments two views only."""
    cached_negatives: Literal["queue", "cache"] = "queue"
    """With `keys`: `queue` holds the keys of past steps, as with a teacher; `cache` draws new ones every epoch."""
    student: str = "resnet18"
    objective: Objective = "release"
    """`release`: three queries, two keys, cutmix (what the published numbers used); `paper`: two queries, one key."""
    warm_epochs: int = 11
    """Release objective: epochs in which only each image's own key is a positive."""
    cutmix: bool = True
    key_view: Literal["cross", "same"] = "cross"
    """`cross`: keys from a second view, as published; `same`: keys from the query's own view, as SEED does."""
    view_norm: Literal["per-view", "joint"] = "per-view"
    """Batch-norm statistics of the student: one set per view, or one over all views of the step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.warm_epochs >= 0, "warm-epochs", self.warm_epochs, ">= 0")
        if (self.teacher is None) == (self.keys is None):
            given = "neither" if self.teacher is None else "both"
            raise UserError(f"keys come from a teacher or from a cache, {given} was given: set --teacher or --keys")
        if self.keys is None and self.cached_negatives != "queue":
            raise UserError(
                f"cached-negatives={self.cached_negatives} needs cached keys: set --keys (see `bingo keys`)"
            )
        if self.keys is not None and self.key_view == "same":
            raise UserError(
                "key-view=same needs the teacher on each query's own view, which no cache holds: "
                "set --teacher instead of --keys, or --key-view cross"
            )


@dataclass(frozen=True)
class KeysConfig:
    """The teacher's keys of several augmented views of every image, computed once for `distill --keys`."""

    data: Path
    teacher: Path
    """A run folder, its model.pt, or a MoCo-v2 checkpoint."""
    out: Path
    views: int = 16
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    augment: Augmentation = field(default_factory=Augmentation)
    batch: int = 256
    """Most images that are decoded, and about as many views as pass the teacher, at once."""
    runtime: Runtime = field(default_factory=Runtime)
    loader: Loader = field(default_factory=Loader)
    seed: int = 0

    def __post_init__(self) -> None:
        _require(1 <= self.views <= 256, "views", self.views, "between 1 and 256")
        _require(self.batch >= 1, "batch", self.batch, ">= 1")
        _require(self.seed >= 0, "seed", self.seed, ">= 0")


@dataclass(frozen=True)
class FeaturesConfig:
    """Pooled backbone features of every image (resize, centre crop, eval mode)."""

    data: Path
    model: Path
    out: Path
    augment: Augmentation = field(default_factory=Augmentation)
    batch: int = 256
    runtime: Runtime = field(default_factory=Runtime)
    loader: Loader = field(default_factory=Loader)

    def __post_init__(self) -> None:
        _require(self.batch >= 1, "batch", self.batch, ">= 1")


@dataclass(frozen=True)
class BagsConfig:
    """Bags of similar images: k members per anchor."""

    data: Path
    out: Path
    features: Path | None = None
    """Needed for `knn` and `kmeans`."""
    kind: BagKind = "knn"
    k: int = 5
    clusters: int = 1000
    engine: Literal["auto", "faiss", "triton"] = "auto"
    """Who proposes neighbours; the bags are the same. `auto`: triton on a GPU, faiss on the CPU."""
    index: Literal["exact", "ivf"] = "exact"
    """`ivf`: faiss's inverted lists, approximate, for more than 10 million images; its recall is measured."""
    nlist: int = 0
    """Inverted lists; 0: four times the square root of the number of images."""
    nprobe: int = 0
    """Lists read per image; 0: 64."""
    duplicates: Literal["keep", "collapse"] = "keep"
    """`collapse`: exact copies of the anchor are no members, and copies of one image fill one place."""
    compare: Path | None = None
    """Bags of the same images (a folder or its bags.npz) to measure the overlap with."""
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)

    def __post_init__(self) -> None:
        _require(self.k >= 1, "k", self.k, ">= 1")
        _require(self.clusters >= 1, "clusters", self.clusters, ">= 1")
        for name in ("nlist", "nprobe"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0 (0 = automatic)")
        if self.kind in ("knn", "kmeans") and self.features is None:
            raise UserError(f"{self.kind} bags need features: give --features DIR (made by `bingo features`)")
        for name, usual in (("index", "exact"), ("duplicates", "keep"), ("engine", "auto")):
            value = getattr(self, name)
            if self.kind != "knn" and value != usual and (self.kind, value) != ("kmeans", "faiss"):
                raise UserError(f"--{name} {value} is for knn bags, not for {self.kind} bags: leave it out")
        if self.index == "exact" and (self.nlist or self.nprobe):
            raise UserError("--nlist and --nprobe are settings of inverted lists: add --index ivf, or leave them out")
        if self.index == "ivf" and self.engine == "triton":
            raise UserError("--index ivf is faiss's: leave out --engine triton, which searches everything")
        if self.nlist and self.nprobe > self.nlist:
            raise UserError(f"--nprobe {self.nprobe} is more than the {self.nlist} lists of --nlist: make it smaller")


@dataclass(frozen=True)
class EvalConfig:
    """Frozen-feature evaluation of a trained model on a labelled train/validation pair."""

    run: Path
    """A run folder, or a model file."""
    train: Path
    val: Path
    out: Path
    kinds: tuple[EvalKind, ...] = ("linear", "knn", "fewshot")
    k: int = 10
    shots: int = 2
    draws: int = 20
    solver: Literal["lbfgs", "sgd"] = "sgd"
    """`sgd`: the ImageNet protocol (lr 30, 100 epochs); `lbfgs`: the exact optimum, for small data."""
    linear_lr: float = 30.0
    linear_epochs: int = 100
    augment: Augmentation = field(default_factory=Augmentation)
    batch: int = 256
    runtime: Runtime = field(default_factory=Runtime)
    loader: Loader = field(default_factory=Loader)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "shots", "draws", "linear_epochs", "batch"):
            _require(getattr(self, name) >= 1, name.replace("_", "-"), getattr(self, name), ">= 1")


@dataclass(frozen=True)
class ExportConfig:
    """A trained backbone as plain torchvision weights."""

    model: Path
    out: Path
    classifier: Path | None = None
    """An evaluation folder whose linear classifier goes with the backbone; without one a zero classifier is written."""
    classes: int = 1000


def _require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise UserError(f"{name}={value} is not allowed: it must be {allowed}; set --{name}")
