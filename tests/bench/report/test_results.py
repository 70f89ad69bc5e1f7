"""Differences between arms over paired seeds, against scipy's t test; folders that are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bingo.bench.report.page import write_report
from bingo.bench.report.recipe import repeat_section
from bingo.bench.report.results import Record, Student, compare, load
from bingo.bench.report.statistics import t_quantile
from bingo.errors import UserError
from bingo.files import write_json
from tests.support.recipe_folder import WRITTEN, write_recipe


def test_t_quantile_equals_scipy() -> None:
    for freedom in range(1, 60):
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def students(values: dict[int, float]) -> tuple[Student, ...]:
    record = Record("s", "pretrain", Path(), {}, 0.0, {}, 1, {})
    return tuple(Student(seed, {"knn": value}, record, 1, 1) for seed, value in values.items())


@pytest.mark.parametrize("seed", range(5))
def test_verdict_agrees_with_a_paired_t_test(seed: int) -> None:
    generator = np.random.default_rng(seed)
    before, after = generator.normal(0.7, 0.02, 4), generator.normal(0.73, 0.02, 4)
    found = compare(students(dict(enumerate(before))), students(dict(enumerate(after))), "knn")
    test = stats.ttest_rel(after, before)
    assert found is not None
    assert found.mean == pytest.approx(after.mean() - before.mean())
    interval = test.confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((interval.low, interval.high))  # type: ignore[operator]
    assert found.verdict == ("unclear" if test.pvalue > 0.05 else "better" if test.statistic > 0 else "worse")


@pytest.mark.parametrize(
    ("before", "after", "n", "verdict"),
    [
        ({0: 0.50, 1: 0.60, 2: 0.70}, {0: 0.55, 1: 0.65, 2: 0.76}, 3, "better"),  # pairing removes what seeds share
        ({0: 0.55, 1: 0.65, 2: 0.76}, {0: 0.50, 1: 0.60, 2: 0.70}, 3, "worse"),
        ({0: 0.50, 1: 0.50}, {0: 0.60, 1: 0.65}, 2, "too few seeds"),
        ({0: 0.50, 1: 0.50, 2: 0.50}, {0: 0.60, 1: 0.65, 2: 0.49}, 3, "unclear"),
        ({0: 0.50, 1: 0.60, 2: 0.7}, {0: 0.50, 1: 0.60, 2: 0.7}, 3, "unclear"),
        ({0: 0.50}, {0: 0.90}, 1, "one seed"),
        ({0: 0.10, 1: 0.50, 2: 0.50}, {1: 0.60, 2: 0.60, 3: 0.99}, 2, "too few seeds"),  # seeds 0 and 3 have no partner
    ],
)
def test_verdicts(before: dict[int, float], after: dict[int, float], n: int, verdict: str) -> None:
    found = compare(students(before), students(after), "knn")
    assert found is not None
    assert (found.n, found.verdict) == (n, verdict)


def test_no_common_seed_is_no_difference() -> None:
    assert compare(students({0: 0.5}), students({1: 0.5}), "knn") is None


def test_the_teacher_behind_a_cache_of_keys_is_found(root: Path) -> None:
    run = load(root)
    student = next(stage for stage in run.stages if stage.kind == "distill")
    teacher = replace(student, name="teacher", kind="pretrain", out=root / "teacher")
    cache = replace(student, name="keys", kind="keys", out=root / "keys", config={"teacher": str(WRITTEN / "teacher")})
    cached = replace(student, config={**student.config, "teacher": None, "keys": str(WRITTEN / "keys")})
    assert replace(run, stages=(teacher, cache)).teacher_of(cached) == teacher
    assert replace(run, stages=(teacher, cache)).teacher_of(student) == teacher
    assert replace(run, stages=()).teacher_of(student) is None


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def started_only(root: Path) -> None:
    write_json(root / "students" / "1-0" / "stage.json", {"key": "k", "kind": "distill", "name": "distill knn 0"})


def no_linear(root: Path) -> None:
    rewrite(root / "eval" / "1-0" / "results.json", lambda results: results.pop("linear"))


def other_weights(root: Path) -> None:
    rewrite(root / "students" / "1-0" / "stage.json", lambda stage: stage["figures"].update(weights="new"))


def other_run(root: Path) -> None:
    rewrite(root / "eval" / "1-0" / "config.json", lambda config: config.update(run="runs/none"))


def other_images(root: Path) -> None:
    for place, val in (("0-0", "a"), ("1-0", "b")):
        rewrite(root / "eval" / place / "results.json", lambda results, val=val: results.update(train="t", val=val))


def other_protocol(root: Path) -> None:
    rewrite(root / "eval" / "1-0" / "results.json", lambda results: results.update(protocol="release"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no recipe": (
        lambda root: (root / "recipe.json").unlink(),
        r"no recipe\.json in it\); name the folder given to `bingo run RECIPE --out`",
    ),
    "not JSON": (lambda root: (root / "recipe.json").write_text("{"), r"recipe\.json is not valid JSON"),
    "not a recipe": (lambda root: write_json(root / "recipe.json", {"a": 1}), r"not a recipe written by `bingo run`"),
    "a list": (lambda root: write_json(root / "recipe.json", [1]), r"not a recipe written by `bingo run`"),
    "unknown stage": (
        lambda root: rewrite(root / "recipe.json", lambda recipe: recipe["arms"].update(knn=["eval lost"])),
        r"names no stage for eval lost",
    ),
    "missing stage": (
        lambda root: shutil.rmtree(root / "eval" / "1-0"),
        r"1 of 5 stages are not finished \(eval knn 0\); type `bingo run digits --out",
    ),
    "started stage": (started_only, r"1 of 5 stages are not finished \(distill knn 0\)"),
    "no linear": (no_linear, r"results\.json has no linear accuracy; delete .* and type `bingo run digits` again"),
    "other weights": (other_weights, r"eval knn 0 holds the results of other weights than distill knn 0 made"),
    "other images": (other_images, r"arms no teacher, knn were evaluated on different datasets .* cannot be compared"),
    "other protocol": (other_protocol, r"linear accuracies of different protocols \(cached, release\), so they cannot"),
    "seconds without end": (
        lambda root: rewrite(root / "eval" / "1-0" / "stage.json", lambda record: record.update(seconds=float("inf"))),
        r"stage\.json: 'seconds' is inf, which does not belong there",
    ),
    "graphics card as text": (
        lambda root: rewrite(root / "eval" / "1-0" / "environment.json", lambda found: found.update(gpu="H200")),
        r"environment\.json: 'gpu' is 'H200', not of its type",
    ),
    "setting of another type": (
        lambda root: rewrite(root / "students" / "1-0" / "config.json", lambda config: config.update(optim=[])),
        r"config\.json\.optim: \[\] is not allowed",
    ),
    "other run": (other_run, r"eval knn 0 evaluates runs/none, which no stage trained"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_refused_with_the_old_report_intact(case: str, tmp_path: Path, digits: Path) -> None:
    root = write_recipe(tmp_path, digits, {"no teacher": [(0.5, 0.9, 0.9)], "knn": [(0.6, 0.9, 0.9)]})
    damage, message = DAMAGE[case]
    damage(root)
    (root / "report.html").write_text("old")
    with pytest.raises(UserError, match=message):
        write_report(root, root / "report.html")
    assert (root / "report.html").read_text() == "old"


@pytest.mark.parametrize("whole", [True, False])
def test_two_spellings_of_one_root(whole: bool, tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bingo submit` writes whole paths, `bingo run` what was typed: what one made, the other shows."""
    root = write_recipe(tmp_path / "run", digits, {"no teacher": [(0.5, 0.9, 0.9)], "knn": [(0.6, 0.9, 0.9)]})
    monkeypatch.chdir(tmp_path)
    typed, other = str(Path("run")), str(root)
    for path in [root / "recipe.json", *root.glob("*/*/config.json"), *root.glob("*/config.json")]:
        absolute = whole == (path.name == "recipe.json")
        path.write_text(path.read_text().replace(f'"{WRITTEN}', f'"{other if absolute else typed}'))
    for place, name in ((tmp_path, Path("run")), (Path("/"), root)):
        monkeypatch.chdir(place)
        found = {arm: students[0].record.out for arm, students in load(name).arms.items()}
        assert found == {"no teacher": name / "students/0-0", "knn": name / "students/1-0"}
    assert len(write_report(root, tmp_path / "report.html")) > 2


def test_settings_of_a_recipe_are_its_command(tmp_path: Path, digits: Path) -> None:
    root = write_recipe(tmp_path, digits, {"no teacher": [(0.5, 0.9, 0.9)], "knn": [(0.6, 0.9, 0.9)]})
    assert load(root).settings is None, "an earlier release did not write them"
    assert "bingo run" not in repeat_section(load(root))["commands"][-1:]
    settings = {"epochs": 3, "compare": "seed, no teacher", "flags": ["--student", "tiny"]}
    rewrite(root / "recipe.json", lambda recipe: recipe.update(settings=settings, recipe="leaderboard-imagenet"))
    (command,) = [c for c in repeat_section(load(root))["commands"] if c.startswith("bingo")]
    assert command == (
        "bingo run leaderboard-imagenet --out runs/leaderboard-imagenet-again --epochs 3 --compare 'seed, no teacher' "
        "-- --student tiny"
    )
    rewrite(root / "recipe.json", lambda recipe: recipe.update(settings=["epochs"]))
    with pytest.raises(UserError, match="is not a recipe written by `bingo run`"):
        load(root)
