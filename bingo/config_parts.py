"""Groups of settings that several stages share; see `bingo.config`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bingo.errors import UserError, brief

MOST = 10**9
"""The largest count that a setting takes: of epochs, images, steps."""
MOST_SEED = 2**63 - 1
MOST_THREADS = 1024
SIDES = (8, 4096)
"""Fewest and most pixels of a side."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
Impl = Literal["auto", "reference", "chunked", "triton", "hopper"]


@dataclass(frozen=True)
class Augmentation:
    """MoCo-v2 augmentation; sizes in pixels, probabilities in [0, 1]."""

    size: int = 224
    """Pixels per side of what the network sees."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest share of the image's area that a crop takes."""
    brightness: float = 0.4
    """Strength of the brightness jitter, 0 to 1: factors are drawn from 1 - x to 1 + x."""
    contrast: float = 0.4
    """Strength of the contrast jitter, 0 to 1."""
    saturation: float = 0.4
    """Strength of the saturation jitter, 0 to 1."""
    hue: float = 0.1
    """Largest turn of the hue, as a share of the colour circle, 0 to 0.5."""
    jitter_p: float = 0.8
    """Probability that colours are jittered."""
    grey_p: float = 0.2
    """Probability that colours become grey."""
    blur_p: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels."""
    flip_p: float = 0.5
    """Probability that left and right are swapped."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of red, green and blue, 0 to 1, which is subtracted."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of red, green and blue, 0 to 1, by which is divided."""

    def __post_init__(self) -> None:
        low, high = self.scale
        require(0 < low <= high <= 1, "augment.scale", self.scale, "0 < low <= high <= 1")
        low, high = self.blur_sigma
        require(0.01 <= low <= high <= 1000, "augment.blur-sigma", self.blur_sigma, "0.01 <= low <= high <= 1000")
        require(all(0 <= x <= 1 for x in self.mean), "augment.mean", self.mean, "three numbers between 0 and 1")
        require(all(0.001 <= x <= 1 for x in self.std), "augment.std", self.std, "three numbers between 0.001 and 1")
        within(self, ["size"], *SIDES, "augment.")
        within(self, ["hue"], 0, 0.5, "augment.")
        shares = ("brightness", "contrast", "saturation", "jitter_p", "grey_p", "blur_p", "flip_p")
        within(self, shares, 0, 1, "augment.")

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
    """Passes over the dataset."""
    batch: int = 256
    """Images per step, of all ranks together."""
    lr: float = 0.03
    """Learning rate per 256 images of global batch."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    weight_decay: float = 1e-4
    """Weight decay of SGD."""
    schedule: Literal["epoch", "step"] = "epoch"
    """When the learning rate moves along the cosine: after each epoch, or after each step."""

    def __post_init__(self) -> None:
        within(self, ("epochs", "batch"), 1, MOST, "optim.")
        require(0 < self.lr <= 1e6, "optim.lr", self.lr, "> 0 and at most 1000000")
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "in [0, 1)")
        within(self, ["weight_decay"], 0, 1000, "optim.")

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of global step `step` (0-based)."""
        position = step / steps_per_epoch if self.schedule == "step" else step // steps_per_epoch
        return self.lr * self.batch / 256 * 0.5 * (1 + math.cos(math.pi * position / self.epochs))


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage runs; nothing here changes what is being computed, only its speed and rounding."""

    device: Device = "auto"
    """`auto`: a GPU if there is one."""
    precision: Precision = "fp32"
    """`bf16`: autocast to bfloat16; weights stay fp32."""
    channels_last: bool = True
    """Channels-last memory layout, faster on GPUs."""
    compile: bool = False
    """torch.compile the student; a minute or more at the start."""
    threads: int = 0
    """CPU threads per rank; 0 shares the machine's cores among its ranks."""
    impl: Impl = "auto"
    """Implementation of the loss; `auto`: triton on a GPU, chunked on a CPU."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; one more is written at each epoch's end, and the newest two are kept."""
    log_every: int = 50
    """Steps between flushes of metrics.jsonl (every step is in it; on a GPU each flush is one synchronisation)."""

    def __post_init__(self) -> None:
        within(self, ["threads"], 0, MOST_THREADS, "runtime.")
        within(self, ("checkpoint_every", "log_every"), 1, MOST, "runtime.")


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

    verify: bool = True
    """Compare each packed image with its content hash when a stage first reads it; one that differs counts as bad."""

    def __post_init__(self) -> None:
        within(self, ["hw_decoder_load"], 0, 1, "loader.")
        within(self, ["prefetch"], 1, 64, "loader.")


@dataclass(frozen=True)
class TrainingLoader(Loader):
    """The loader of a stage that can replace an image: features and evaluations cannot, and stop at the first."""

    max_bad: float = 0.001
    """Largest share of the images that may turn out undecodable while training; 0 stops at the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, ["max_bad"], 0, 1, "loader.")

    def most_bad(self, images: int) -> int | None:
        """How many of `images` may be bad; None: all of them."""
        return None if self.allow_bad else int(self.max_bad * images)


@dataclass(frozen=True)
class Contrast:
    """The contrastive head and queue shared by pre-training and distillation."""

    dim: int = 128
    """Channels of a key; a student's must be its teacher's."""
    hidden: int = 2048
    """Hidden units of the projection head."""
    queue: int = 65536
    """Past keys that serve as negatives; fewer than the images."""
    queue_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Format of the keys in the queue."""
    temperature: float = 0.2
    """Temperature of the softmax over keys."""
    negatives: Literal["all", "strangers"] = "all"
    """`all`: every key in the queue, as published; `strangers`: not those of the same image nor, in distillation, of
    its bag, for queues that hold a large part of the dataset."""

    def __post_init__(self) -> None:
        within(self, ["temperature"], 0.001, 1000, "contrast.")
        within(self, ["queue"], 1, MOST, "contrast.")
        within(self, ["dim"], 1, 8192, "contrast.")
        within(self, ["hidden"], 1, 32768, "contrast.")


@dataclass(frozen=True)
class Monitor:
    """kNN accuracy on a labelled validation set while training; off without `val`."""

    val: Path | None = None
    """Labelled images for it: a packed dataset, or an image folder; `None`: off."""
    every: int = 10
    """Epochs between evaluations; the last epoch is always evaluated."""

    def __post_init__(self) -> None:
        within(self, ["every"], 1, MOST, "monitor.")


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise UserError(f"{name}={brief(value)} is not allowed: it must be {allowed}; set --{name}")


def within(config: object, names: Iterable[str], low: float, high: float, prefix: str = "") -> None:
    """`UserError` unless each of these fields lies in low .. high; what is not a number lies nowhere."""
    for name in names:
        value = getattr(config, name)
        flag = prefix + name.replace("_", "-")
        require(low <= value <= high, flag, value, f"between {low} and {high}")
