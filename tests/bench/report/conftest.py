"""A finished recipe and its report for all files of this folder."""

from pathlib import Path

import pytest

from bingo.bench.report.page import write_report
from tests.support.page import Page
from tests.support.recipe_folder import SCORES, write_recipe


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), digits, SCORES, bags=True)


@pytest.fixture(scope="session")
def written(root: Path) -> tuple[str, list[str]]:
    lines = write_report(root, root / "report.html")
    return (root / "report.html").read_text(), lines


@pytest.fixture(scope="session")
def page(written: tuple[str, list[str]]) -> Page:
    return Page(written[0])
