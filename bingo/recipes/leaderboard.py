"""The recipes of `bingo leaderboard`: every objective under one trainer, teacher, head and probe, at equal cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from bingo.config import BagKind, DistillConfig, PretrainConfig
from bingo.config_evaluation import EvalConfig
from bingo.config_parts import Device
from bingo.errors import UserError, did_you_mean
from bingo.objectives import OBJECTIVES
from bingo.recipes.chain import Group, Recipe
from bingo.recipes.demo import digits_demo
from bingo.recipes.fashion import fashion_demo
from bingo.recipes.image_folders import ImageFolders
from bingo.stages import Stage

Match = Literal["passes", "compute"]
UNDISTILLED = "no teacher"
EQUAL = 0.02
"""Costs of arms that differ by this share count as equal."""
KEY_VIEWS = 8
"""Cached keys of each image."""


@dataclass(frozen=True)
class Arm:
    """One row of a leaderboard: an objective ("" for the undistilled student), and what is unlike the usual settings.

    changes: settings of `DistillConfig`; contrast, optim: of its groups of these names.
    """

    objective: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    contrast: Mapping[str, Any] = field(default_factory=dict)
    optim: Mapping[str, Any] = field(default_factory=dict)
    live: bool = False
    """Whether the teacher runs beside the student, in place of cached keys."""

    @property
    def passes(self) -> int:
        """Of an image through the student in an epoch."""
        return OBJECTIVES[self.objective].passes() if self.objective else 1

    def units(self) -> int:
        """Forward passes of the student that an epoch costs per image: one with a backward pass counts three."""
        momentum = not self.objective or OBJECTIVES[self.objective].own_queue == "momentum"
        return 3 * self.passes + momentum

    def epochs(self, passes: int, match: Match) -> int:
        """Epochs that make the given passes per image, or that cost as much as such a training without any other."""
        return max(1, round(passes / self.passes if match == "passes" else 3 * passes / self.units()))

    def cost(self, passes: int, match: Match) -> float:
        """What these epochs cost per image, in passes."""
        return self.epochs(passes, match) * (self.passes if match == "passes" else self.units() / 3)


ARMS = {
    UNDISTILLED: Arm(""),
    **{name: Arm(name) for name in OBJECTIVES},
    "compress": Arm("compress", contrast={"temperature": 0.04}),
    "compress-2q": Arm("compress-2q", contrast={"temperature": 0.04}),
    "pseudo-labels": Arm("pseudo-labels", contrast={"temperature": 0.07}),
}
"""Every objective with its published temperatures, and the student without a teacher."""
INGREDIENTS = {
    "simreg": Arm("simreg"),
    "+ 4 layers": Arm("simreg", contrast={"layers": 4}),
    "+ half of SEED": Arm("simreg-seed"),
    "+ average": Arm("simreg", {"student_ema": 0.99}),
    "+ warm-up": Arm("simreg", optim={"warmup_epochs": 2}),
    "+ LARS": Arm("simreg", optim={"kind": "lars", "lr": 3.0}),
    "+ another view": Arm("simreg", {"key_view": "cross"}),
}
"""What the modern recipe adds, each alone, to SimReg on the same passes."""
CACHES = {name + how: Arm(name, live=bool(how)) for name in ("seed", "simreg") for how in ("", ", live teacher")}
"""Cached keys of the student's own views, and the teacher itself on them."""
COMPARED = {"objectives": ARMS, "ingredients": INGREDIENTS, "caches": CACHES}
BASES = {"ingredients": "simreg"}
"""What is compared -> the arm that each of the others adds something to."""


class Pieces(Protocol):
    """What a leaderboard is made of: a demo's stages, or those of folders of images."""

    @property
    def root(self) -> Path: ...
    @property
    def epochs(self) -> int: ...
    @property
    def student(self) -> str: ...
    @property
    def giver(self) -> Path: ...
    def prepare(self) -> tuple[Stage, ...]: ...
    def teaching(self) -> tuple[Stage, ...]: ...
    def bags(self, kinds: tuple[BagKind, ...]) -> tuple[Stage, ...]: ...
    def contrastive(self, out: Path, model: str, epochs: int, seed: int) -> PretrainConfig: ...
    def distillation(self, out: Path, bags: str, seed: int) -> DistillConfig: ...
    def evaluation(self, run: Path) -> EvalConfig: ...


def leaderboard_digits(
    root: Path,
    *,
    seeds: int = 5,
    epochs: int = 60,
    compare: str = "objectives",
    match: str = "passes",
    device: Device = "auto",
) -> Recipe:
    """Every objective on handwritten digits: one teacher, head and probe, the same student passes.

    bingo leaderboard digits

    epochs: passes of an image through each student. compare: objectives, ingredients (of the modern recipe, each
    alone), caches (cached keys and a live teacher) or names of arms with commas between. match: passes, or compute (a
    forward and a backward pass are three forward passes; a momentum student one more).
    """
    return leaderboard(replace(digits_demo(root, epochs, device), key_views=KEY_VIEWS), seeds, compare, match)


def leaderboard_fashion(
    root: Path,
    *,
    images: Path | None = None,
    seeds: int = 5,
    epochs: int = 18,
    compare: str = "objectives",
    match: str = "passes",
    device: Device = "auto",
) -> Recipe:
    """Every objective on Fashion-MNIST, as `leaderboard-digits` on digits.

    bingo leaderboard fashion --images DIR
    """
    demo = replace(fashion_demo(root, images, epochs, device), key_views=KEY_VIEWS)
    return leaderboard(demo, seeds, compare, match)


