"""Settings of every stage: frozen dataclasses, one sentence for every wrong value."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bingo.config_parts import (
    MOST,
    MOST_SEED,
    MOST_THREADS,
    SIDES,
    Augmentation,
    Contrast,
    Loader,
    Monitor,
    Optimiser,
    Runtime,
    TrainingLoader,
    require,
    within,
)
from bingo.errors import UserError, brief, did_you_mean
from bingo.objectives import OBJECTIVES, Objective, ObjectiveName

BagKind = Literal["knn", "kmeans", "label", "random"]


@dataclass(frozen=True)
class DemoDataConfig:
    """scikit-learn's handwritten digits, or the images of IDX files, as JPEG files in ImageFolder layout."""

    out: Path
    """Folder to write; it gets `train` and `val`, each a folder of class folders."""
    size: int = 32
    """Pixels per side; the digits are 8 x 8, Fashion-MNIST's images 28 x 28."""
    from_idx: Path | None = None
    """Folder with the four IDX files of Fashion-MNIST, or another set of that form: these images in place of digits."""
    train_images: int = 12000
    """`from-idx`: how many of the training images are taken, about equally many of each class."""
    val_images: int = 5000
    """`from-idx`: how many of the test images are taken."""
    seed: int = 0
    """`from-idx`: seed of which images are taken."""

    def __post_init__(self) -> None:
        within(self, ["size"], *SIDES)
        within(self, ("train_images", "val_images"), 1, MOST)
        within(self, ["seed"], 0, MOST_SEED)


