"""The recipe `digits`: the whole suite on two cores, in minutes."""

from dataclasses import dataclass, replace
from pathlib import Path

from bingo.config import BagKind, BagsConfig, DemoDataConfig, DistillConfig, FeaturesConfig, PackConfig, PretrainConfig
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Contrast, Device, Monitor, Optimiser, Runtime
from bingo.recipes.chain import Group, Recipe
from bingo.stages import Stage

DIGITS_BAGS: tuple[BagKind, ...] = ("random", "knn", "label")
DIGITS_ARMS = ("no teacher", *DIGITS_BAGS)
DIGITS_STUDENT = "tiny"


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
