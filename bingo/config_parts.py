"""Groups of settings that several stages share; see `bingo.config`."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

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
Precision = Literal["auto", "fp32", "bf16"]
Engine = Literal["auto", "plain", "folded", "compiled"]
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
    blur: Literal["gaussian", "pil"] = "gaussian"
    """`gaussian`: a sampled Gaussian, as torchvision's; `pil`: PIL's, as the release: it blurs below 0.4 pixels too."""
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
        """Odd kernel width of about a tenth of the image (SimCLR's rule): 23 at 224 pixels, never below 3.

        PIL has no such rule: its blur takes what the largest sigma needs (three boxes), as far as the image goes.
        """
        width = max(3, 2 * (self.size // 20) + 1)
        if self.blur == "gaussian":
            return width
        reach = 3 * (int((math.sqrt(4 * self.blur_sigma[1] ** 2 + 1) - 1) / 2) + 1)
        return max(width, 2 * min(reach, self.size - 1) + 1)

    @property
    def eval_resize(self) -> int:
        """Shorter side before the centre crop: 256 for 224.

        The margin is even, so that the crop, whose offset is a whole number, lies in the middle: half a pixel of a
        small image is much.
        """
        return self.size + 2 * round(self.size * 16 / 224)


@dataclass(frozen=True)
class Optimiser:
    """SGD or LARS with a cosine schedule to zero. `lr` is per 256 images of global batch (linear scaling)."""

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
    kind: Literal["sgd", "lars"] = "sgd"
    """`lars`: SGD whose step for each weight matrix is as long as its rate says of the matrix's length, for large
    batches; vectors (biases, batch norm) get plain SGD without weight decay."""
    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises from zero, step by step, to where the cosine begins."""

    def __post_init__(self) -> None:
        within(self, ("epochs", "batch"), 1, MOST, "optim.")
        require(
            0 <= self.warmup_epochs < self.epochs, "optim.warmup-epochs", self.warmup_epochs,
            f"at least 0 and below --optim.epochs ({self.epochs})",
        )  # fmt: skip
        require(0 < self.lr <= 1e6, "optim.lr", self.lr, "> 0 and at most 1000000")
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "in [0, 1)")
        within(self, ["weight_decay"], 0, 1000, "optim.")

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of global step `step` (0-based): linear warm-up, and a cosine over the epochs behind it."""
        highest, warm = self.lr * self.batch / 256, self.warmup_epochs
        if step < warm * steps_per_epoch:
            return highest * (step + 1) / (warm * steps_per_epoch)
        position = step / steps_per_epoch if self.schedule == "step" else step // steps_per_epoch
        return highest * 0.5 * (1 + math.cos(math.pi * max(position - warm, 0) / (self.epochs - warm)))


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage runs; nothing here changes what is being computed, only its speed and rounding."""

    device: Device = "auto"
    """`auto`: a GPU if there is one."""
    precision: Precision = "auto"
    """`bf16`: autocast to bfloat16; weights that are trained stay fp32. `auto`: bf16 on a GPU, fp32 on a CPU."""
    engine: Engine = "auto"
    """How a frozen network runs: `plain`, as it is; `folded`: batch norm inside its convolutions; `compiled`: that, and
    by torch.compile. `auto`: compiled on a GPU, plain on a CPU."""
    channels_last: bool = True
    """Channels-last memory layout, faster on GPUs."""
    compile: bool | None = None
    """torch.compile the student; a minute or more at the start. `none`: on a GPU, from 10000 steps on."""
    graph: Literal["auto", "yes", "no"] = "auto"
    """A training step as a CUDA graph; `auto`: on a GPU, where launches take longer than what they launch."""
    threads: int = 0
    """CPU threads per rank; 0 shares the machine's cores among its ranks."""
    impl: Impl = "auto"
    """Implementation of the loss; `auto`: triton on a GPU, chunked on a CPU."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; one more is written at each epoch's end, and the newest two are kept."""
    log_every: int = 50
    """Steps between flushes of metrics.jsonl (every step is in it; on a GPU each flush is one synchronisation)."""
    profile: str = ""
    """Steps of a training to profile, such as `10:15` (10 to 14) or `10:15@0,3` of ranks 0 and 3; the traces go to
    `profile/` in `out`, for `bingo bench profile --of`."""

    def __post_init__(self) -> None:
        profile_window(self.profile)
        within(self, ["threads"], 0, MOST_THREADS, "runtime.")
        within(self, ("checkpoint_every", "log_every"), 1, MOST, "runtime.")


