"""Shared by the tests of training."""

from pathlib import Path

import pytest

from tests.support.ranks import finish, start_ranks
from tests.support.short_run import command


@pytest.fixture(scope="session")
def uninterrupted(digits: Path, teacher: Path, bags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The short run by two ranks that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    results = finish(start_ranks(command(digits, teacher, bags, out), 2))
    assert [code for code, _ in results] == [0, 0], results
    return out
