"""The chains of cards: ImageNet from its images to an exported student."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from bingo.config import BagsConfig, DistillConfig, FeaturesConfig, PackConfig
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Contrast, Device, Optimiser, Runtime
from bingo.errors import UserError
from bingo.inputs import augmentation_of, recorded
from bingo.recipes.cards import CARDS, Card
from bingo.recipes.chain import Group, Recipe
from bingo.stages import Stage


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
