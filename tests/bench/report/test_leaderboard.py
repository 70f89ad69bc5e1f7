"""The leaderboard of a finished recipe: order, ties, costs, files."""

from dataclasses import replace
from pathlib import Path

import pytest

from bingo.bench.report.leaderboard import picture, rows_of, table, teacher_forwards, write
from bingo.bench.report.results import load
from bingo.bench.report.summary import headline
from tests.support.recipe_folder import SCORES, write_recipe


@pytest.fixture
def root(tmp_path: Path, digits: Path) -> Path:
    """Three seeds: linear means 80, 80 and 80 %; few-label 52, 62 and 52.7 %."""
    return write_recipe(tmp_path / "run", digits, SCORES)


def test_arms_are_ordered_and_ties_are_ties(root: Path) -> None:
    """Few-label: kNN bags lead by 10, 12 and 8 points, and by 10, 10 and 8: intervals without zero."""
    rows = rows_of(load(root), "fewshot")
    assert [(row.name, row.verdict) for row in rows] == [
        ("knn", "first"),
        ("label", "behind"),
        ("no teacher", "behind"),
    ]
    assert rows[0].scores["fewshot"][0] == pytest.approx(62)
    assert rows[1].difference is not None
    assert rows[1].difference.mean == pytest.approx((0.10 + 0.10 + 0.08) / 3)
    # Linear: 70, 80, 90 against three times 80: as good on average, and nobody can tell them apart.
    assert {row.verdict for row in rows_of(load(root), "linear")} == {"first", "tie"}


def test_the_table_has_a_row_per_arm_with_its_costs(root: Path) -> None:
    lines = table(load(root), "fewshot").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| knn", "| label", "| no teacher"]
    assert {line.count("|") for line in lines} == {11}
    assert "62.0 ± 8.6" in lines[2]
    run = load(root)
    student, plain = run.arms["knn"][0], run.arms["no teacher"][0]
    steps = student.steps
    assert (teacher_forwards(student), student.passes) == (steps * 64, steps * 64 * 2), "one key, two views"
    assert teacher_forwards(plain) == 0


def test_both_files_are_written_beside_the_recipe(root: Path) -> None:
    text, where = write(root)
    assert (root / "leaderboard.md").read_text().rstrip() == text
    svg = (root / "leaderboard.svg").read_text()
    assert svg.startswith("<svg xmlns=")
    assert all(name in svg for name in ("knn", "label", "no teacher"))
    assert str(root / "leaderboard.md") in where
    assert "knn 62.0 %, first" in picture(load(root), "fewshot").alt


def test_ingredients_are_compared_with_their_base(root: Path) -> None:
    """kNN bags for the base: the two others are worse by 10, 12 and 8 points, and by 10, 10 and 8, few-label."""
    run = replace(load(root), settings={"compare": "ingredients"})
    run = replace(
        run, arms={"+ bags": run.arms["no teacher"], "+ labels": run.arms["label"], "simreg": run.arms["knn"]}
    )
    rows = rows_of(run, "fewshot")
    assert [(row.name, row.verdict) for row in rows] == [
        ("simreg", "base"),
        ("+ labels", "worse"),
        ("+ bags", "worse"),
    ]
    assert rows[1].difference is not None
    assert rows[1].difference.mean == pytest.approx(-(0.10 + 0.10 + 0.08) / 3)
    assert "arm − simreg, few-label" in table(run, "fewshot")


def test_a_page_without_the_demos_pair_begins_with_the_ranking(root: Path) -> None:
    run = load(root)
    arms = {"seed": run.arms["knn"], "paper": run.arms["label"], "simreg": run.arms["no teacher"]}
    told = headline(replace(run, arms=arms))
    assert "has 80.0 % linear accuracy, the highest of 3 arms. By 95 % intervals paired by seed: tie: " in told
    based = replace(run, arms=arms, settings={"compare": "ingredients"})
    assert headline(based).startswith("simreg has 80.0 % linear accuracy, the base of the other arms. By 95 %")
    assert headline(replace(run, arms={"seed": run.arms["knn"]})).startswith("This recipe has no pair")