MOST_PROFILED = 100
"""Steps of a profile: the trace of one has megabytes."""


class Window(NamedTuple):
    """Steps first .. past - 1, from 0, that some ranks profile."""

    first: int
    past: int
    ranks: tuple[int, ...]


def profile_window(text: str) -> Window | None:
    """What `runtime.profile` asks for; None for nothing. `UserError` for what is none."""
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})(?:@(\d{1,6}(?:,\d{1,6})*))?", text)
    allowed = f"FIRST:PAST or FIRST:PAST@RANK,..., FIRST below PAST by at most {MOST_PROFILED}, such as 10:15@0"
    require(bool(found), "runtime.profile", text, allowed)
    assert found is not None
    first, past = int(found[1]), int(found[2])
    require(0 < past - first <= MOST_PROFILED, "runtime.profile", text, allowed)
    return Window(first, past, tuple(sorted({int(rank) for rank in (found[3] or "0").split(",")})))


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
    queue_dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Format of the keys in the queue; `auto`: that of the precision."""
    temperature: float = 0.2
    """Temperature of the softmax over keys."""
    negatives: Literal["all", "strangers"] = "all"
    """`all`: every key in the queue, as published; `strangers`: not those of the same image nor, in distillation, of
    its bag, for queues that hold a large part of the dataset."""
    layers: int = 2
    """Linear layers of the projection head, 2 to 4. 2: MoCo v2's; 3: SimCLR v2's, with batch norm; 4: SimReg's, two
    MLPs with batch norm one behind the other."""

    def __post_init__(self) -> None:
        within(self, ["temperature"], 0.001, 1000, "contrast.")
        within(self, ["queue"], 1, MOST, "contrast.")
        within(self, ["dim"], 1, 8192, "contrast.")
        within(self, ["hidden"], 1, 32768, "contrast.")
        within(self, ["layers"], 2, 4, "contrast.")


@dataclass(frozen=True)
class Monitor:
    """kNN accuracy on a labelled validation set while training; off without `val`."""

    val: Path | None = None
    """Labelled images for it: a packed dataset, or an image folder; `None`: off."""
    every: int = 10
    """Epochs between evaluations; the last epoch is always evaluated."""
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Who else shows what is in metrics.jsonl: tensorboard, wandb (offline), in folders of these names in `out`."""

    def __post_init__(self) -> None:
        within(self, ["every"], 1, MOST, "monitor.")
        once = len(set(self.sinks)) == len(self.sinks)
        require(once, "monitor.sinks", self.sinks, "tensorboard or wandb, each once")


@dataclass(frozen=True)
class Finetune:
    """Fine-tuning on a few labels; rates and schedule are those of SwAV's script (`eval_semisup.py`)."""

    fraction: float = 0.01
    """Share of the training images whose labels are used, equally many of each class, drawn from the seed."""
    names: Path | None = None
    """Text file with one image's name per line, in place of `fraction`, such as SimCLR's 1percent.txt."""
    epochs: int = 20
    """Passes over these images; rates are divided by 5 after 3/5 and 4/5 of them."""
    batch: int = 256
    """Images per step, of all ranks together; the last ones of an epoch that fill no step are left out of it."""
    lr: float = 0.01
    """Learning rate of the network."""
    head_lr: float = 0.2
    """Learning rate of the new classifier."""
    weight_decay: float = 0.0
    """Weight decay of SGD."""
    every: int = 1
    """Epochs between measurements of the accuracy; the last epoch is always measured."""

    def __post_init__(self) -> None:
        require(0 < self.fraction <= 1, "finetune.fraction", self.fraction, "> 0 and at most 1")
        within(self, ("epochs", "batch", "every"), 1, MOST, "finetune.")
        for name, value in (("lr", self.lr), ("head-lr", self.head_lr)):
            require(0 < value <= 1e6, f"finetune.{name}", value, "> 0 and at most 1000000")
        within(self, ["weight_decay"], 0, 1000, "finetune.")


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise UserError(f"{name}={brief(value)} is not allowed: it must be {allowed}; set --{name}")


def within(config: object, names: Iterable[str], low: float, high: float, prefix: str = "") -> None:
    """`UserError` unless each of these fields lies in low .. high; what is not a number lies nowhere."""
    for name in names:
        value = getattr(config, name)
        flag = prefix + name.replace("_", "-")
        require(low <= value <= high, flag, value, f"between {low} and {high}")
