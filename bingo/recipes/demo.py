"""The recipe `digits`: the whole suite on two cores, in minutes; and the stages that every such demo has."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bingo.config import (
    BagKind,
    BagsConfig,
    DemoDataConfig,
    DistillConfig,
    FeaturesConfig,
    KeysConfig,
    PackConfig,
    PretrainConfig,
)
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Contrast, Device, Monitor, Optimiser, Runtime
from bingo.recipes.chain import Group, Recipe
from bingo.stages import Stage

BAGS: tuple[BagKind, ...] = ("random", "knn", "label")
ARMS = ("no teacher", *BAGS)


def digits(root: Path, *, seeds: int = 5, epochs: int = 30, device: Device = "auto") -> Recipe:
    """Handwritten digits, a student of 1.6 k parameters: every stage, four arms, minutes on two cores.

    bingo run digits

    All arms get the same number of student passes: the paper objective makes two per image, so the undistilled student
    trains twice the epochs; batch, learning rate and schedule are the same for all. Digits are not mirrored or
    recoloured (a mirrored digit is another symbol), and are cut to 8 pixels: there the student's convolutions see a
    whole digit. What these choices were tried against is in docs/results.md.
    """
    return compared(digits_demo(root, epochs, device), seeds)


def digits_demo(root: Path, epochs: int, device: Device) -> "Demo":
    """The pieces of `digits`."""
    return Demo(
        root=root,
        epochs=epochs,
        images=DemoDataConfig(out=root / "images"),
        teacher="tiny-24",
        teacher_epochs=5 * epochs,
        student="tiny",
        # One thread, whatever the machine: rounding depends on their number, and nets this small gain nothing.
        runtime=Runtime(device=device, checkpoint_every=500, threads=1),
        augment=Augmentation(size=8, scale=(0.4, 1.0), hue=0.0, grey_p=0.0, blur_sigma=(0.1, 1.0), flip_p=0.0),
        contrast=Contrast(dim=32, hidden=64, queue=256),
        optim=Optimiser(batch=64, lr=0.06, schedule="step"),
    )


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The pieces of a demo below `root`, on shared settings; `epochs` are those of a distilled student."""

    root: Path
    epochs: int
    images: DemoDataConfig
    teacher: str
    """Network of the teacher."""
    teacher_epochs: int
    student: str
    """Network of every student."""
    runtime: Runtime
    augment: Augmentation
    contrast: Contrast
    optim: Optimiser
    shots: int = 2
    """Labels per class of the few-label evaluation."""
    key_views: int = 0
    """Cached keys of each image; 0: the teacher runs beside every student."""

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def val(self) -> Path:
        return self.root / "val"

    @property
    def giver(self) -> Path:
        """The teacher's folder."""
        return self.root / "teacher"

    def prepare(self) -> tuple[Stage, ...]:
        images = self.images.out
        return (
            Stage("demo-data", "demo-data", self.images),
            Stage("pack train", "pack", PackConfig(source=images / "train", out=self.train)),
            Stage("pack val", "pack", PackConfig(source=images / "val", out=self.val)),
        )

    def teaching(self) -> tuple[Stage, ...]:
        """The teacher, and what it is asked once."""
        teacher = self.contrastive(self.giver, self.teacher, self.teacher_epochs, seed=100)
        views: dict[str, Any] = {"data": self.train, "augment": self.augment, "runtime": self.runtime}
        stages = [
            Stage("teacher", "pretrain", teacher),
            Stage("features", "features", FeaturesConfig(model=teacher.out, out=self.root / "features", **views)),
        ]
        if self.key_views:
            keys = KeysConfig(teacher=teacher.out, out=self.root / "keys", views=self.key_views, **views)
            stages.append(Stage("keys", "keys", keys))
        return (*stages, Stage("eval teacher", "eval", self.evaluation(teacher.out)))

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

    def bags(self, kinds: tuple[BagKind, ...] = BAGS) -> tuple[Stage, ...]:
        stages = []
        for kind in kinds:
            features = self.root / "features" if kind == "knn" else None
            out = self.root / "bags" / kind
            config = BagsConfig(data=self.train, out=out, features=features, kind=kind, runtime=self.runtime)
            stages.append(Stage(f"bags {kind}", "bags", config))
        return tuple(stages)

    def trained(self, arm: str, seed: int) -> tuple[Stage, Stage]:
        """Training and evaluation of one student."""
        out = self.root / "students" / f"{arm.replace(' ', '-')}-{seed}"
        if arm == "no teacher":
            # With MoCo's own batch norm: in a training this short it is the stronger rival (docs/fidelity.md).
            config = replace(self.contrastive(out, self.student, 2 * self.epochs, seed), key_bn="shuffle")
            training = Stage(f"pretrain {arm} {seed}", "pretrain", config)
        else:
            training = Stage(f"distill {arm} {seed}", "distill", self.distillation(out, arm, seed))
        return training, Stage(f"eval {arm} {seed}", "eval", self.evaluation(out))

    def distillation(self, out: Path, bags: str, seed: int) -> DistillConfig:
        return DistillConfig(
            data=self.train,
            out=out,
            teacher=None if self.key_views else self.giver,
            keys=self.root / "keys" if self.key_views else None,
            bags=self.root / "bags" / bags,
            student=self.student,
            objective="paper",
            contrast=self.contrast,
            augment=self.augment,
            optim=replace(self.optim, epochs=self.epochs),
            runtime=self.runtime,
            monitor=Monitor(val=self.val, every=max(1, self.epochs // 6)),
            seed=seed,
        )

    def evaluation(self, run: Path) -> EvalConfig:
        """Of a student, or of the teacher beside them."""
        return EvalConfig(
            run=run,
            train=self.train,
            val=self.val,
            out=self.root / "eval" / run.name,
            shots=self.shots,
            solver="lbfgs",
            augment=self.augment,
            runtime=self.runtime,
        )

    def export(self) -> Stage:
        """The first student of kNN bags, with the classifier that was fitted on it."""
        student = self.root / "students" / "knn-0"
        config = ExportConfig(model=student, out=self.root / "export", classifier=self.root / "eval" / student.name)
        return Stage("export", "export", config)


def compared(demo: Demo, seeds: int) -> Recipe:
    """A demo's stages as a chain, and its arms."""
    jobs = [
        Group("prepare", demo.prepare()),
        Group("teacher", demo.teaching(), parallel=True),
        Group("bags", demo.bags()),
    ]
    for seed in range(seeds):  # one job per seed: stages of one job share the seconds that starting torch takes
        students = tuple(stage for arm in ARMS for stage in demo.trained(arm, seed))
        jobs.append(Group(f"seed {seed}", students, parallel=True))
    jobs.append(Group("export", (demo.export(),)))
    arms = {arm: tuple(f"eval {arm} {seed}" for seed in range(seeds)) for arm in ARMS}
    return Recipe(tuple(jobs), arms)
