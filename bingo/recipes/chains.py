"""The chains of cards: ImageNet from its images to an exported student."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bingo.config import (
    BagsConfig,
    DistillConfig,
    FeaturesConfig,
    KeysConfig,
    PackConfig,
    PretrainConfig,
    TeacherConfig,
)
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_flags import build, defaults, values_of
from bingo.config_parts import Augmentation, Device, Runtime
from bingo.errors import UserError
from bingo.inputs import augmentation_of, recorded
from bingo.recipes.cards import CARDS, Card
from bingo.recipes.chain import Group, Recipe
from bingo.stages import Stage

C = TypeVar("C", DistillConfig, PretrainConfig)
TRAINED = {"contrast.queue_dtype": "bf16", "runtime.precision": "bf16"}
"""Of every card: what fits a GPU, where the published code has fp32."""
KEY_DIM = 256
"""Channels of a head of principal components: the most that the kernels take."""


def distillation(
    card: Card, data: Path, out: Path, teacher: Path | None, bags: Path | None, *, keys: Path | None = None
) -> DistillConfig:
    """ImageNet as published: 200 epochs, batch 256, a queue of 65 536 keys of 128 channels; in bf16 here."""
    values: dict[str, Any] = {**defaults(DistillConfig), **TRAINED, "student": card.student}
    places = {"data": data, "out": out, "teacher": teacher, "keys": keys, "bags": bags}
    return build(DistillConfig, values | dict(card.settings) | places)


def baseline(card: Card, data: Path, out: Path) -> PretrainConfig:
    """The student alone, by MoCo-v2."""
    values = {**defaults(PretrainConfig), **TRAINED, "model": card.student}
    return build(PretrainConfig, values | dict(card.settings) | {"data": data, "out": out})


resnet18_r50 = partial(distillation, CARDS["resnet18-r50"])


def from_teacher(
    card: Card,
    root: Path,
    *,
    images: Path,
    teacher: Path,
    epochs: int | None = None,
    device: Device = "auto",
) -> Recipe:
    """ImageNet from its images to an exported student, by a card with a teacher.

    images: folder with `train` and `val`, each a folder of class folders or of tar files, or `train.tar` and `val.tar`.
    teacher: a run folder, a model.pt or a checkpoint. epochs: in place of the card's. Files that ImageNet
    is known for (a PNG named .JPEG, CMYK) are converted while packing. Raises `UserError` without train or val.
    """
    train, features, made, keys = (root / name for name in ("train", "features", "teacher", "keys"))
    bags = root / "bags" if card.bags else None
    giver = teacher if card.head == "own" else made
    source = {"keys": keys} if card.key_views else {}
    config = distillation(card, train, root / "student", None if source else giver, bags, **source)
    config = _here(config, epochs, device)
    config = replace(config, augment=seen_as_recorded(teacher, config.augment))
    seen, exact = _judged(config.augment), replace(config.runtime, precision="fp32")
    stages = []
    if card.bags or card.head == "pca":
        look = FeaturesConfig(train, teacher, features, augment=seen, runtime=exact)
        stages.append(Stage("features", "features", look))
    if bags:
        stages.append(Stage("bags", "bags", BagsConfig(data=train, out=bags, features=features, runtime=exact)))
    if card.head != "own":
        pca = card.head == "pca"
        head = TeacherConfig(teacher, made, card.head, features if pca else None, KEY_DIM, augment=seen)
        stages.append(Stage("teacher", "teacher", head))
    if card.key_views:
        cache = KeysConfig(train, giver, keys, card.key_views, augment=config.augment, runtime=config.runtime)
        stages.append(Stage("keys", "keys", cache))
    return _chain(card, root, images, [*stages, Stage("distill", "distill", config)], seen, exact)


def alone(card: Card, root: Path, *, images: Path, epochs: int | None = None, device: Device = "auto") -> Recipe:
    """ImageNet from its images to an exported student without a teacher; images, epochs: as for `from_teacher`."""
    config = _here(baseline(card, root / "train", root / "student"), epochs, device)
    exact = replace(config.runtime, precision="fp32")
    return _chain(card, root, images, [Stage("pretrain", "pretrain", config)], _judged(config.augment), exact)


def _here(config: C, epochs: int | None, device: Device) -> C:
    optim = replace(config.optim, epochs=epochs or config.optim.epochs)
    return replace(config, optim=optim, runtime=replace(config.runtime, device=device))


def _judged(augment: Augmentation) -> Augmentation:
    """How images are seen where none is changed: the rest is as usual, and of no account."""
    return Augmentation(size=augment.size, mean=augment.mean, std=augment.std)


def _chain(card: Card, root: Path, images: Path, trained: list[Stage], seen: Augmentation, exact: Runtime) -> Recipe:
    """The images packed, the stages that train, and what becomes of the student."""
    train, val, student, scores = (root / name for name in ("train", "val", "student", "eval"))
    packs = [
        Group(f"pack {out.name}", (Stage(f"pack {out.name}", "pack", PackConfig(split(images, out.name), out, True)),))
        for out in (train, val)
    ]
    few = card.labels is not None
    usual: Mapping[str, Any] = (
        {"kinds": ("finetune",), "finetune.fraction": card.labels}
        if few
        else {"kinds": ("linear", "knn"), "protocol": "release"}
    )
    scores = root / f"finetune-{card.labels:g}" if few else scores
    places = {"run": student, "train": train, "val": val, "out": scores}
    how = values_of_group("augment", seen) | values_of_group("runtime", exact)
    judge = build(EvalConfig, defaults(EvalConfig) | how | dict(usual) | dict(card.judge) | places)
    groups = [Group(s.name, (s,), parallel=s.kind != "teacher") for s in (*trained, Stage("eval", "eval", judge))]
    if few:  # what is exported is the student of the linear evaluation
        return Recipe((*packs, *groups), {})
    classifier = None if judge.linear.standardise else scores  # no layer of a network acts on features of unit length
    export = Stage("export", "export", ExportConfig(model=student, out=root / "export", classifier=classifier))
    return Recipe((*packs, *groups, Group("export", (export,))), {})


def values_of_group(name: str, config: Any) -> dict[str, Any]:
    """The settings of a shared group by dotted name."""
    return {f"{name}.{key}": value for key, value in values_of(config).items()}


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
