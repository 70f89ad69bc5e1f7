"""Charts of a report: narrow panels that stand side by side on a desk and below each other on a phone.

Every panel is laid out for `WIDTH` inches, so its text stays legible at the width of a phone. Rows have their names
above them, where there is room for any name.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bingo.bench.drawing import GRID, INK, PAGE, SOFT, figure, svg_text

WIDTH = 4.0
ROW = 0.47
"""Inches of a row with its name."""
COLOURS = ("#2f81d8", "#d97706", "#1f9d63", "#c2529f", "#808080", "#1a9bb5", "#d1495b", "#8b72d6")
"""Each stands out on white and on black, three to one at least."""
RED = "#d1495b"
BELOW = 0.24
"""Of a row: how far below its name its dots and bars lie."""
MOST_NAME = 40
MOST_POINTS = 400
NARROW = 5.0
"""A logarithmic axis over less than such a ratio has its numbers at equal distances, as a linear one."""
TITLE = 42
"""Letters of a line of a title."""


@dataclass(frozen=True)
class Chart:
    """An `<svg>` element, and the same in words."""

    svg: str
    alt: str


@dataclass(frozen=True)
class Dot:
    """A row: a value with its interval, text beside it, and the single values that it is the mean of."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    points: Sequence[float] = ()
    colour: str = COLOURS[0]
    text: str = ""


