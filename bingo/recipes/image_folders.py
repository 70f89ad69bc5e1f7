"""The pieces of a leaderboard on folders of images, ImageNet among them, with a teacher that is there already."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bingo.arguments import Parser
from bingo.config import (
    BagKind,
    BagsConfig,
    DistillConfig,
    FeaturesConfig,
    KeysConfig,
    PackConfig,
    PretrainConfig,
    TeacherConfig,
)
from bingo.config_evaluation import EvalConfig
from bingo.config_flags import add_setting, build, defaults, settings, values_of
from bingo.config_parts import Device, Runtime
from bingo.inputs import kind_of
from bingo.recipes.chains import seen_as_recorded, split
from bingo.recipes.glance import glance
from bingo.stages import Stage

OF_ARMS = {
    *("data", "out", "teacher", "keys", "bags", "objective", "seed", "optim.epochs", "monitor.val", "monitor.every"),
    *("runtime.device", "cached_negatives", "teacher_bn", "loader.fancy_upsampling"),
    # What an objective has as published, or what makes passes that others do not.
    *("contrast.temperature", "teacher_temperature", "key_view", "warm_epochs", "cutmix", "cutmix_block"),
    *("local_crops", "local_size", "local_scale"),
}
"""Settings of `bingo distill` that the leaderboard answers itself."""


def student_flags() -> Parser:
    """The parser of the words after `--`."""
    about = "Settings of `bingo distill` that all students of a leaderboard share."
    parser = Parser("bingo distill", about, "bingo leaderboard photos --teacher runs/teacher -- --student resnet34")
    for setting in settings(DistillConfig):
        if setting.name not in OF_ARMS:
            add_setting(parser, setting)
    return parser


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """A leaderboard's pieces below `root`; `epochs` are passes of an image through each student.

    images: folder with `train` and `val`, packed or not, or `train.tar` and `val.tar`; teacher: a network; flags: of
    `student_flags`. A model of this project makes keys as it is. Another network gets a head: as many principal
    components of its features as `--contrast.dim` says.
    """

    root: Path
    images: Path
    teacher: Path
    epochs: int
    key_views: int
    device: Device
    flags: Sequence[str] = ()

    @cached_property
    def usual(self) -> DistillConfig:
        """What all students share. `UserError` for a wrong flag."""
        given = vars(student_flags().parse_args(list(self.flags)))
        values: dict[str, Any] = {**defaults(DistillConfig), "runtime.device": self.device}
        if isinstance(dim := self._entries.get("dim"), int):
            values["contrast.dim"] = dim
        places = {"data": self._packed("train"), "out": self.root, "keys": self.root / "keys"}
        watched = {"monitor.val": self._packed("val"), "monitor.every": max(1, self.epochs // 6)}
        values |= {**places, **watched, "objective": "seed", **given}
        config = build(DistillConfig, values)
        seen = values_of(seen_as_recorded(self.teacher, config.augment))
        return build(DistillConfig, values | {f"augment.{name}": value for name, value in seen.items()} | given)

    @cached_property
    def _entries(self) -> dict[str, Any]:
        """What a model of this project says of itself; nothing of any other."""
        found = glance(self.teacher)
        return dict(found.entries) if found is not None and found.own else {}

    @property
    def giver(self) -> Path:
        """What makes the keys."""
        return self.teacher if self._entries else self.root / "teacher"

    @property
    def student(self) -> str:
        """Network of every student."""
        return self.usual.student

    @property
    def _exact(self) -> Runtime:
        """Of what trains no student."""
        return replace(self.usual.runtime, precision="fp32")

    def _packed(self, split: str) -> Path:
        """Where the packed images of a split are, or will be."""
        given = self.images / split
        return given if kind_of(given) == "pack" else self.root / split

    def prepare(self) -> tuple[Stage, ...]:
        """The images, packed, where they are not yet."""
        outs = {name: out for name in ("train", "val") if (out := self._packed(name)) == self.root / name}
        return tuple(
            Stage(f"pack {name}", "pack", PackConfig(split(self.images, name), out, True)) for name, out in outs.items()
        )

    def teaching(self) -> tuple[Stage, ...]:
        """What the teacher is asked once."""
        usual, features, keys = self.usual, self.root / "features", self.root / "keys"
        arch, seen = usual.arch, usual.augment
        look = FeaturesConfig(usual.data, self.teacher, features, augment=seen, runtime=self._exact, arch=arch)
        stages = [Stage("features", "features", look)]
        if self.giver != self.teacher:
            head = TeacherConfig(self.teacher, self.giver, "pca", features, usual.contrast.dim, augment=seen, arch=arch)
            stages.append(Stage("teacher", "teacher", head))
        cache = KeysConfig(usual.data, self.giver, keys, self.key_views, augment=seen, runtime=usual.runtime)
        return (*stages, Stage("keys", "keys", cache))

    def bags(self, kinds: tuple[BagKind, ...]) -> tuple[Stage, ...]:
        """Bags of the teacher's features."""
        return tuple(
            Stage(
                f"bags {kind}",
                "bags",
                BagsConfig(self.usual.data, self._bags(kind), self.root / "features", kind, runtime=self._exact),
            )
            for kind in kinds
        )

    def _bags(self, kind: str) -> Path:
        return self.root / "bags" / kind

    def contrastive(self, out: Path, model: str, epochs: int, seed: int) -> PretrainConfig:
        """The student without a teacher: the settings that it has in common with the others."""
        shared = values_of(self.usual)
        values = {name: shared.get(name, usual) for name, usual in defaults(PretrainConfig).items()}
        return build(PretrainConfig, values | {"out": out, "model": model, "optim.epochs": epochs, "seed": seed})

    def distillation(self, out: Path, bags: str, seed: int) -> DistillConfig:
        """A student with all that the others have too."""
        return replace(self.usual, out=out, bags=self._bags(bags), seed=seed)

    def evaluation(self, run: Path) -> EvalConfig:
        """Of a student: few labels, kNN and a linear classifier on features."""
        data, val, out = self.usual.data, self._packed("val"), self.root / "eval" / run.name
        return EvalConfig(run=run, train=data, val=val, out=out, augment=self.usual.augment, runtime=self._exact)
