"""One run of `bingo bench step` with a toy shape for all files of this folder."""

import pytest

from bingo.bench.step import main as bench
from tests.support.toy_step import TOY


@pytest.fixture(scope="session")
def found() -> dict:
    return bench.run(TOY)
