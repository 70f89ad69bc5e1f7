"""Recipes: functions that return settings. `digits` is the whole suite on two cores; the others are the paper's."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bingo.config import (
    BagKind,
    BagsConfig,
    DemoDataConfig,
    DistillConfig,
    EvalConfig,
    ExportConfig,
    FeaturesConfig,
    PackConfig,
    PretrainConfig,
)
from bingo.config_parts import Augmentation, Contrast, Device, Monitor, Optimiser, Runtime
from bingo.errors import UserError, brief, did_you_mean
from bingo.stages import Stage

DIGITS_BAGS: tuple[BagKind, ...] = ("random", "knn", "label")
DIGITS_ARMS = ("no teacher", *DIGITS_BAGS)
DIGITS_STUDENT = "tiny"


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
    train = (Stage("teacher", "pretrain", teacher), Stage("features", "features", d.features(teacher.out)))
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
            config = self.contrastive(out, DIGITS_STUDENT, 2 * self.epochs, seed)
            training = Stage(f"pretrain {arm} {seed}", "pretrain", config)
        else:
            training = Stage(f"distill {arm} {seed}", "distill", self.distillation(out, arm, seed))
        evaluation = EvalConfig(
            run=out,
            train=self.train,
            val=self.val,
            out=self.root / "eval" / out.name,
            solver="lbfgs",
            augment=self.augment,
            runtime=self.runtime,
        )
        return training, Stage(f"eval {arm} {seed}", "eval", evaluation)

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


def resnet18_r50(data: Path, out: Path, teacher: Path, bags: Path) -> DistillConfig:
    """ResNet-18 from a MoCo-v2 ResNet-50 on ImageNet: 200 epochs, batch 256; the paper reports 64.0 % linear top-1."""
    return DistillConfig(
        data=data,
        out=out,
        teacher=teacher,
        bags=bags,
        student="resnet18",
        contrast=Contrast(queue_dtype="bf16"),
        runtime=Runtime(precision="bf16"),
    )


def resnet34_r50(data: Path, out: Path, teacher: Path, bags: Path) -> DistillConfig:
    """ResNet-34 from a MoCo-v2 ResNet-50 on ImageNet: 200 epochs, batch 256; the paper reports 66.1 % linear top-1."""
    return replace(resnet18_r50(data, out, teacher, bags), student="resnet34")


def imagenet(
    distillation: Callable[..., DistillConfig],
    root: Path,
    *,
    images: Path,
    teacher: Path,
    epochs: int | None = None,
    device: Device = "auto",
) -> Recipe:
    """ImageNet from its images to an exported student, in the settings of `distillation`.

    images: folder with `train` and `val`, each a folder of class folders or of tar files, or `train.tar` and `val.tar`.
    teacher: a run folder, a model.pt or a MoCo-v2 checkpoint. epochs: in place of the paper's 200. Files that ImageNet
    is known for (a PNG named .JPEG, CMYK) are converted while packing. Raises `UserError` without train or val.
    """
    train, val, features, bags, student, scores = (
        root / name for name in ("train", "val", "features", "bags", "student", "eval")
    )
    config = distillation(train, student, teacher, bags)
    runtime = replace(config.runtime, device=device)
    config = replace(config, runtime=runtime, optim=replace(config.optim, epochs=epochs or config.optim.epochs))
    exact = replace(runtime, precision="fp32")
    packs = [
        Group(f"pack {out.name}", (Stage(f"pack {out.name}", "pack", PackConfig(split(images, out.name), out, True)),))
        for out in (train, val)
    ]
    stages = (
        Stage("features", "features", FeaturesConfig(data=train, model=teacher, out=features, runtime=exact)),
        Stage("bags", "bags", BagsConfig(data=train, out=bags, features=features, runtime=exact)),
        Stage("distill", "distill", config),
        Stage("eval", "eval", EvalConfig(student, train, val, scores, kinds=("linear", "knn"), runtime=exact)),
    )
    trained = [Group(stage.name, (stage,), parallel=True) for stage in stages]
    export = Stage("export", "export", ExportConfig(model=student, out=root / "export", classifier=scores))
    return Recipe((*packs, *trained, Group("export", (export,))), {})


def split(images: Path, name: str) -> Path:
    """The folder or the tar file of a split; `UserError` if there is neither."""
    for source in (images / name, images / f"{name}.tar"):
        if source.exists():
            return source
    raise UserError(
        f"--images {images} has neither a folder {name} nor a file {name}.tar; name a folder with both splits"
    )


DISTILL: dict[str, Callable[..., DistillConfig]] = {"resnet18-r50": resnet18_r50, "resnet34-r50": resnet34_r50}
CHAINS: dict[str, Callable[..., Recipe]] = {
    "digits": digits,
    **{name: partial(imagenet, distillation) for name, distillation in DISTILL.items()},
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
