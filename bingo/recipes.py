"""Recipes: functions that return settings. `digits` is the whole suite on two cores; the others are the paper's."""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bingo.config import BagKind, BagsConfig, DemoDataConfig, DistillConfig, FeaturesConfig, PackConfig, PretrainConfig
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Contrast, Device, Monitor, Optimiser, Runtime
from bingo.errors import UserError, brief, did_you_mean
from bingo.files import RECORD, hash_json, read_object, read_sealed
from bingo.inputs import augmentation_of, recorded
from bingo.paths import as_text
from bingo.stages import Stage

DIGITS_BAGS: tuple[BagKind, ...] = ("random", "knn", "label")
DIGITS_ARMS = ("no teacher", *DIGITS_BAGS)
DIGITS_STUDENT = "tiny"
RECIPE, PAGE = "recipe.json", "report.html"


@dataclass(frozen=True)
class Group:
    """Stages that run one after another in one job; parallel: on all ranks, otherwise on one, on a CPU."""

    name: str
    stages: tuple[Stage, ...]
    parallel: bool = False


@dataclass(frozen=True)
class Recipe:
    """Groups in an order in which each may use what the ones before it made."""

    jobs: tuple[Group, ...]
    arms: dict[str, tuple[str, ...]]
    """Arm of the comparison -> names of its evaluation stages, one per seed."""
    root: Path | None = None
    """The folder that all stages lie below, where that is not the chain's own: of a sweep."""


def summary(name: str, recipe: Recipe) -> dict[str, Any]:
    """What recipe.json says: the stages, and which evaluations belong to which arm."""
    stages = [stage.to_json() for group in recipe.jobs for stage in group.stages]
    place = {} if recipe.root is None else {"root": as_text(recipe.root)}
    return {"recipe": name, **place, "arms": recipe.arms, "stages": stages}


def results_hash(recipe: Mapping[str, Any], folders: Iterable[Path]) -> str:
    """What a report is made from: the content of recipe.json and the outputs that the stages in `folders` recorded."""
    return hash_json({"recipe": recipe, "outputs": [read_sealed(out / RECORD).get("outputs") for out in folders]})


def reported(root: Path, content: str) -> bool:
    """Whether the page in `root` shows the results as they are now, of the recipe.json with this hash."""
    with contextlib.suppress(UserError, OSError, KeyError, TypeError):
        recipe = read_object(root / RECIPE)
        with open(root / PAGE, "rb") as file:
            found = re.search(rb'<meta name="results" content="(\w+)">', file.read(4096))
        folders = [Path(stage["config"]["out"]) for stage in recipe["stages"]]
        return hash_json(recipe) == content and found is not None and found[1].decode() == results_hash(recipe, folders)
    return False


def digits(root: Path, *, seeds: int = 5, epochs: int = 30, device: Device = "auto") -> Recipe:
    """Handwritten digits, a student of 1.6 k parameters: every stage, four arms, minutes on two cores.

    bingo run digits

    All arms get the same number of student passes: the paper objective makes two per image, so the undistilled student
    trains twice the epochs; batch, learning rate and schedule are the same for all. Digits are not mirrored or
    recoloured (a mirrored digit is another symbol), and are cut to 8 pixels: there the student's convolutions see a
    whole digit. What these choices were tried against is in docs/results.md.
    """
    d = _Digits(
        root,
        epochs,
        # One thread, whatever the machine: rounding depends on their number, and nets this small gain nothing.
        Runtime(device=device, checkpoint_every=500, threads=1),
        Augmentation(size=8, scale=(0.4, 1.0), hue=0.0, grey_p=0.0, blur_sigma=(0.1, 1.0), flip_p=0.0),
        Contrast(dim=32, hidden=64, queue=256),
        Optimiser(batch=64, lr=0.06, schedule="step"),
    )
    teacher = d.contrastive(root / "teacher", "tiny-24", 5 * epochs, seed=100)
    features, judged = d.features(teacher.out), d.evaluation(teacher.out)
    train = (
        Stage("teacher", "pretrain", teacher),
        Stage("features", "features", features),
        Stage("eval teacher", "eval", judged),
    )
    jobs = [Group("prepare", d.prepare()), Group("teacher", train, parallel=True), Group("bags", d.bags())]
    for seed in range(seeds):  # one job per seed: stages of one job share the seconds that starting torch takes
        students = tuple(stage for arm in DIGITS_ARMS for stage in d.student(arm, seed))
        jobs.append(Group(f"seed {seed}", students, parallel=True))
    export = ExportConfig(model=root / "students" / "knn-0", out=root / "export", classifier=root / "eval" / "knn-0")
    jobs.append(Group("export", (Stage("export", "export", export),)))
    arms = {arm: tuple(f"eval {arm} {seed}" for seed in range(seeds)) for arm in DIGITS_ARMS}
    return Recipe(tuple(jobs), arms)


