"""The form of a result: what is written is read back, and anything else is refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

from bingo.bench.record import SCHEMA, Row, read_result, rows_by_case, samples_of, write_result
from bingo.errors import UserError

ROW: Row = {
    "case": "batch 8", "variant": "ours", "metric": "seconds per step", "better": "lower", "clock": "cpu",
    "processes": [[1.0, 2.0], [3.0]],
}  # fmt: skip


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_result(path, "step", [ROW], {"own": 1}, partial=True)
    found = read_result(path, "step")
    assert (found["schema"], found["measurement"], found["partial"]) == (SCHEMA, "step", True)
    assert found["rows"] == [ROW]
    assert found["detail"] == {"own": 1}
    assert {"git", "argv", "cpu"} <= found["environment"].keys()
    assert samples_of(ROW) == [1.0, 2.0, 3.0]
    assert rows_by_case([ROW]) == {("batch 8", "ours", "seconds per step", "cpu"): ROW}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": "bingo-bench-9"}, r"has the schema 'bingo-bench-9', this release reads bingo-bench-1"),
        ({"schema": None}, r"names no schema|has the schema None"),
        ({"rows": [{**ROW, "processes": []}]}, "row 0 has no samples and no error that says why"),
        ({"rows": [{**ROW, "processes": [[float("nan")]]}]}, "row 0 has the sample nan, which is no finite number"),
        ({"rows": [{**ROW, "processes": [1.0]}]}, "row 0 has no 'processes' that is a list of lists"),
        ({"rows": [{**ROW, "clock": "sun"}]}, "row 0 says clock='sun'"),
        ({"rows": [{**ROW, "better": 1}]}, "row 0 says better=1"),
        ({"rows": [{**ROW, "case": 1}]}, "row 0 has no 'case' that is a text"),
        ({"rows": [1]}, "row 0 is not an object"),
        ({"rows": {}}, "'rows' is a JSON object"),
        ({"measurement": "loader"}, "is a result of 'loader', not of 'step'"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "x.json"
    write_result(path, "step", [ROW])
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=sentence):
        read_result(path, "step")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_result(path, "step", [ROW])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="is not valid JSON"):
        read_result(path)