@dataclass(frozen=True)
class PackConfig:
    """Images as flat files and an index. An interrupted pack goes on when the same command is given again."""

    source: Path
    """Folder of class folders, .tar file, folder of .tar files, or pattern: 'train-{000..146}.tar'."""
    out: Path
    """Folder of the packed dataset."""
    convert: bool = False
    """Store misnamed files as they are, progressive JPEGs as baseline ones of the same pixels, giants with at most 20
    megapixels, and CMYK, 16-bit, palette, alpha, GIF, WebP, BMP, TIFF and PPM images as RGB PNGs."""
    allow_bad: bool = False
    """Leave undecodable files out instead of refusing the source."""
    workers: int = 0
    """Decoding threads; 0 uses every core."""
    shard_gib: float = 64.0
    """Largest flat file, in GiB."""
    class_from: str = ""
    """Where classes come from in tar files: an ending of label members (cls, class.cls, json:KEY), folder (the first),
    parent (the one an image lies in) or tar (the file's name). Empty: .cls, .json with "label", folders, names."""
    ext: str = ""
    """Take images with these endings only, what follows the first dot of a name: jpg or jpg,png. Empty: all kinds."""

    def __post_init__(self) -> None:
        require(0 < self.shard_gib <= 1e6, "shard-gib", self.shard_gib, "> 0 and at most 1000000")
        within(self, ["workers"], 0, MOST_THREADS)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What `pretrain` and `distill` share."""

    data: Path
    """Images to learn from: a folder made by `bingo pack`, or an image folder."""
    out: Path
    """Run folder: weights, checkpoints and metrics."""
    contrast: Contrast = field(default_factory=Contrast)
    augment: Augmentation = field(default_factory=Augmentation)
    optim: Optimiser = field(default_factory=Optimiser)
    runtime: Runtime = field(default_factory=Runtime)
    loader: TrainingLoader = field(default_factory=TrainingLoader)
    monitor: Monitor = field(default_factory=Monitor)
    seed: int = 0
    """Seed of everything that is drawn: weights, order, crops, colours, queue."""

    def __post_init__(self) -> None:
        within(self, ["seed"], 0, MOST_SEED)

    def need_a_batch(self, setting: str, chosen: bool) -> None:
        """`UserError` where statistics of the batch are asked for, and it is a single image."""
        if chosen and self.optim.batch < 2:
            raise UserError(
                f"{setting} takes statistics of the batch, which is one image: set --optim.batch to 2 or more"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainingConfig):
    """MoCo-v2 on unlabelled images: makes a teacher, and is the baseline a distilled student must beat."""

    model: str = "resnet50"
    """Any torchvision classifier by name, timm:NAME, or tiny-WIDTH."""
    key_momentum: float = 0.999
    """Share of the key encoder's weights that a step keeps; the rest comes from the query encoder."""

    key_bn: Literal["eman", "shuffle"] = "eman"
    """Batch norm of the key encoder: `eman`, an average of the query encoder's statistics; `shuffle`, those of blocks
    of 32 images of the shuffled global batch, as MoCo's code does, which sends every image to every rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.key_momentum < 1, "key-momentum", self.key_momentum, "in [0, 1)")
        self.need_a_batch("key-bn=shuffle", self.key_bn == "shuffle")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """A student learns from a frozen teacher's keys: by BINGO it gathers each image and its bag around them."""

    bags: Path | None = None
    """A folder made by `bingo bags`, or its bags.npz; needed for `--objective` release and paper."""
    teacher: Path | None = None
    """A run folder, its model.pt, a checkpoint, timm:NAME or torchvision:NAME; this or `keys`."""
    keys: Path | None = None
    """A folder made by `bingo keys`: no teacher runs, and a step decodes and augments two views only."""
    cached_negatives: Literal["queue", "cache"] = "queue"
    """With `keys`: `queue` holds the keys of past steps, as with a teacher; `cache` draws new ones every epoch."""
    student: str = "resnet18"
    """Any torchvision classifier by name, timm:NAME, or tiny-WIDTH."""
    objective: ObjectiveName = "release"
    """`release`: three queries, two keys, cutmix (what the published numbers used); `paper`: two queries, one key. The
    others need no bags, see docs/objectives.md."""
    teacher_temperature: float | None = None
    """Temperature of the teacher's softmax over keys; 0: the student's. `none`: the objective's own."""
    warm_epochs: int = 11
    """Release objective: epochs in which only each image's own key is a positive."""
    cutmix: bool = True
    """Release objective: a third query, the image with a patch of its bag mate."""
    cutmix_block: int = 0
    """Anchors of the global batch that share a box of CutMix, 32 in the release; 0: one box for the whole step."""
    key_view: Literal["auto", "cross", "same"] = "auto"
    """`cross`: keys from a second view; `same`: from the query's own. `auto`: as published, cross for release and paper
    and same for the others."""
    local_crops: int = 0
    """Small views of each image that the student sees besides, 0 to 6 (multi-crop): each has the image's own key. For
    objectives with one view of an image."""
    local_size: int = 96
    """`local_crops`: their pixels per side."""
    local_scale: tuple[float, float] = (0.05, 0.2)
    """`local_crops`: smallest and largest share of the image's area that one takes."""
    view_norm: Literal["per-view", "joint"] = "per-view"
    """Batch-norm statistics of the student: one set per view, or one over all views of the step."""
    teacher_bn: Literal["eval", "batch"] = "eval"
    """Batch norm of the teacher: `eval`, its running statistics; `batch`, those of blocks of 32 images of the shuffled
    global batch, as the release does, which sends every key view to every rank."""
    student_ema: float = 0.0
    """Share that a step keeps of an average of the student's weights, such as 0.9995; the average is what is evaluated
    and saved. 0: none."""
    arch: str = ""
    """Network of a checkpoint that does not name its own: torchvision's name or timm:NAME. Empty: as it looks."""

    @property
    def method(self) -> Objective:
        """The row of the objective. `UserError` for an unknown one."""
        if self.objective not in OBJECTIVES:
            raise UserError(f"objective {brief(self.objective)} is unknown; {did_you_mean(self.objective, OBJECTIVES)}")
        return OBJECTIVES[self.objective]

    @property
    def local(self) -> Augmentation:
        """How local crops are made."""
        return replace(self.augment, size=self.local_size, scale=self.local_scale)

    @property
    def same_view(self) -> bool:
        """Whether keys come from the query's own view."""
        return (self.method.key_view if self.key_view == "auto" else self.key_view) == "same"

    @property
    def target_temperature(self) -> float:
        """Temperature of the teacher's softmax."""
        own = self.method.teacher_temperature if self.teacher_temperature is None else self.teacher_temperature
        return own or self.contrast.temperature

    def in_key(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings (as JSON) as a stage's key has them: what the objective decides is written out."""
        return settings | {"key_view": "same" if self.same_view else "cross"}

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, ("warm_epochs", "cutmix_block"), 0, MOST)
        require(0 <= self.student_ema < 1, "student-ema", self.student_ema, "in [0, 1)")
        within(self, ["local_crops"], 0, 6)
        within(self, ["local_size"], *SIDES)
        low, high = self.local_scale
        require(0 < low <= high <= 1, "local-scale", self.local_scale, "0 < low <= high <= 1")
        if self.local_crops and (self.method.bags or self.method.views > 1 or self.view_norm == "joint"):
            raise UserError(
                f"local-crops={self.local_crops} is for objectives with one view of an image (such as seed) "
                "and --view-norm per-view: leave it out, or choose these"
            )
        if self.teacher_temperature:
            within(self, ["teacher_temperature"], 1e-6, 1000)
        if self.bags is None and self.method.bags:
            raise UserError(
                f"--objective {self.objective} needs bags: give --bags DIR (made by `bingo bags`), or choose an "
                "objective without bags, such as --objective seed"
            )
        self.need_a_batch("teacher-bn=batch", self.teacher_bn == "batch")
        if (self.teacher is None) == (self.keys is None):
            given = "neither is" if self.teacher is None else "both are"
            raise UserError(f"keys come from a teacher or from a cache, {given} given: set --teacher or --keys")
        if self.keys is None and self.cached_negatives != "queue":
            raise UserError(
                f"cached-negatives={self.cached_negatives} needs cached keys: set --keys (see `bingo keys`)"
            )
        if self.keys is not None and self.teacher_bn != "eval":
            raise UserError(
                "teacher-bn=batch needs the teacher on the batch of each step, which no cache holds: "
                "set --teacher instead of --keys, or --teacher-bn eval"
            )
        if self.teacher_bn == "batch" and self.runtime.engine not in ("auto", "plain"):
            raise UserError(
                f"runtime.engine={self.runtime.engine} has the teacher's batch norm inside its convolutions, and "
                "teacher-bn=batch needs it on each batch: leave out --runtime.engine, or set --teacher-bn eval"
            )
        if self.teacher_bn == "batch" and self.method.lengths:
            raise UserError(
                f"objective={self.objective} needs the lengths of the teacher's outputs, and teacher-bn=batch makes "
                "keys of length one: set --teacher-bn eval, or another --objective"
            )
        if self.keys is not None and self.method.lengths:
            raise UserError(
                f"objective={self.objective} needs the lengths of the teacher's outputs, which no cache holds: set "
                "--teacher instead of --keys, or another --objective"
            )


