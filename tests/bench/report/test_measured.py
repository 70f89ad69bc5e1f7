"""Speed-ups, parts, ceilings and scaling of result files, against figures computed by hand."""

from pathlib import Path
from typing import Any, cast

import pytest

from bingo.bench.record import Row, read_result, write_result
from bingo.bench.report import measured
from bingo.bench.report.page import write_reports
from tests.support.page import Page


def row(case: str, variant: str, samples: list[float], metric: str = "seconds per step", **more: Any) -> Row:
    clock = more.pop("clock", "cpu")
    better = more.pop("better", "lower")
    found = {"case": case, "variant": variant, "metric": metric, "better": better, "clock": clock, **more}
    return cast(Row, {"processes": [samples], **found})


OURS = row("r18", "ours", [0.5, 0.5, 0.5, 0.5], work={"images": 8})
RELEASE = row("r18", "release-style", [1.0, 1.1, 1.0, 1.1])


def test_speed_ups_are_over_the_release_style_one() -> None:
    (ratio,) = measured.ratios([OURS, RELEASE])
    assert (ratio.name, ratio.value, ratio.n) == ("ours", pytest.approx(2.1), 4)
    assert ratio.noise == pytest.approx(0.1 / 1.05), "even against odd samples of the other"
    assert ratio.interval is not None
    assert ratio.interval[0] >= 2.0
    rate = row("r18", "ours", [30.0], "images per second", better="higher")
    assert measured.ratios([rate, row("r18", "naive", [10.0], "images per second", better="higher")])[0].value == 3.0


def test_no_interval_of_two_and_no_speed_up_of_a_wrong_answer() -> None:
    (ratio,) = measured.ratios([row("r18", "a", [2.0, 2.0]), row("r18", "b", [1.0, 1.0])])
    assert (ratio.name, ratio.value, ratio.interval) == ("b", 2.0, None)
    wrong = row("r18", "fast but wrong", [0.1] * 4, accuracy={"ok": False, "error": 1.0})
    assert [ratio.name for ratio in measured.ratios([RELEASE, OURS, wrong])] == ["ours"]
    figure = measured.figure_of(wrong)
    assert figure is not None
    assert figure["note"] == "its accuracy gate failed"


def test_one_clock_per_case_and_no_parts() -> None:
    wall = [{**OURS, "clock": "wall"}, {**RELEASE, "clock": "wall"}]
    parts = [row("r18", name, [0.1], "seconds per step in teacher") for name in ("ours", "release-style")]
    alone = row("other case", "ours", [1.0])
    found = measured.groups(cast(list[Row], [*wall, OURS, RELEASE, *parts, alone]))
    assert list(found) == [("r18", "seconds per step", "cpu")]


def test_parts_of_a_step_stand_one_after_the_other_for_each_rank() -> None:
    teacher, wait = (f"seconds per step in {part}" for part in ("teacher", "data wait"))
    taken = ((teacher, 0.1), (wait, 0.02))
    rows = [{**row("r18", "ours", [], name), "processes": [[at], [2 * at]]} for name, at in taken]
    (chart,) = measured.waterfalls(cast(list[Row], rows))
    assert "ours, rank 0: 120 ms; ours, rank 1: 240 ms" in chart.alt
    profile = [
        row("digits, 5 steps", "rank 0", [at], f"host seconds per step: {part}", clock="wall")
        for part, at in (("teacher", 0.1), ("backward", 0.3), ("exposed communication", 0.05), ("whole step", 0.4))
    ]
    (chart,) = measured.waterfalls(profile)
    assert chart.alt == "Parts of a step, digits, 5 steps, host: rank 0: 400 ms, of it 50 exposed communication"
    assert measured.part_colours(["teacher", "data wait"]) == {"teacher": "#2f81d8", "data wait": "#d1495b"}


