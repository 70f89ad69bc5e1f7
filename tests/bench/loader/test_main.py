"""`bingo bench loader` on a few images: record, table, refusals."""

from pathlib import Path

import pytest
import torch

from bingo.bench.loader.record import Result, ShapeRecord
from bingo.bench.loader.rivals import RIVALS
from bingo.bench.loader.variants import OURS, PLAIN, RELEASE, PlainDali, names, stages
from bingo.bench.record import read_result
from bingo.cli import main

SMALL = ["--images", "12", "--batch", "4", "--burst", "1", "--rounds", "1", "--device", "cpu"]


@pytest.mark.slow
def test_record_and_table(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every sample of every variant; one that fails is a row that says so."""

    def fails(self: PlainDali, start: int, steps: int) -> None:
        raise RuntimeError("not today")

    monkeypatch.setattr(PlainDali, "burst", fails)
    assert main(["bench", "loader", *SMALL, "--cache", str(cache), "--json", str(tmp_path / "r.json")]) == 0
    record = read_result(tmp_path / "r.json", "loader")
    found = record["detail"]
    assert found.keys() == Result.__annotations__.keys()
    assert found["shape"].keys() == ShapeRecord.__annotations__.keys()
    assert torch.__version__.startswith(record["environment"]["packages"]["torch"])
    assert [(row["variant"], row["stage"]) for row in found["rows"]] == [(n, s) for n in names() for s in stages(n)]
    for row in found["rows"]:
        if row["variant"] == PLAIN:
            assert row["error"] == "RuntimeError: not today"
            continue
        if "error" in row:
            assert "not installed" in row["error"]
            assert row["variant"] in RIVALS
            continue
        for clock in ("cpu_seconds", "wall_seconds"):
            assert len(row[clock]["samples"]) == 2
            assert min(row[clock]["samples"]) > 0
        assert ("over_release" in row) == (row["variant"] != RELEASE)
        assert ("over_ours" in row) == (row["variant"] != OURS)
    assert len(found["order"]) == 2 * sum("error" not in row for row in found["rows"])
    assert found["order"] == found["order"][::-1], "forwards, then backwards"
    assert found["gpu"] == {"absent": "torch sees no GPU"}
    said = capsys.readouterr().out
    assert "per decoded image, two views each" in said
    assert "gate: worst crop" in said
    assert any("torchvision + PIL in process" in line and "not installed" not in line for line in said.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "0"], "not a whole number of at least 1"),
        (["--variants", "foo"], "--variants foo: there are release-style"),
        (["--images", "6", "--batch", "8"], "6 images are fewer than --batch 8 times --burst 1; lower one"),
        (["--data", "nowhere"], "--images is about images that are made here: leave it out beside --data"),
        (["--device", "cpu", "--seconds", "9"], "--seconds is about a GPU"),
    ],
)
def test_refusals(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "loader", *SMALL, *words]) == 2
    assert message in capsys.readouterr().err
