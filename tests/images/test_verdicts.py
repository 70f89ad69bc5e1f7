"""The verdicts on a folder with every kind of file: counts, duplicates, the table, the JSON file."""

import json
from pathlib import Path

from bingo.images.verdicts import Verdicts
from tests.support.checked_folder import BAD, CONVERTIBLE, NO_FILE, SOUND


def test_counts_hidden_and_ignored_files(result: Verdicts) -> None:
    assert result.counts == {"ok": len(SOUND) + 1, "convertible": len(CONVERTIBLE), "bad": len(BAD) + len(NO_FILE)}
    assert result.listing.classes == ["bad", "odd", "sound"]
    assert result.listing.ignored == 4
    assert result.listing.left_out == {
        "hidden": (2, ".cache"),
        ".md": (1, "README.md"),
        ".txt": (1, "sound/notes.txt"),
    }
    assert len(list(result.problems)) == result.counts["bad"] + result.counts["convertible"]


def test_exact_duplicates_are_groups(result: Verdicts) -> None:
    assert list(result.duplicate_groups) == [["odd/really_jpeg.png", "sound/plain.jpg"]]
    assert result.duplicate_counts == {"groups": 1, "files beyond the first": 1}


def test_the_table_has_every_problem_and_every_count(result: Verdicts) -> None:
    lines = list(result.lines())
    for path, word, reason in result.problems:
        assert f"{word:12s} {path}: {reason}" in lines
    reasons = result.reason_counts
    for word, count in result.counts.items():
        assert f"{word:12s} {count:9d}" in lines
        assert sum(reasons.get(word, {}).values()) == (0 if word == "ok" else count)
    assert any(line.split() == ["duplicates", "odd/really_jpeg.png", "sound/plain.jpg"] for line in lines)


def test_the_json_file_has_every_file(result: Verdicts, tmp_path: Path) -> None:
    result.write_json(tmp_path / "verdicts.json")
    value = json.loads((tmp_path / "verdicts.json").read_text())
    assert value["counts"] == result.counts
    assert value["duplicate_groups"] == list(result.duplicate_groups)
    assert [file["path"] for file in value["files"]] == list(result.listing.paths)
    problems = [(file["path"], file["verdict"], file["reason"]) for file in value["files"] if file["verdict"] != "ok"]
    assert problems == list(result.problems)
