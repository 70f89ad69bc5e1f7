"""The kernel benchmark as a picture: a roofline with a dot per variant, and bars with intervals."""

import math
from pathlib import Path
from typing import Any

from bingo.bench.drawing import figure
from bingo.bench.kernels.record import Case, CpuResult, GpuResult, Roof, Row
from bingo.bench.kernels.tables import timed_rows
from bingo.bench.kernels.workload import LOSS

COLOURS = {
    "ours": "#d55e00",
    "ours fp32": "#f5b48a",
    "ours chunked": "#e69f00",
    "products": "#222222",
    "attention": "#0072b2",
    "fused": "#009e73",
    "filtered": "#8fd0b8",
    "naive": "#8c8c8c",
}
LABELS = {
    "ours": "ours",
    "ours fp32": "ours, fp32",
    "ours chunked": "ours, plain PyTorch",
    "products": "matrix products alone",
    "attention": "attention libraries",
    "fused": "fused cross-entropy",
    "filtered": "fused, small gradients dropped",
    "naive": "logits in memory",
}
COLUMN = 0.2  # decades of intensity over which the dots of one case are spread, which all have the same


def save_picture(result: CpuResult | GpuResult, path: Path) -> str:
    """Draw what `run` or `run_gpu` returned into an .svg or .png; one sentence that says what was done.

    Without matplotlib nothing is drawn, and the sentence says so.
    """
    try:
        with figure(12, 3.0 if result["kind"] == "cpu" else _height(result)) as chart:
            if result["kind"] == "cpu":
                _cpu(chart, result)
            else:
                _gpu(chart, result)
            _settle(chart)
            chart.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (ValueError, OSError) as error:  # matplotlib is missing; the disk is full
        return f"the picture is skipped: {error}"
    return f"picture: {path}"


def _settle(chart: Any) -> None:
    """Lay out once and round: the layout's last digits vary from run to run, and names in an SVG are hashes of them."""
    chart.draw_without_rendering()
    chart.set_layout_engine("none")
    for axes in chart.axes:
        axes.set_position([round(float(part), 4) for part in axes.get_position().bounds])


def loss_cases(result: GpuResult) -> list[Case]:
    return [case for case in result["cases"] if case["task"] == LOSS and timed_rows(case)]


def _bar_rows(result: GpuResult) -> list[list[Case]]:
    cases = loss_cases(result)
    return [cases[i : i + 2] for i in range(0, len(cases), 2)]


def _height(result: GpuResult) -> float:
    return 4.6 + sum(_panel_height(pair) for pair in _bar_rows(result))


def _panel_height(pair: list[Case]) -> float:
    return 1.1 + 0.27 * max(len(timed_rows(case)) for case in pair)


def _gpu(chart: Any, result: GpuResult) -> None:
    pairs = _bar_rows(result)
    grid = chart.add_gridspec(1 + len(pairs), 2, height_ratios=[4.6, *(_panel_height(pair) for pair in pairs)])
    _roofline(chart.add_subplot(grid[0, :]), result)
    for line, pair in enumerate(pairs, start=1):
        for column, case in enumerate(pair):
            _bars(chart.add_subplot(grid[line, column]), case)
    _legend(chart, result)
    device, shape = result["device"], result["shape"]
    chart.suptitle(
        f"loss + gradient, K={shape['queue']} C={shape['dim']} M={shape['positives']} t={shape['temperature']}, "
        f"{device['name']}, torch {device['torch']}, Triton {device['triton']}",
        x=0.01, ha="left", weight="bold",
    )  # fmt: skip


def _roofline(axes: Any, result: GpuResult) -> None:
    """TFLOP/s of the matrix products against operations per byte, if each input is read once and the output written."""
    cases = loss_cases(result)
    for case in cases:
        rows = timed_rows(case)
        x = case["flops"] / case["least_bytes"]
        for i, row in enumerate(rows):
            at = x * 10 ** (COLUMN * ((i + 0.5) / len(rows) - 0.5))
            low, y, high = (case["flops"] / t / 1e12 for t in (_whiskers(row)[1], row["median_s"], _whiskers(row)[0]))
            axes.errorbar(at, y, [[y - low], [high - y]], fmt="o", ms=7, color=COLOURS[row["group"]], mec="white",
                          mew=0.6, lw=1)  # fmt: skip
        axes.annotate(_column_text(case), (x, 0), (0, 4), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="center", color="#444444", fontsize=9)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="operations per byte that must move", ylabel="TFLOP/s")
    _plain_ticks(axes.yaxis)
    _plain_ticks(axes.xaxis)
    if result["roof"]:
        _ceilings(axes, result["roof"], [case["flops"] / case["least_bytes"] for case in cases])
    axes.set_title(
        "roofline: each variant a dot, spread out within a size, fastest on the left; ceilings measured in this run",
        loc="left",
    )


