"""The recipes of `bingo leaderboard`: equal cost, one teacher, head and probe; what they refuse."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.config import DistillConfig
from bingo.errors import UserError
from bingo.objectives import OBJECTIVES
from bingo.recipes import build
from bingo.recipes.leaderboard import ARMS, INGREDIENTS


def trainings(root: Path, **settings: Any) -> dict[str, Any]:
    """Arm -> the configuration of its first seed."""
    recipe = build("leaderboard-digits", root, {"seeds": 2, **settings})
    stages = {stage.name: stage.config for group in recipe.jobs for stage in group.stages}
    assert {len(names) for names in recipe.arms.values()} == {2}
    return {arm: stages.get(f"distill {arm} 0") or stages[f"pretrain {arm} 0"] for arm in recipe.arms}


def test_every_objective_makes_the_same_passes(tmp_path: Path) -> None:
    found = trainings(tmp_path, epochs=60)
    assert list(found) == list(ARMS)
    assert set(OBJECTIVES) < set(ARMS)
    passes = {
        arm: config.optim.epochs * (config.method.passes() if isinstance(config, DistillConfig) else 1)
        for arm, config in found.items()
    }
    assert set(passes.values()) == {60}
    students = [config for config in found.values() if isinstance(config, DistillConfig)]
    shared = {(c.student, c.contrast.hidden, c.contrast.dim, c.optim.lr, c.optim.batch, c.augment) for c in students}
    assert len(shared) == 1
    assert {c.objective for c in students if c.teacher} == {"coss"}, "all others have cached keys"
    assert {c.objective for c in students if c.bags} == {"paper", "release"}


def test_equal_compute_counts_a_momentum_student(tmp_path: Path) -> None:
    """Three units for a pass with its backward pass, one for a forward pass: 180 units in all."""
    epochs = {arm: config.optim.epochs for arm, config in trainings(tmp_path, epochs=60, match="compute").items()}
    assert (epochs["seed"], epochs["paper"], epochs["release"]) == (60, 30, 20)
    assert (epochs["no teacher"], epochs["disco"]) == (45, 26)


def test_ingredients_are_each_alone(tmp_path: Path) -> None:
    found = trainings(tmp_path, compare="ingredients")
    assert list(found) == list(INGREDIENTS)
    base = found["simreg"]
    for arm, config in found.items():
        changed = [name for name in ("objective", "contrast", "optim", "student_ema", "key_view")
                   if getattr(config, name) != getattr(base, name)]  # fmt: skip
        assert len(changed) == (arm != "simreg"), arm


def test_a_live_teacher_is_all_that_differs(tmp_path: Path) -> None:
    found = trainings(tmp_path, compare="caches")
    for name in ("seed", "simreg"):
        cached, live = found[name], found[f"{name}, live teacher"]
        assert (cached.teacher, live.keys) == (None, None)
        assert replace(live, teacher=None, keys=cached.keys, out=cached.out) == cached


def test_some_arms(tmp_path: Path) -> None:
    assert list(trainings(tmp_path, compare="seed, simreg,no teacher")) == ["seed", "simreg", "no teacher"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"compare": "sead,simreg"}, "--compare 'sead' is no arm; did you mean 'seed'"),
        (
            {"compare": "seed"},
            "is one arm: name two or more, or one of: objectives, ingredients, caches",
        ),
        ({"match": "time"}, "--match time is not allowed: it must be passes or compute"),
        ({"seeds": 0}, "--seeds 0 is not allowed"),
        (
            {"epochs": 4},
            "--epochs 4 cannot be equal passes for all arms: release would make 3 passes of an image and no teacher 4; "
            "take --epochs 6, or fewer arms",
        ),
        (
            {"epochs": 6, "match": "compute"},
            "--epochs 6 cannot be equal compute for all arms: no teacher would make 5.33",
        ),
    ],
)
def test_wrong_words(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        build("leaderboard-digits", tmp_path, settings)


def test_what_is_nearly_equal_is(tmp_path: Path) -> None:
    """67 epochs of three passes against 200."""
    assert trainings(tmp_path, epochs=200)["release"].optim.epochs == 67
    assert trainings(tmp_path, epochs=4, compare="seed,paper")["paper"].optim.epochs == 2
