"""From samples of ranks to rows, tables and pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bingo.bench.record import read_result, samples_of, write_result
from bingo.bench.scaling.picture import of_mode, save_picture
from bingo.bench.scaling.rows import (
    CPU,
    EXPOSED,
    LOADER,
    RATE,
    STRAGGLER,
    Measured,
    curves,
    detail_of,
    estimate,
    rows_of,
)
from bingo.bench.scaling.samples import read_samples, write_samples
from bingo.bench.scaling.table import lines, predicted
from bingo.errors import UserError
from bingo.files import write_json
from tests.support.scaling import TINY, plan, rank


@pytest.fixture
def found(tmp_path: Path) -> list[Measured]:
    """One rank, and two of which the second is slower: 8 images per rank and step."""
    points = plan(tmp_path / "out", "--local", "1,2", "--mode", "weak", "--repeats", "2", *TINY).points
    one = [rank(0, [0.1, 0.1, 0.2], [0.1, 0.1, 0.1])]
    two = [rank(0, [0.4, 0.4, 0.2], [0.1, 0.1, 0.1]), rank(1, [0.4, 0.4, 0.2], [0.3, 0.2, 0.2])]
    return [
        Measured(points[0], (one, one), gradient_bytes=40, commits=("a", "a")),
        Measured(points[1], (two,), ("2 ranks batch 8 repeat 1: failed: out of memory",), 40, ("a",)),
    ]


def test_what_rows_say(found: list[Measured]) -> None:
    rows = {row["metric"]: row for row in rows_of(found[1])}
    assert rows[RATE]["processes"] == [pytest.approx([40, 40, 80])]
    assert rows[CPU]["processes"] == [[0.2, 0.2, 0.1], [0.2, 0.2, 0.1]], "of each rank"
    assert rows[CPU]["clock"] == "cpu"
    assert rows[EXPOSED]["processes"] == [pytest.approx([0.75, 0.75, 0.5]), pytest.approx([0.25, 0.5, 0])]
    assert rows[STRAGGLER]["processes"] == [pytest.approx([0.5, 1 / 3, 1 / 3])]
    assert LOADER not in rows, "random crops are not loaded"
    assert rows[RATE]["case"] == f"weak, {found[1].point.case}"
    assert rows[RATE]["work"] == {"images": 16.0}
    assert "a job is missing: 2 ranks batch 8 repeat 1: failed: out of memory" in rows[RATE]["notes"]


def test_loader_wait_with_images(found: list[Measured]) -> None:
    point = found[0].point
    stage = replace(point.stages[0], config=replace(point.stages[0].config, data=Path("d")))
    measured = replace(found[0], point=replace(point, stages=(stage,)), jobs=([rank(0, [0.2], [0.2], 0.05)],))
    (row,) = [row for row in rows_of(measured) if row["metric"] == LOADER]
    assert row["processes"] == [[0.25]]
    assert "loader wait, %" in "\n".join(lines([measured]))


def test_efficiency_is_of_a_ranks_own_pace(found: list[Measured]) -> None:
    (dots,) = curves(found).values()
    assert [dot.efficiency["median"] for dot in dots] == pytest.approx([1, 20 / 80])


def test_of_three_jobs_jobs_are_what_varies(found: list[Measured]) -> None:
    """A job is one figure in the efficiency, and drawn as a whole for intervals of its samples."""
    points = [m.point for m in found]
    jobs = [[rank(0, [seconds, seconds, 9.0], [0.1, 0.1, 0.1])] for seconds in (0.1, 0.2, 0.4)]
    pair = [[*job, {**job[0], "rank": 1}] for job in jobs]
    (dots,) = curves([Measured(points[0], tuple(jobs)), Measured(points[1], tuple(pair))]).values()  # type: ignore[arg-type]
    assert [(dot.efficiency["median"], dot.efficiency["n"], dot.rate["n"]) for dot in dots] == [(1, 3, 9), (1, 3, 9)]
    cpu = estimate(dots[1].measured, CPU)
    assert (cpu["median"], cpu["n"]) == (0.1, 18)
    assert cpu["interval"] is not None


def test_a_point_without_a_job_says_why(found: list[Measured], tmp_path: Path) -> None:
    lost = replace(found[1], jobs=(), problems=("it failed: no memory",))
    (row,) = rows_of(lost)
    assert (row["processes"], row["error"]) == ([], "it failed: no memory")
    told = "\n".join(lines([found[0], lost]))
    assert "2 ranks, 8 per rank: it failed: no memory" in told
    assert save_picture([lost], {}, tmp_path / "none.svg") == "the picture is skipped: nothing is measured yet"


def test_a_result_is_read_back_and_drawn(found: list[Measured], tmp_path: Path) -> None:
    path = tmp_path / "scaling.json"
    write_result(path, "scaling", [row for m in found for row in rows_of(m)], detail_of(found, {"batch": 8}))
    result = read_result(path, "scaling")
    assert {row["variant"] for row in result["rows"]} == {"ours"}
    assert all(samples_of(row) for row in result["rows"])
    assert [point["ranks"] for point in result["detail"]["points"]] == [1, 2]
    assert result["detail"]["points"][1]["hosts"] == [["c1", "c2"]]
    assert (
        save_picture(found, {(1, 8): (70, 90), (2, 8): (130, 170)}, tmp_path / "s.svg") == f"picture: {tmp_path}/s.svg"
    )
    assert "<svg" in (tmp_path / "s.svg").read_text()


def test_a_predicted_band(found: list[Measured], tmp_path: Path) -> None:
    row: Any = {"variant": "as asked", "metric": RATE, "better": "higher", "clock": "none"}
    step = "tiny-2 from tiny-2, 16 px"
    rows: list[Any] = [
        {**row, "case": f"2 nodes x 8 ranks, 8 per rank, {step}, bf16", "processes": [[900.0, 1100.0]]},
        {**row, "case": f"weak, 2 ranks, 4 per rank, {step}, fp32", "processes": [[70.0]]},
        {**row, "case": "4 ranks, 8 per rank, resnet18 from resnet50, 224 px", "processes": [[1.0]]},
    ]
    write_result(tmp_path / "a.json", "predict", rows[:1])
    write_result(tmp_path / "b.json", "predict", rows[1:])
    band = predicted([tmp_path / "a.json", tmp_path / "b.json"], step)
    assert band == {(16, 8): (900, 1100), (2, 4): (70, 70)}
    (dots,) = curves(found).values()
    assert of_mode("weak", dots[0], band) == {16: (900, 1100)}
    assert of_mode("strong", dots[0], band) == {2: (70, 70)}
    write_result(tmp_path / "c.json", "predict", rows[2:])
    with pytest.raises(UserError, match=r"c.json predicts 4 ranks, 8 per rank, resnet18 .*; give the --json of `bingo"):
        predicted([tmp_path / "c.json"], step)


def test_samples_of_a_job_are_read_back(tmp_path: Path) -> None:
    ranks = [rank(1, [0.2], [0.1]), rank(0, [0.2], [0.1])]
    write_samples(tmp_path, ranks, gradient_bytes=40)
    assert read_samples(tmp_path) == (ranks[::-1], 40)
    for wrong in ([], [{**ranks[0], "together": []}], [{**ranks[0], "alone": [{"seconds": 1}]}], ["x"], [ranks[0], 3]):
        write_json(tmp_path / "samples.json", {"gradient_bytes": 1, "ranks": wrong})
        with pytest.raises(UserError, match="does not hold the samples of ranks; delete the folder"):
            read_samples(tmp_path)
