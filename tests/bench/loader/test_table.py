"""The table of the loader benchmark reads a stored result."""

import json

from bingo.bench.loader.record import Result
from bingo.bench.loader.table import table
from tests.support.ranks import ROOT


def test_the_stored_result_is_read() -> None:
    stored = json.loads((ROOT / "bench" / "results" / "loader-cpu-epyc-2core.json").read_text())["detail"]
    assert stored.keys() == Result.__annotations__.keys()
    lines = table(stored)
    assert [line.split(":")[0] for line in lines[-6:]] == [
        "split of the CPU time, ms",
        "*",
        "gate",
        "aim",
        "aim",
        "GPU decoder",
    ]
    assert sum("reached (" in line for line in lines) == 2
