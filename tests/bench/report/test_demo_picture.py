"""The README's picture is the table of docs/results.md, and the README says the same in words."""

import re

import pytest

from bingo.bench.report.demo_picture import draw, rows_of
from bingo.errors import UserError
from tests.support.ranks import ROOT

PAGE = (ROOT / "docs" / "results.md").read_text()


def test_the_committed_picture_is_the_table() -> None:
    pytest.importorskip("matplotlib")
    drawn, committed = draw(PAGE), (ROOT / "docs" / "result.svg").read_text()
    for pattern in (r"<text [^>]*>([^<]+)<", r'aria-label="([^"]+)"'):
        assert re.findall(pattern, committed) == re.findall(pattern, drawn) != []


def test_the_readme_names_the_same_means() -> None:
    words = (ROOT / "README.md").read_text()
    for name, ((few, _), (knn, _)) in rows_of(PAGE).items():
        assert re.search(rf"{name}\s+{few} and {knn} %", words)


def test_intervals_are_those_of_five_seeds() -> None:
    """78.1 ± 0.9 over 5 seeds: 2.776 times 0.9 over the root of 5."""
    mean, half = rows_of(PAGE)["no teacher"][0]
    assert (mean, round(half, 3)) == (78.1, 1.117)
    with pytest.raises(UserError, match=r"no table of the demo with all four arms; give docs/results\.md"):
        rows_of(PAGE.replace("| no teacher (MoCo-v2)", "| other"))
