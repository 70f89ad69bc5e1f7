"""Scaling curves as a picture: measured dots with their intervals, the straight line, a predicted band."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bingo.bench.drawing import figure
from bingo.bench.samples import ends
from bingo.bench.scaling.rows import Dot, Measured, curves
from bingo.bench.scaling.table import Band
from bingo.errors import UserError

OURS, IDEAL, BAND = "#d55e00", "#8c8c8c", "#0072b2"


def save_picture(found: Sequence[Measured], band: Band, path: Path) -> str:
    """Draw every mode's curve into an .svg; one sentence that says what was done, or why nothing was."""
    drawn = curves(found)
    if not drawn:
        return "the picture is skipped: nothing is measured yet"
    try:
        with figure(5.4 * len(drawn), 4.0) as chart:
            for number, (mode, dots) in enumerate(drawn.items(), start=1):
                _curve(chart.add_subplot(1, len(drawn), number), mode, dots, band)
            chart.savefig(path, metadata={"Date": None})
    except (UserError, OSError) as error:  # matplotlib is missing; the disk is full
        return f"the picture is skipped: {error}"
    return f"picture: {path}"


def of_mode(mode: str, first: Dot, band: Band) -> dict[int, tuple[float, float]]:
    """Ranks -> what is predicted of a mode's curve, also of more ranks than were measured."""
    point = first.measured.point
    same = {"weak": lambda ranks, batch: batch == point.batch,
            "strong": lambda ranks, batch: ranks * batch == point.ranks * point.batch}[mode]  # fmt: skip
    return {ranks: bounds for (ranks, batch), bounds in band.items() if same(ranks, batch)}


def _curve(axes: Any, mode: str, dots: Sequence[Dot], band: Band) -> None:
    ranks = [dot.measured.point.ranks for dot in dots]
    estimates = [dot.rate for dot in dots]
    medians = [estimate["median"] for estimate in estimates]
    if within := of_mode(mode, dots[0], band):
        at = sorted(within)
        low, high = ([within[n][side] for n in at] for side in (0, 1))
        axes.fill_between(at, low, high, color=BAND, alpha=0.2, lw=0)
        axes.plot(
            at, [(a + b) / 2 for a, b in zip(low, high, strict=True)], "o-", color=BAND, ms=3, lw=1, label="predicted"
        )
    axes.plot(ranks, [medians[0] * n / ranks[0] for n in ranks], "--", color=IDEAL, lw=1, label="as the first dot")
    bounds = [ends(estimate) for estimate in estimates]
    errors = [[m - b[0] for m, b in zip(medians, bounds, strict=True)],
              [b[1] - m for m, b in zip(medians, bounds, strict=True)]]  # fmt: skip
    axes.errorbar(ranks, medians, errors, fmt="o-", color=OURS, ms=6, lw=1.2, label="measured, 95 % interval")
    for dot, rank, median in zip(dots, ranks, medians, strict=True):
        text = f"{100 * dot.efficiency['median']:.0f} %"
        axes.annotate(text, (rank, median), (6, -12), textcoords="offset points", fontsize=9)
    axes.set(xscale="log", xlabel="ranks", ylabel="images per second", title=f"{mode} scaling", ylim=(0, None))
    ticks = sorted({*ranks, *within})
    axes.set_xticks(ticks, [str(rank) for rank in ticks])
    axes.set_xticks([], minor=True)
    axes.legend(loc="upper left", fontsize=9)
