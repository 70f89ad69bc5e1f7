"""Recipes: functions that return settings. `digits` is the whole suite on two cores; the others are the paper's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bingo.config import (
    Augmentation,
    BagsConfig,
    Contrast,
    DemoDataConfig,
    DistillConfig,
    EvalConfig,
    ExportConfig,
    FeaturesConfig,
    Monitor,
    Optimiser,
    PackConfig,
    PretrainConfig,
    Runtime,
)
from bingo.stages import Stage

DIGITS_ARMS = ("random", "knn", "label")


@dataclass(frozen=True)
class Recipe:
    """Stages grouped into jobs, with the ranks of each."""

    root: Path
    jobs: tuple[tuple[tuple[Stage, ...], int], ...]
    arms: dict[str, tuple[str, ...]]
    """Arm of the comparison -> names of its evaluation stages, one per seed."""


def digits(root: Path, *, seeds: int = 3, ranks: int = 2, epochs: int = 60, device: str = "auto") -> Recipe:
    """Handwritten digits, 900-parameter student: every stage, four arms, minutes on two cores.

    bingo run digits        about 12 minutes on 2 cores

    All arms get the same number of student passes: the paper objective makes two per image, so the undistilled student
    trains twice the epochs. Digits are not mirrored or recoloured: a mirrored digit is another symbol.
    """
    augment = Augmentation(size=8, scale=(0.4, 1.0), hue=0.0, grey_p=0.0, blur_sigma=(0.1, 1.0), flip_p=0.0)
    contrast = Contrast(dim=32, hidden=64, queue=256)
    runtime = Runtime(device=device, checkpoint_every=500)  # type: ignore[arg-type]
    optim = Optimiser(epochs=epochs, batch=64, lr=0.06, schedule="step")
    train, val = root / "train", root / "val"
    monitor = Monitor(val=val, every=10)
    teacher = PretrainConfig(
        data=train,
        out=root / "teacher",
        model="tiny-24",
        key_momentum=0.99,
        contrast=contrast,
        augment=augment,
        optim=replace(optim, epochs=150),
        runtime=runtime,
        monitor=replace(monitor, every=30),
        seed=100,
    )
    features = FeaturesConfig(data=train, model=teacher.out, out=root / "features", augment=augment, runtime=runtime)
    prepare = (
        Stage("demo-data", "demo-data", DemoDataConfig(out=root / "images")),
        Stage("pack train", "pack", PackConfig(source=root / "images" / "train", out=train)),
        Stage("pack val", "pack", PackConfig(source=root / "images" / "val", out=val)),
    )
    teach = (Stage("teacher", "pretrain", teacher), Stage("features", "features", features))
    bags = tuple(
        Stage(
            f"bags {kind}",
            "bags",
            BagsConfig(
                data=train, out=root / "bags" / kind, features=features.out if kind == "knn" else None, kind=kind, k=5
            ),
        )  # type: ignore[arg-type]
        for kind in DIGITS_ARMS
    )
    base = DistillConfig(
        data=train,
        out=root,
        teacher=teacher.out,
        bags=root,
        student="tiny-3",
        objective="paper",
        contrast=contrast,
        augment=augment,
        optim=optim,
        runtime=runtime,
        monitor=monitor,
    )
    jobs: list[tuple[tuple[Stage, ...], int]] = [(prepare, 1), (teach, ranks), (bags, 1)]
    arms: dict[str, list[str]] = {arm: [] for arm in ("no teacher", *DIGITS_ARMS)}
    for seed in range(seeds):
        stages: list[Stage] = []
        for arm in arms:
            out = root / "students" / f"{arm.replace(' ', '-')}-{seed}"
            train_stage: Stage
            if arm == "no teacher":
                config = PretrainConfig(
                    data=train,
                    out=out,
                    model="tiny-3",
                    key_momentum=0.99,
                    contrast=contrast,
                    augment=augment,
                    optim=replace(optim, epochs=2 * epochs),
                    runtime=runtime,
                    monitor=replace(monitor, every=20),
                    seed=seed,
                )
                train_stage = Stage(f"pretrain {arm} {seed}", "pretrain", config)
            else:
                train_stage = Stage(
                    f"distill {arm} {seed}", "distill", replace(base, out=out, bags=root / "bags" / arm, seed=seed)
                )
            evaluation = EvalConfig(
                run=out,
                train=train,
                val=val,
                out=root / "eval" / out.name,
                solver="lbfgs",
                augment=augment,
                runtime=runtime,
            )
            stages += [train_stage, Stage(f"eval {arm} {seed}", "eval", evaluation)]
            arms[arm].append(f"eval {arm} {seed}")
        jobs.append((tuple(stages), ranks))
    best = root / "students" / "knn-0"
    export = ExportConfig(model=best, out=root / "export", classifier=root / "eval" / "knn-0")
    jobs.append(((Stage("export", "export", export),), 1))
    return Recipe(root, tuple(jobs), {arm: tuple(names) for arm, names in arms.items()})


def resnet18_r50(data: Path, out: Path, teacher: Path, bags: Path) -> DistillConfig:
    """ResNet-18 from a MoCo-v2 ResNet-50 on ImageNet: 200 epochs, batch 256; the paper reports 64.0 % linear top-1."""
    return DistillConfig(
        data=data, out=out, teacher=teacher, bags=bags, student="resnet18", runtime=Runtime(precision="bf16")
    )


def resnet34_r50(data: Path, out: Path, teacher: Path, bags: Path) -> DistillConfig:
    """ResNet-34 from a MoCo-v2 ResNet-50 on ImageNet: 200 epochs, batch 256; the paper reports 66.1 % linear top-1."""
    return replace(resnet18_r50(data, out, teacher, bags), student="resnet34")


CHAINS: dict[str, Callable[..., Recipe]] = {"digits": digits}
