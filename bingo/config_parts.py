"""Groups of settings that several stages share; see `bingo.config`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bingo.errors import UserError

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
        require(self.size >= 8, "augment.size", self.size, ">= 8 pixels")
        require(0 < self.scale[0] <= self.scale[1] <= 1, "augment.scale", self.scale, "0 < low <= high <= 1")
        require(0 < self.blur_sigma[0] <= self.blur_sigma[1], "augment.blur_sigma", self.blur_sigma, "0 < low <= high")
        require(0 <= self.hue <= 0.5, "augment.hue", self.hue, "between 0 and 0.5")
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "between 0 and 1")
        for name in ("jitter_p", "grey_p", "blur_p", "flip_p"):
            require(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "between 0 and 1")

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
        require(self.epochs >= 1, "optim.epochs", self.epochs, ">= 1")
        require(self.batch >= 1, "optim.batch", self.batch, ">= 1")
        require(self.lr > 0, "optim.lr", self.lr, "> 0")
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "in [0, 1)")
        require(self.weight_decay >= 0, "optim.weight-decay", self.weight_decay, ">= 0")

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
        require(self.threads >= 0, "runtime.threads", self.threads, ">= 0 (0 = automatic)")
        require(self.checkpoint_every >= 1, "runtime.checkpoint-every", self.checkpoint_every, ">= 1")
        require(self.log_every >= 1, "runtime.log-every", self.log_every, ">= 1")


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
        require(0 <= self.hw_decoder_load <= 1, "loader.hw-decoder-load", self.hw_decoder_load, "between 0 and 1")
        require(self.prefetch >= 1, "loader.prefetch", self.prefetch, ">= 1")


@dataclass(frozen=True)
class TrainingLoader(Loader):
    """The loader of a stage that can replace an image: features and evaluations cannot, and stop at the first."""

    max_bad: float = 0.001
    """Largest share of the images that may turn out undecodable while training; 0 stops at the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.max_bad <= 1, "loader.max-bad", self.max_bad, "between 0 and 1")

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
        require(
            self.temperature > 0 and math.isfinite(self.temperature), "contrast.temperature", self.temperature, "> 0"
        )
        require(self.queue >= 1, "contrast.queue", self.queue, ">= 1")
        require(self.dim >= 1, "contrast.dim", self.dim, ">= 1")
        require(self.hidden >= 1, "contrast.hidden", self.hidden, ">= 1")


@dataclass(frozen=True)
class Monitor:
    """kNN accuracy on a labelled validation set while training; off without `val`."""

    val: Path | None = None
    """Labelled images for it: a packed dataset, or an image folder; `None`: off."""
    every: int = 10
    """Epochs between evaluations; the last epoch is always evaluated."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "monitor.every", self.every, ">= 1")


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise UserError(f"{name}={value} is not allowed: it must be {allowed}; set --{name}")