@dataclass(frozen=True)
class KeysConfig:
    """The teacher's keys of several augmented views of every image, computed once for `distill --keys`."""

    data: Path
    """Images to learn from: a folder made by `bingo pack`, or an image folder."""
    teacher: Path
    """A run folder, its model.pt, a checkpoint, timm:NAME or torchvision:NAME."""
    out: Path
    """Folder of the cached keys."""
    views: int = 16
    """Augmented views of each image, 1 to 256; a training draws one of them per step."""
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Format of the stored keys; fp32 takes twice the disk of bf16 and fp16."""
    augment: Augmentation = field(default_factory=Augmentation)
    batch: int = 256
    """Most images that are decoded, and about as many views as pass the teacher, at once."""
    runtime: Runtime = field(default_factory=Runtime)
    loader: Loader = field(default_factory=Loader)
    seed: int = 0
    """Seed of everything that is drawn: crops and colours of the views."""
    arch: str = ""
    """Network of a checkpoint that does not name its own: torchvision's name or timm:NAME. Empty: as it looks."""

    def __post_init__(self) -> None:
        within(self, ["views"], 1, 256)
        within(self, ["batch"], 1, MOST)
        within(self, ["seed"], 0, MOST_SEED)


@dataclass(frozen=True)
class TeacherConfig:
    """A network of others as a teacher: with its own projection head, or with one made of its features or by a seed."""

    model: Path
    """The network: a run folder, its model.pt, a checkpoint, timm:NAME or torchvision:NAME."""
    out: Path
    """Folder of the teacher."""
    head: Literal["own", "none", "pca", "orthogonal"] = "own"
    """What gives keys: the network's own head, nothing (its features are the keys, as in SimReg and CompRess), the
    first principal components of `features`, or fixed directions."""
    features: Path | None = None
    """`pca`: a folder made by `bingo features` with this network."""
    dim: int = 128
    """`pca`, `orthogonal`: channels of a key; the kernels of a GPU take 64, 128 and 256."""
    whiten: bool = False
    """`pca`: give all components the same variance."""
    seed: int = 0
    """`orthogonal`: seed of the directions."""
    augment: Augmentation = field(default_factory=Augmentation)
    loader: Loader = field(default_factory=Loader)
    arch: str = ""
    """Network of a checkpoint that does not name its own: torchvision's name or timm:NAME. Empty: as it looks."""

    def __post_init__(self) -> None:
        within(self, ["dim"], 1, 8192)
        within(self, ["seed"], 0, MOST_SEED)
        if self.head == "pca" and self.features is None:
            raise UserError("--head pca needs features: give --features DIR (made by `bingo features`)")