def leaderboard_imagenet(
    root: Path,
    *,
    images: Path,
    teacher: Path,
    flags: Sequence[str] = (),
    seeds: int = 5,
    epochs: int = 200,
    compare: str = "objectives",
    match: str = "passes",
    device: Device = "auto",
) -> Recipe:
    """Every objective on ImageNet, or on your own images, with a teacher that is there already.

    bingo leaderboard DIR --teacher PATH

    images: folder with `train` and `val`, each a folder of class folders or of tar files, or packed; or `train.tar` and
    `val.tar`. teacher: a run folder, a checkpoint or a library's network. flags: of `bingo distill`, for all students.
    epochs, compare, match: as for `leaderboard-digits`. Linear accuracy is that of a classifier on features.
    """
    pieces = ImageFolders(
        root=root, images=images, teacher=teacher, epochs=epochs, key_views=KEY_VIEWS, device=device, flags=flags
    )
    return leaderboard(pieces, seeds, compare, match)


def leaderboard(pieces: Pieces, seeds: int, compare: str, match: str) -> Recipe:
    """The arms of a leaderboard on some images and a teacher. `UserError` for unknown arms and another match."""
    arms = chosen(compare)
    if match not in ("passes", "compute"):
        raise UserError(f"--match {match} is not allowed: it must be passes or compute")
    check_equal(arms, pieces.epochs, match)  # type: ignore[arg-type]
    jobs = [Group("prepare", stages)] if (stages := pieces.prepare()) else []
    jobs.append(Group("teacher", pieces.teaching(), parallel=True))
    if any(arm.objective and OBJECTIVES[arm.objective].bags for arm in arms.values()):
        jobs.append(Group("bags", pieces.bags(("knn",))))
    for seed in range(seeds):
        students = [stage for name, arm in arms.items() for stage in trained(pieces, name, arm, seed, match)]  # type: ignore[arg-type]
        jobs.append(Group(f"seed {seed}", tuple(students), parallel=True))
    return Recipe(tuple(jobs), {name: tuple(f"eval {name} {seed}" for seed in range(seeds)) for name in arms})


def check_equal(arms: Mapping[str, Arm], passes: int, match: Match) -> None:
    """`UserError` where whole epochs of the arms cannot cost about the same."""
    costs = {name: arm.cost(passes, match) for name, arm in arms.items()}
    if unequal(costs.values()):
        few, many = min(costs, key=lambda name: costs[name]), max(costs, key=lambda name: costs[name])
        tried = range(passes + 1, passes + 1000)
        better = next(n for n in tried if not unequal([arm.cost(n, match) for arm in arms.values()]))
        raise UserError(
            f"--epochs {passes} cannot be equal {match} for all arms: {few} would make {costs[few]:.3g} passes of an "
            f"image and {many} {costs[many]:.3g}; take --epochs {better}, or fewer arms"
        )


def unequal(costs: Iterable[float]) -> bool:
    """Whether one is larger than another by more than `EQUAL`."""
    costs = list(costs)
    return max(costs) > (1 + EQUAL) * min(costs)


def chosen(compare: str) -> dict[str, Arm]:
    """The arms that `--compare` names."""
    if compare in COMPARED:
        return COMPARED[compare]
    names = [name.strip() for name in compare.split(",") if name.strip()]
    known = ARMS | INGREDIENTS | CACHES
    for name in names:
        if name not in known:
            raise UserError(f"--compare {name!r} is no arm; {did_you_mean(name, [*COMPARED, *known])}")
    if len(set(names)) < 2:
        raise UserError(f"--compare {compare!r} is one arm: name two or more, or one of: {', '.join(COMPARED)}")
    return {name: known[name] for name in names}


def trained(pieces: Pieces, name: str, arm: Arm, seed: int, match: Match) -> tuple[Stage, Stage]:
    """Training and evaluation of one student."""
    out = pieces.root / "students" / f"{name.replace('+ ', 'with ').replace(',', '').replace(' ', '-')}-{seed}"
    epochs = arm.epochs(pieces.epochs, match)
    if not arm.objective:
        config = replace(pieces.contrastive(out, pieces.student, epochs, seed), key_bn="shuffle")
        training = Stage(f"pretrain {name} {seed}", "pretrain", config)
    else:
        training = Stage(f"distill {name} {seed}", "distill", distillation(pieces, out, arm, epochs, seed))
    return training, Stage(f"eval {name} {seed}", "eval", pieces.evaluation(out))


def distillation(pieces: Pieces, out: Path, arm: Arm, epochs: int, seed: int) -> DistillConfig:
    """A student by the arm's objective; keys are cached but for what needs the teacher itself."""
    row = OBJECTIVES[arm.objective]
    live = arm.live or row.lengths
    usual = pieces.distillation(out, "knn", seed)
    warm: dict[str, Any] = (
        {"warm_epochs": max(1, epochs // 18)} if arm.objective == "release" else {}
    )  # published: 11 of 200
    return replace(
        usual,
        objective=arm.objective,
        teacher=pieces.giver if live else None,
        keys=None if live else pieces.root / "keys",
        bags=usual.bags if row.bags else None,
        contrast=replace(usual.contrast, **arm.contrast),
        optim=replace(usual.optim, epochs=epochs, **arm.optim),
        **warm,
        **arm.changes,
    )