@dataclass(frozen=True)
class _Digits:
    """The pieces of the digits recipe, on shared settings."""

    root: Path
    epochs: int
    runtime: Runtime
    augment: Augmentation
    contrast: Contrast
    optim: Optimiser

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def val(self) -> Path:
        return self.root / "val"

    def prepare(self) -> tuple[Stage, ...]:
        images = self.root / "images"
        return (
            Stage("demo-data", "demo-data", DemoDataConfig(out=images)),
            Stage("pack train", "pack", PackConfig(source=images / "train", out=self.train)),
            Stage("pack val", "pack", PackConfig(source=images / "val", out=self.val)),
        )

    def contrastive(self, out: Path, model: str, epochs: int, seed: int) -> PretrainConfig:
        return PretrainConfig(
            data=self.train,
            out=out,
            model=model,
            key_momentum=0.99,
            contrast=self.contrast,
            augment=self.augment,
            optim=replace(self.optim, epochs=epochs),
            runtime=self.runtime,
            monitor=Monitor(val=self.val, every=max(1, epochs // 6)),
            seed=seed,
        )

    def features(self, teacher: Path) -> FeaturesConfig:
        out = self.root / "features"
        return FeaturesConfig(data=self.train, model=teacher, out=out, augment=self.augment, runtime=self.runtime)

    def bags(self) -> tuple[Stage, ...]:
        stages = []
        for kind in DIGITS_BAGS:
            features = self.root / "features" if kind == "knn" else None
            out = self.root / "bags" / kind
            config = BagsConfig(data=self.train, out=out, features=features, kind=kind, runtime=self.runtime)
            stages.append(Stage(f"bags {kind}", "bags", config))
        return tuple(stages)

    def student(self, arm: str, seed: int) -> tuple[Stage, Stage]:
        """Training and evaluation of one student."""
        out = self.root / "students" / f"{arm.replace(' ', '-')}-{seed}"
        if arm == "no teacher":
            # With MoCo's own batch norm: in a training this short it is the stronger rival (docs/fidelity.md).
            config = replace(self.contrastive(out, DIGITS_STUDENT, 2 * self.epochs, seed), key_bn="shuffle")
            training = Stage(f"pretrain {arm} {seed}", "pretrain", config)
        else:
            training = Stage(f"distill {arm} {seed}", "distill", self.distillation(out, arm, seed))
        return training, Stage(f"eval {arm} {seed}", "eval", self.evaluation(out))

    def evaluation(self, run: Path) -> EvalConfig:
        """Of a student, or of the teacher beside them."""
        return EvalConfig(
            run=run,
            train=self.train,
            val=self.val,
            out=self.root / "eval" / run.name,
            solver="lbfgs",
            augment=self.augment,
            runtime=self.runtime,
        )

    def distillation(self, out: Path, bags: str, seed: int) -> DistillConfig:
        return DistillConfig(
            data=self.train,
            out=out,
            teacher=self.root / "teacher",
            bags=self.root / "bags" / bags,
            student=DIGITS_STUDENT,
            objective="paper",
            contrast=self.contrast,
            augment=self.augment,
            optim=replace(self.optim, epochs=self.epochs),
            runtime=self.runtime,
            monitor=Monitor(val=self.val, every=max(1, self.epochs // 6)),
            seed=seed,
        )


@dataclass(frozen=True)
class Card:
    """A row of the paper's ImageNet table: what is unlike ResNet-18, and what the paper reports for it."""

    student: str
    reported: str
    """Linear top-1 in per cent, by teacher."""
    temperature: float = 0.2
    weight_decay: float = 1e-4
    linear_lr: float | None = None
    """Of the linear evaluation, and where its cosine ends; None: the protocol's."""
    linear_min_lr: float | None = None


CARDS = {
    "resnet18-r50": Card("resnet18", "64.0 from the MoCo-v2 file of 800 epochs, 61.4 from that of 200"),
    "resnet34-r50": Card("resnet34", "66.1 from the MoCo-v2 file of 800 epochs, 63.5 from that of 200"),
    "resnet18-r152": Card("resnet18", "65.9 from a MoCo-v2 ResNet-152 of 800 epochs"),
    "resnet34-r152": Card("resnet34", "69.1 from a MoCo-v2 ResNet-152 of 800 epochs"),
    "resnet18-r50x2": Card("resnet18", "65.5 from SwAV's ResNet-50x2 of 400 epochs"),
    "resnet34-r50x2": Card("resnet34", "68.9 from SwAV's ResNet-50x2 of 400 epochs"),
    "resnet50-r50x2": Card("resnet50", "no number known for it; SEED has 74.3 from SwAV's ResNet-50x4"),
    "efficientnet-b0-r50x2": Card(
        "bingo_efficientnet_b0",
        "69.3 from SwAV's ResNet-50x2 of 400 epochs",
        temperature=0.12,
        weight_decay=4e-5,
        linear_lr=3.0,
        linear_min_lr=0.001,
    ),
    "mobilenetv3-r50x2": Card(
        "mobilenet_v3_large", "67.1 from SwAV's ResNet-50x2 of 400 epochs", temperature=0.12, weight_decay=4e-5
    ),
}
"""Recipe -> its card. The teacher's file is the user's: a recipe from R-50 gives what that file can give."""


def distillation(card: Card, data: Path, out: Path, teacher: Path, bags: Path) -> DistillConfig:
    """ImageNet as the paper distils: 200 epochs, batch 256, a queue of 65 536 keys of 128 channels; in bf16 here."""
    return DistillConfig(
        data=data,
        out=out,
        teacher=teacher,
        bags=bags,
        student=card.student,
        cutmix_block=32,
        contrast=Contrast(queue_dtype="bf16", temperature=card.temperature),
        optim=Optimiser(weight_decay=card.weight_decay),
        runtime=Runtime(precision="bf16"),
    )


resnet18_r50 = partial(distillation, CARDS["resnet18-r50"])


def imagenet(
    card: Card,
    root: Path,
    *,
    images: Path,
    teacher: Path,
    epochs: int | None = None,
    device: Device = "auto",
) -> Recipe:
    """ImageNet from its images to an exported student, by a row of the paper's table.

    images: folder with `train` and `val`, each a folder of class folders or of tar files, or `train.tar` and `val.tar`.
    teacher: a run folder, a model.pt or a checkpoint. epochs: in place of the paper's 200. Files that ImageNet
    is known for (a PNG named .JPEG, CMYK) are converted while packing. Raises `UserError` without train or val.
    """
    train, val, features, bags, student, scores = (
        root / name for name in ("train", "val", "features", "bags", "student", "eval")
    )
    config = distillation(card, train, student, teacher, bags)
    runtime = replace(config.runtime, device=device)
    config = replace(config, runtime=runtime, optim=replace(config.optim, epochs=epochs or config.optim.epochs))
    seen = seen_as_recorded(teacher, config.augment)
    config = replace(config, augment=seen)
    exact = replace(runtime, precision="fp32")
    packs = [
        Group(f"pack {out.name}", (Stage(f"pack {out.name}", "pack", PackConfig(split(images, out.name), out, True)),))
        for out in (train, val)
    ]
    judge = EvalConfig(
        student,
        train,
        val,
        scores,
        kinds=("linear", "knn"),
        protocol="release",
        linear_lr=card.linear_lr,
        linear_min_lr=card.linear_min_lr,
        augment=seen,
        runtime=exact,
    )
    stages = (
        Stage("features", "features", FeaturesConfig(train, teacher, features, augment=seen, runtime=exact)),
        Stage("bags", "bags", BagsConfig(data=train, out=bags, features=features, runtime=exact)),
        Stage("distill", "distill", config),
        Stage("eval", "eval", judge),
    )
    trained = [Group(stage.name, (stage,), parallel=True) for stage in stages]
    export = Stage("export", "export", ExportConfig(model=student, out=root / "export", classifier=scores))
    return Recipe((*packs, *trained, Group("export", (export,))), {})


def seen_as_recorded(teacher: Path, usual: Augmentation) -> Augmentation:
    """The usual views, of the size, mean and deviation that the teacher's own folder records.

    Of checkpoints of others nothing is read here: whoever submits needs no torch.
    """
    own = augmentation_of(teacher) if teacher.is_dir() or recorded(teacher) else None
    return replace(usual, size=own.size, mean=own.mean, std=own.std) if own else usual


def split(images: Path, name: str) -> Path:
    """The folder or the tar file of a split; `UserError` if there is neither."""
    for source in (images / name, images / f"{name}.tar"):
        if source.exists():
            return source
    raise UserError(
        f"--images {images} has neither a folder {name} nor a file {name}.tar; name a folder with both splits"
    )


DISTILL: dict[str, Callable[..., DistillConfig]] = {name: partial(distillation, card) for name, card in CARDS.items()}
CHAINS: dict[str, Callable[..., Recipe]] = {
    "digits": digits,
    **{name: partial(imagenet, card) for name, card in CARDS.items()},
}


def build(name: str, root: Path, settings: Mapping[str, Any]) -> Recipe:
    """The chain `name` below `root`; settings that are None keep the recipe's own value.

    Raises `UserError` for an unknown name and for a setting that the recipe does not have, or needs.
    """
    if name not in CHAINS:
        raise UserError(f"recipe {name!r} is unknown; {did_you_mean(name, CHAINS)}")
    parameters = dict(list(inspect.signature(CHAINS[name]).parameters.items())[1:])
    given = {key: value for key, value in settings.items() if value is not None}
    takes = ", ".join(f"--{key}" for key in parameters)
    for key in given:
        if key not in parameters:
            raise UserError(f"--{key} is no setting of the recipe {name}; it takes {takes}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in given:
            raise UserError(f"the recipe {name} needs --{key}; it takes {takes}")
    for key, most in (("seeds", 1000), ("epochs", 10**8)):
        if not 1 <= given.get(key, 1) <= most:
            raise UserError(f"--{key} {brief(given[key])} is not allowed: it must be between 1 and {most}")
    return CHAINS[name](root, **given)