@dataclass(frozen=True)
class Line:
    """A curve; thin: the same of each seed; band: low and high at every x; dots: drawn with a dot at every point."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str
    thin: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    band: tuple[np.ndarray, np.ndarray] | None = None
    dots: bool = False
    style: str = "-"


@dataclass(frozen=True)
class Span:
    """A piece of a row of a time line: from, to, what it is."""

    start: float
    end: float
    kind: str


@dataclass(frozen=True)
class Bar:
    """A row of a time line: its pieces, marks (place, text) and what stands at its right end."""

    name: str
    spans: Sequence[Span]
    marks: Sequence[tuple[float, str]] = ()
    text: str = ""
    colours: Mapping[str, str] = field(default_factory=dict)


def short(name: str, most: int = MOST_NAME) -> str:
    """A name that fits above its row; the middle is left out, since names differ at both ends."""
    keep = (most - 1) // 2
    return name if len(name) <= most else f"{name[:keep]}…{name[-keep:]}"


def dots(title: str, rows: Sequence[Dot], alt: str, *, label: str = "", band: float = 0.0, at: float | None = None,
         logarithmic: bool = False) -> Chart:  # fmt: skip
    """Values with intervals on an axis that shows their range, not zero.

    at: a line to compare with; band: the noise around it, a share of it on a logarithmic axis.
    """
    with figure(WIDTH, 0.85 + ROW * len(rows) + (0.15 if label else 0)) as chart:
        draw_dots(chart.subplots(), title, rows, label=label, band=band, at=at, logarithmic=logarithmic)
        return Chart(svg_text(chart, alt), alt)


def draw_dots(axes: Any, title: str, rows: Sequence[Dot], *, label: str = "", band: float = 0.0,
              at: float | None = None, logarithmic: bool = False) -> None:  # fmt: skip
    """What `dots` says, on axes of a figure."""
    if at is not None:
        axes.axvspan(at / (1 + band) if logarithmic else at - band, at + band * (at if logarithmic else 1),
                     color=SOFT, alpha=0.18, lw=0)  # fmt: skip
        axes.axvline(at, color=SOFT, lw=1)
    for y, row in enumerate(reversed(rows)):
        _dot(axes, y, row)
    ends = [x for row in rows for x in (row.value, *(row.interval or ()), *row.points)]
    axes.set_xscale("log" if logarithmic else "linear")
    axes.set_xlim(*_limits([*ends, *([] if at is None else [at])], logarithmic))
    _rows(axes, [row.name for row in rows])
    _label(axes, label)
    _plain(axes.xaxis)
    _title(axes, title)


def _dot(axes: Any, y: float, row: Dot) -> None:
    low = y - BELOW
    if row.interval:
        axes.plot(row.interval, (low, low), color=row.colour, lw=2.2, solid_capstyle="butt")
    axes.plot(row.points, [low] * len(row.points), "o", ms=4, color="none", mec=row.colour, mew=0.9, alpha=0.8)
    axes.plot([row.value], [low], "o", ms=7.5, color=row.colour, mec=PAGE, mew=1)
    axes.annotate(row.text or f"{row.value:.1f}", (1, y), (0, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", fontsize=9, weight="bold")  # fmt: skip


def _title(axes: Any, title: str) -> None:
    """Above the panel, in as many lines as it takes; the panel grows with it."""
    text = textwrap.wrap(title, TITLE) or [""]
    axes.set_title("\n".join(text), loc="left", fontsize=10.5, weight="bold")
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.17 * (len(text) - 1))


def _label(axes: Any, label: str) -> None:
    """Below the panel, in as many lines as it takes."""
    text = textwrap.wrap(label, TITLE)
    axes.set_xlabel("\n".join(text), fontsize=9.5)
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.16 * max(len(text) - 1, 0))


def _limits(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if logarithmic:
        room = max((high / low) ** 0.08, 1.02)
        return low / room, high * room
    room = 0.08 * (high - low) or max(abs(high) * 0.02, 0.5)
    return low - room, high + room


def _rows(axes: Any, names: Sequence[str]) -> None:
    """A name above each row, from the top."""
    for y, name in enumerate(reversed(names)):
        axes.annotate(short(name), (0, y), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                      fontsize=9, color=INK)  # fmt: skip
    axes.set_ylim(-0.6, len(names) - 0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _plain(axis: Any) -> None:
    """Numbers as people write them, on logarithmic axes too."""
    axis.set_major_formatter(lambda value, _: number(value))
    if axis.get_scale() == "log":
        from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

        low, high = axis.get_view_interval()
        narrow = high < NARROW * low
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]) if narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_locator(NullLocator())


def number(value: float) -> str:
    """`1.2M`, `61k`, `0.015`."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def lines(title: str, curves: Sequence[Line], alt: str, *, label: str = "", across: Mapping[str, float] | None = None,
          log_x: bool = False, log_y: bool = False) -> Chart:  # fmt: skip
    """Curves over a common x. across: name -> a height at which a dashed line goes across."""
    with figure(WIDTH, 3.1) as chart:
        axes = chart.subplots()
        for curve in curves:
            _line(axes, curve)
        for name, height in (across or {}).items():
            axes.axhline(height, color=INK, ls="--", lw=1, label=short(name, 24))
        axes.set_xscale("log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        _label(axes, label)
        _title(axes, title)
        handles, names = axes.get_legend_handles_labels()
        if len(handles) > 1:
            columns = 2 if all(len(name) <= 22 for name in names) else 1
            chart.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9)
            chart.set_figheight(chart.get_figheight() + 0.19 * -(-len(names) // columns))
        return Chart(svg_text(chart, alt), alt)


def _line(axes: Any, curve: Line) -> None:
    for x, y in curve.thin:
        keep = thinned(len(x))
        axes.plot(x[keep], y[keep], lw=0.7, alpha=0.45, color=curve.colour)
    keep = thinned(len(curve.x))
    x = curve.x[keep]
    if curve.band is not None:
        axes.fill_between(x, curve.band[0][keep], curve.band[1][keep], color=curve.colour, alpha=0.18, lw=0)
    marks = {"marker": "o", "ms": 4} if curve.dots else {}
    axes.plot(x, curve.y[keep], ls=curve.style, lw=1.8, color=curve.colour, label=short(curve.name, 30), **marks)


def thinned(count: int) -> np.ndarray:
    """The places of at most `MOST_POINTS` of so many points, the ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int)) if count else np.arange(0)


def timeline(title: str, bars: Sequence[Bar], colours: Mapping[str, str], alt: str, *, label: str,
             ticks: Callable[[float], str] = number) -> Chart:  # fmt: skip
    """Rows of pieces along a common axis that begins at zero; marks are red, their text stands beside them.

    colours: kind of piece -> its colour, in the order of the legend; only kinds that occur are in it.
    """
    kinds = [kind for kind in colours if any(span.kind == kind for bar in bars for span in bar.spans)]
    legend = -(-len(kinds) // 2)
    with figure(WIDTH, 0.95 + ROW * len(bars) + 0.2 * legend) as chart:
        axes = chart.subplots()
        for y, bar in enumerate(reversed(bars)):
            for span in bar.spans:
                axes.barh(y - BELOW, span.end - span.start, 0.36, left=span.start, color=colours[span.kind], ec=PAGE,
                          lw=0.4)  # fmt: skip
            for place, _ in bar.marks:
                axes.plot([place], [y - BELOW], "X", ms=8, color=RED, mec=PAGE, mew=0.8)
            axes.annotate(bar.text, (1, y), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                          ha="right", fontsize=8.5)  # fmt: skip
        _rows(axes, [bar.name for bar in bars])
        axes.set_xlim(0, 1.02 * max((span.end for bar in bars for span in bar.spans), default=1.0) or 1.0)
        axes.xaxis.set_major_formatter(lambda value, _: ticks(value))
        _label(axes, label)
        _title(axes, title)
        from matplotlib.patches import Patch

        handles = [Patch(color=colours[kind], label=kind) for kind in kinds]
        chart.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
        return Chart(svg_text(chart, alt), alt)


def heat_map(title: str, names: Sequence[str], shares: np.ndarray, alt: str) -> Chart:
    """Shares (0..1) of pairs as a square table of percents."""
    with figure(WIDTH, 3.1) as chart:
        axes = chart.subplots()
        for (row, column), share in np.ndenumerate(shares):
            axes.add_patch(_square(column - 0.5, row - 0.5, share))
            axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center")
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xticks(range(len(names)), [short(name, 16) for name in names])
        axes.set_yticks(range(len(names)), [short(name, 16) for name in names])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        _title(axes, title)
        return Chart(svg_text(chart, alt), alt)


def _square(x: float, y: float, share: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=COLOURS[0], alpha=0.08 + 0.5 * float(share), edgecolor=GRID)


def roofline(title: str, points: Sequence[tuple[str, float, float, str]], roofs: Sequence[tuple[str, float, float]],
             alt: str) -> Chart:  # fmt: skip
    """FLOP/s against FLOP per byte: (name, intensity, rate, colour) per point.

    roofs: (name, FLOP/s, bytes/s) per ceiling.
    """
    with figure(WIDTH, 3.6) as chart:
        axes = chart.subplots()
        ridges = [flops / copied for _, flops, copied in roofs]
        xs = [x for _, x, _, _ in points] + ridges
        low, high = min(xs) / 4, max(xs) * 4
        for name, flops, copied in roofs:
            across = np.array([low, flops / copied, high])
            axes.plot(across, np.minimum(flops, across * copied), color=INK, lw=1.2)
            axes.annotate(name, (high, flops), (-2, 3), textcoords="offset points", ha="right", fontsize=8.5)
        for name, x, y, colour in points:
            axes.plot([x], [y], "o", ms=7, color=colour, mec=PAGE, mew=0.8, label=short(name, 34))
        axes.set(xscale="log", yscale="log", xlabel="FLOP per byte that must move", xlim=(low, high))
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        _title(axes, title)
        handles, names = axes.get_legend_handles_labels()
        if handles:
            chart.legend(handles, names, loc="outside lower center", ncols=1, fontsize=9)
            chart.set_figheight(chart.get_figheight() - 0.3 + 0.19 * len(names))
        return Chart(svg_text(chart, alt), alt)
