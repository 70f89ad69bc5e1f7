"""What each path given to `bingo report` is, and the sentence for what is nothing of these."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bingo.bench.record import write_result
from bingo.bench.report.inputs import read_inputs
from bingo.bench.report.page import place, write_reports
from bingo.cli import report
from bingo.errors import UserError
from bingo.files import write_json


def test_every_path_is_known_for_what_it_is(root: Path, tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", "step", [])
    (tmp_path / "notes.json").write_text('"of the user"')
    student = root / "students" / "0-0"
    found = read_inputs([root, student, student, tmp_path])
    assert (found.recipes, found.trainings, found.submissions) == ([root], [student], [])
    assert [(path.name, result["measurement"]) for path, result in found.results] == [("a.json", "step")]


def test_of_a_chain_without_arms_its_trainings_are_shown(root: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {"recipe": "resnet18-r50", "arms": {}, "stages": []})
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "metrics.jsonl").touch()
    assert read_inputs([tmp_path]).trainings == [tmp_path / "student"]


def schema(path: Path) -> Path:
    write_json(path / "r.json", {"schema": "other-2", "rows": []})
    return path / "r.json"


def text(path: Path, content: str) -> Path:
    (path / "r.json").write_text(content)
    return path / "r.json"


def folder(path: Path, content: dict[str, str]) -> Path:
    for name, value in content.items():
        (path / name).write_text(value)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "absent": (lambda path: path / "none", r"none does not exist; give folders of trainings"),
    "empty": (lambda path: path, r" is empty, which no report shows; give folders of trainings .* `bingo bench"),
    "strange": (lambda path: folder(path, {"a.txt": ""}), r" holds no run, which no report shows; give folders"),
    "bags": (lambda path: folder(path, {"stage.json": '{"kind": "bags"}'}), r" holds bags, which no report shows"),
    "other schema": (schema, r"r.json has the schema 'other-2', this release reads bingo-bench-1; measure again"),
    "no schema": (lambda path: text(path, "{}"), r"r.json names no schema, this release reads bingo-bench-1"),
    "truncated": (lambda path: text(path, '{"schema": "bingo-'), r"r.json is not valid JSON"),
    "a list": (lambda path: text(path, "[1]"), r"r.json .*; measure again with --json FILE"),
    "no arms": (
        lambda path: folder(path, {"recipe.json": '{"stages": []}'}),
        r"is not a recipe written by `bingo run`",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        write_reports([make(tmp_path)], tmp_path / "page.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_the_page_lies_in_a_recipe_of_its_own_and_here_otherwise(root: Path, tmp_path: Path) -> None:
    assert place([root]) == root / "report.html"
    assert place([root, root / "students" / "0-0"]) == Path("report.html")
    assert place([root / "students" / "0-0"]) == Path("report.html")


def test_the_verb_takes_several_paths(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path / "a.json", "env", [])
    assert report([str(tmp_path / "a.json"), str(tmp_path), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'page.html'}"