def _column_text(case: Case) -> str:
    """The size, and our fastest kernel's share of the roof."""
    ours = next((row for row in timed_rows(case) if row["group"] == "ours" and "share_of_roof" in row), None)
    return f"R={case['rows']}" + (f"\nours {100 * ours['share_of_roof']:.0f} %" if ours else "")


def _legend(chart: Any, result: GpuResult) -> None:
    from matplotlib.lines import Line2D

    groups = {row["group"] for case in loss_cases(result) for row in timed_rows(case)}
    dots = [
        Line2D([], [], marker="o", ls="", ms=7, color=COLOURS[group], label=label)
        for group, label in LABELS.items()
        if group in groups
    ]
    chart.legend(handles=dots, loc="outside lower center", ncols=4)


def _ceilings(axes: Any, roof: Roof, intensities: list[float]) -> None:
    top, slope = roof["matmul_flops"] / 1e12, roof["copy_bytes"] / 1e12
    ridge = top / slope
    left, right = min(ridge / 2, min(intensities) / 3), max(intensities) * 2
    axes.plot([left, ridge, right], [left * slope, top, top], color="#222222", lw=1.4)
    axes.annotate(f"bf16 products {top:.0f} TFLOP/s", (right, top), (0, 4), textcoords="offset points", ha="right")
    axes.annotate(f"memory {slope:.2f} TB/s", (left, left * slope), (6, -14), textcoords="offset points", va="center")
    axes.set_xlim(left, right)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2.5, max(high, 2 * top))  # room for the sizes below and the ceiling's name above


def _bars(axes: Any, case: Case) -> None:
    """Time per call, fastest on top, on a logarithmic axis, with the floor as a dashed line."""
    rows = timed_rows(case)[::-1]
    for y, row in enumerate(rows):
        value, (low, high) = 1e6 * row["median_s"], (1e6 * bound for bound in _whiskers(row))
        axes.barh(y, value, 0.66, color=COLOURS[row["group"]], alpha=0.85)
        axes.errorbar(
            value, y, xerr=[[max(value - low, 0)], [max(high - value, 0)]], color="#222222", capsize=2.5, lw=1
        )
        axes.annotate(_short(value), (max(value, high), y), (5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=9)
    axes.grid(axis="y", visible=False)
    times = [1e6 * row["median_s"] for row in rows]
    floor = 1e6 * case.get("floor_s", min(row["median_s"] for row in rows))
    axes.set(xscale="log", xlim=(min(floor, *times) / 1.6, max(times) * 3), xlabel="µs per call")
    _plain_ticks(axes.xaxis)
    if "floor_s" in case:
        axes.axvline(floor, color="#222222", ls="--", lw=1)
    axes.set_title(f"R={case['rows']}" + (f", floor {floor:.1f} µs (dashed)" if "floor_s" in case else ""), loc="left")


def _whiskers(row: Row) -> list[float]:
    """Where they end: at the median itself where there are too few samples for an interval."""
    return row.get("interval_s", [row["median_s"]] * 2)


def _name(row: Row) -> str:
    return f"{row['variant']} [{row['option']}]" if "option" in row else row["variant"]


def _short(value: float) -> str:
    """Three digits: 9.87, 51.3, 1 240."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{digits}f}".replace(",", " ")


def _plain_ticks(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _cpu(chart: Any, result: CpuResult) -> None:
    left, right = chart.subplots(1, 2)
    names = list(result["seconds"])
    for y, name in enumerate(names):
        value, (low, high) = (
            result["median_seconds"][name],
            result["interval_seconds"].get(name) or [result["median_seconds"][name]] * 2,
        )
        colour = COLOURS["naive" if name == "naive" else "ours chunked"]
        left.barh(y, value, 0.6, color=colour)
        left.errorbar(value, y, xerr=[[value - low], [high - value]], color="#222222", capsize=4, lw=1.2)
        left.annotate(f"{value:.3g} s", (high, y), (6, 0), textcoords="offset points", va="center")
        extra = result["extra_bytes"][name]
        right.barh(y, (extra or 0) / 1e6, 0.6, color=colour)
        text = "not measured" if extra is None else f"{extra / 1e6:.0f} MB"
        right.annotate(text, ((extra or 0) / 1e6, y), (6, 0), textcoords="offset points", va="center")
    for axes, title in (
        (left, f"seconds, median of {len(result['seconds']['naive'])} [95 %]"),
        (right, "extra memory, MB"),
    ):
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.2)
        axes.set_title(title, loc="left")
    shape = result["shape"]
    chart.suptitle(
        f"loss + gradient, R={shape['rows']} K={shape['queue']} C={shape['dim']} M={shape['positives']} "
        f"{shape['dtype']}, {result['cpu']}, {result['threads']} thread(s)",
        x=0.01, ha="left", weight="bold",
    )  # fmt: skip