def test_ceilings_come_from_rows_or_from_the_record() -> None:
    products = row("roof", "fp32 products", [0.01], work={"flops": 1e9})
    copies = row("roof", "copy", [0.01], work={"bytes": 1e8})
    loss = row("loss", "ours", [0.02], work={"flops": 1e9, "bytes": 1e7})
    result: Any = {"measurement": "kernels", "rows": [products, copies, loss], "detail": None}
    assert measured.roofs(result) == [("fp32 products", pytest.approx(1e11), pytest.approx(1e10))]
    assert [chart.alt for chart in measured.roof_charts(result)] == [
        "Roofline: ours 50GFLOP/s, fp32 products 100GFLOP/s"
    ]
    detail = {"kernels": {"roof": {"matmul_flops": 5e14, "copy_bytes": 3e12}}}
    assert measured.roofs({**result, "rows": [loss], "detail": detail}) == [("matrix products", 5e14, 3e12)]
    alone: Any = {**result, "rows": [loss], "detail": None, "environment": {"cpu": "EPYC"}}
    assert measured.roof_charts(alone) == []
    rates = [row("fp32 products", "this machine", [1e11], "flops per second", better="higher")]
    rates.append(row("copies", "this machine", [1e10], "bytes per second", better="higher"))
    roof: Any = {"measurement": "roof", "rows": rates, "detail": None, "environment": {"cpu": "EPYC"}}
    assert [chart.alt for chart in measured.roof_charts(roof)] == ["Roofline: fp32 products 100GFLOP/s"]
    (chart,) = measured.roof_charts(alone, [alone, roof])
    assert chart.alt == "Roofline: ours 50GFLOP/s, fp32 products 100GFLOP/s"
    assert measured.roof_charts(alone, [{**roof, "environment": {"cpu": "Xeon"}}]) == [], "of another machine"


def test_a_scaling_curve_stands_on_the_band_that_was_predicted() -> None:
    rate = measured.RATE
    rows = [row(f"weak, {n} nodes x 2 ranks", "ours", [100.0 * n], rate, better="higher") for n in (1, 2)]
    band = [row("4 ranks", "ours", [150.0, 250.0], rate), row("strong, 4 ranks", "ours", [1.0], rate)]
    line = measured.predicted("weak", "", band)
    assert line is not None
    assert line.band is not None
    assert (line.x.tolist(), line.band[0].tolist(), line.band[1].tolist()) == ([4], [150], [250])
    assert [chart.alt for chart in measured.scaling_charts(rows, band)] == ["weak scaling: 2 ranks 100, 4 ranks 200"]


def test_a_prediction_of_another_step_is_not_the_band() -> None:
    case = "2 nodes x 8 ranks, 256 per rank, resnet18 from resnet50, 224 px, bf16, release, H100"
    band = [row(case, "as asked", [9e4], measured.RATE, clock="none")]
    for size, drawn in (("224", True), ("160", False)):
        step = measured.step_of(
            row(f"weak, 1 ranks, 256 per rank, resnet18 from resnet50, {size} px, bf16", "ours", [])
        )
        assert (measured.predicted("weak", step, band) is not None) is drawn


def test_predicted_steps_of_all_precisions_are_one_ladder() -> None:
    case = "1 nodes x 8 ranks, 256 per rank, resnet18 from resnet50, 224 px, {}, release, H100"
    steps = [row(case.format("tf32"), "release-style", [0.13], clock="none")]
    steps.append(row(case.format("bf16"), "ours", [0.065], clock="none"))
    (chart,) = measured.forest_charts(measured.ladder(steps))
    assert chart.alt.endswith("seconds per step: times as good as release-style: ours 2.00")
    assert ">times release-style (seconds per step,<" in chart.svg
    assert ">predicted)<" in chart.svg


def test_a_page_of_results(tmp_path: Path) -> None:
    absent = row("r18", "<ffcv>", [], error="not installed: pip install ffcv")
    write_result(tmp_path / "step.json", "step", [OURS, RELEASE, absent], partial=True)
    said = write_reports([tmp_path / "step.json"], tmp_path / "page.html")
    assert said == [f"{tmp_path / 'step.json'}: 3 rows of step", f"report: {tmp_path / 'page.html'}"]
    html = (tmp_path / "page.html").read_text()
    page = Page(html)
    assert ["r18", "ours", "seconds per step", "cpu", "0.5 [0.5, 0.5]", "4", ""] in page.rows
    assert ["r18", "<ffcv>", "seconds per step", "cpu", "–", "0", "not installed: pip install ffcv"] in page.rows
    assert "bingo bench step, partial: it was stopped" in page.words
    assert "2.10×" in page.text
    assert "<ffcv>" not in html
    assert read_result(tmp_path / "step.json")["partial"]