@dataclass(frozen=True)
class FeaturesConfig:
    """Pooled backbone features of every image (resize, centre crop, eval mode)."""

    data: Path
    """Images: a folder made by `bingo pack`, or an image folder."""
    model: Path
    """The teacher: a run folder, its model.pt, a checkpoint, timm:NAME or torchvision:NAME."""
    out: Path
    """Folder of the features."""
    dtype: Literal["fp16", "fp32"] = "fp16"
    """Format of the stored features: fp32 takes twice the disk, and gives the bags of the release to the last digit."""
    augment: Augmentation = field(default_factory=Augmentation)
    batch: int = 256
    """Images that are decoded and pass the network at once."""
    runtime: Runtime = field(default_factory=Runtime)
    loader: Loader = field(default_factory=Loader)
    arch: str = ""
    """Network of a checkpoint that does not name its own: torchvision's name or timm:NAME. Empty: as it looks."""

    def __post_init__(self) -> None:
        within(self, ["batch"], 1, MOST)


@dataclass(frozen=True)
class BagsConfig:
    """Bags of similar images: k members per anchor."""

    data: Path
    """The images that the features are of: a packed dataset, or an image folder."""
    out: Path
    """Folder of the bags."""
    features: Path | None = None
    """A folder made by `bingo features`; needed for `knn` and `kmeans`."""
    kind: BagKind = "knn"
    """Who shares a bag: nearest neighbours, members of a k-means cluster, images of one class, or chance."""
    k: int = 5
    """Members per anchor."""
    clusters: int = 1000
    """`kmeans`: clusters."""
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
    """Seed of everything that is drawn: random members, centroids, the sample of the diagnostics."""
    runtime: Runtime = field(default_factory=Runtime)

    def __post_init__(self) -> None:
        within(self, ("k", "clusters"), 1, MOST)
        within(self, ("nlist", "nprobe"), 0, MOST)
        within(self, ["seed"], 0, MOST_SEED)
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
