"""Settings of the stages that judge a trained model and hand it on; see `bingo.config`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bingo.config_parts import MOST, MOST_SEED, Augmentation, Finetune, Loader, Runtime, require, within
from bingo.errors import UserError, brief
from bingo.protocols import PROTOCOLS, Linear

EvalKind = Literal["linear", "knn", "fewshot", "finetune", "transfer"]
ProtocolName = Literal["cached", "release", "moco", "simreg"]
ExportFormat = Literal["torchvision", "safetensors", "onnx", "detectron2"]


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation of a trained model on a labelled train/validation pair: its frozen features, or fine-tuned."""

    run: Path
    """A run folder, a model file, a checkpoint, timm:NAME or torchvision:NAME."""
    train: Path
    """Labelled images to fit on: a packed dataset, or an image folder."""
    val: Path
    """Labelled images to judge on, of the same classes: a packed dataset, or an image folder."""
    out: Path
    """Folder of the results."""
    kinds: tuple[EvalKind, ...] = ("linear", "knn", "fewshot")
    """What is measured: linear, knn, fewshot, transfer; or finetune, alone."""
    k: tuple[int, ...] = (10,)
    """knn: neighbours that vote, or several numbers of them; tables and reports show the first."""
    shots: int = 2
    """fewshot: labelled images per class."""
    draws: int = 20
    """fewshot: draws of the labelled images; accuracies are averaged over them."""
    protocol: ProtocolName = "cached"
    """linear: `release`, `moco` and `simreg` train on new crops in each epoch, as published; `cached` is a quick
    estimate on the features of centre crops."""
    solver: Literal["lbfgs", "sgd"] = "sgd"
    """linear, cached: `sgd` is MoCo's optimiser (lr 30, 100 epochs); `lbfgs` the exact optimum, for small data."""
    linear_lr: float | None = None
    """linear: learning rate of the first epochs, not scaled by the batch; `None`: the protocol's (30; simreg 0.01)."""
    linear_min_lr: float | None = None
    """linear, release: where the cosine ends; `None`: 0.01. The release takes lr 3 and 0.001 for EfficientNet."""
    linear_epochs: int | None = None
    """linear: epochs; `None`: the protocol's (release 120, moco and cached 100, simreg 40)."""
    linear_batch: int = 256
    """linear: images per step, of all ranks together."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Where new crops are trained on: smallest and largest share of an image's area (torchvision's default)."""
    flip_p: float = 0.5
    """Where new crops are trained on: probability that left and right are swapped."""
    finetune: Finetune = field(default_factory=Finetune)
    transfer_l2: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    """transfer: penalties to choose from; x adds x/2 times the squared weights to the mean cross-entropy."""
    holdout: float = 0.2
    """transfer: share of each class of the training images on which the penalty is chosen."""
    augment: Augmentation = field(default_factory=Augmentation)
    batch: int = 256
    """Images that are decoded and pass the network at once."""
    runtime: Runtime = field(default_factory=Runtime)
    loader: Loader = field(default_factory=Loader)
    seed: int = 0
    """Seed of what is drawn: the order of images, crops, a classifier's weights, the images of fewshot and finetune,
    what transfer holds out."""
    arch: str = ""
    """Network of a checkpoint that does not name its own: torchvision's name or timm:NAME. Empty: as it looks."""

    def __post_init__(self) -> None:
        within(self, ("shots", "draws", "linear_batch", "batch"), 1, MOST)
        distinct = 0 < len(self.k) == len(set(self.k))
        require(distinct and all(1 <= k <= MOST for k in self.k), "k", self.k, f"numbers from 1 to {MOST}, each once")
        within(self, ["seed"], 0, MOST_SEED)
        within(self, ["flip_p"], 0, 1)
        if self.linear_epochs is not None:
            within(self, ["linear_epochs"], 1, MOST)
        if self.linear_lr is not None:
            require(0 < self.linear_lr <= 1e6, "linear-lr", self.linear_lr, "> 0 and at most 1000000")
        if self.linear_min_lr is not None:
            if self.protocol != "release":
                raise UserError(f"--linear-min-lr ends the cosine of --protocol release, {self.protocol} has none")
            within(self, ["linear_min_lr"], 0, 1e6)
        schedule = self.linear.schedule
        if schedule.min_lr is not None and not schedule.min_lr <= schedule.lr:
            raise UserError(
                f"linear-lr={schedule.lr:g} is below linear-min-lr={schedule.min_lr:g}, where the cosine ends: lower "
                "--linear-min-lr, or raise --linear-lr"
            )
        low, high = self.crop_scale
        require(0 < low <= high <= 1, "crop-scale", self.crop_scale, "0 < low <= high <= 1")
        require(0.01 <= self.holdout <= 0.9, "holdout", self.holdout, "between 0.01 and 0.9")
        sound = 0 < len(self.transfer_l2) == len(set(self.transfer_l2))
        sound = sound and all(1e-12 <= penalty <= 1e6 for penalty in self.transfer_l2)
        require(sound, "transfer-l2", self.transfer_l2, "numbers from 1e-12 to 1e6, each once")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise UserError(
                f"kinds={brief(self.kinds)} is not allowed: name linear, knn, fewshot or transfer, each once"
            )
        if "finetune" in self.kinds and len(self.kinds) > 1:
            raise UserError(f"kinds={brief(self.kinds)} is not allowed: finetune changes the network and stands alone")

    @property
    def linear(self) -> Linear:
        """The protocol of the linear classifier, with what the settings say otherwise."""
        return PROTOCOLS[self.protocol].changed(self.linear_lr, self.linear_min_lr, self.linear_epochs)

    @property
    def trains(self) -> bool:
        """Whether something is trained on new crops, step by step, with checkpoints."""
        return "finetune" in self.kinds or ("linear" in self.kinds and self.linear.augmented)

    @property
    def epochs(self) -> int:
        """Of what is trained on new crops."""
        return self.finetune.epochs if "finetune" in self.kinds else self.linear.schedule.epochs

    def in_key(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings (as JSON) as a stage's key has them: rates that the protocol says are written out."""
        schedule = self.linear.schedule
        said = {"linear_lr": schedule.lr, "linear_epochs": schedule.epochs}
        return settings | said | ({} if schedule.min_lr is None else {"linear_min_lr": schedule.min_lr})


@dataclass(frozen=True)
class ExportConfig:
    """A trained backbone with a classifier as plain weights for others, a model card, and hashes of every file."""

    model: Path
    """The trained model: a run folder, a model.pt, or a checkpoint."""
    out: Path
    """Folder of the weights, their description weights.json and their model card README.md."""
    classifier: Path | None = None
    """An evaluation folder whose linear classifier goes with the backbone; without one a zero classifier is written."""
    classes: int = 1000
    """Without a classifier: outputs of the one that is written."""
    format: tuple[ExportFormat, ...] = ("torchvision",)
    """What is written: torchvision (weights.pt, a state dict), safetensors (the folder hub, for timm and model hubs),
    onnx (weights.onnx), detectron2 (detectron2.pkl, for ResNet-18, 34 and 50)."""
    arch: str = ""
    """Network of a checkpoint that does not name its own: torchvision's name or timm:NAME. Empty: as it looks."""

    def __post_init__(self) -> None:
        within(self, ["classes"], 1, 100_000)
        if not self.format or len(set(self.format)) < len(self.format):
            known = "torchvision, safetensors, onnx, detectron2"
            raise UserError(
                f"format={brief(self.format)} is not allowed: name some of {known}, each once; set --format"
            )
