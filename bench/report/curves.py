"""What metrics.jsonl says of a training, as curves: of a recipe's students, and of runs of the user's own."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bingo.bench.report.charts import COLOURS, Chart, Line, lines
from bingo.train.lines import read_lines

WINDOWS = 50
"""A loss is shown as a moving average over this share of its steps; speed is that of as many pieces of the run."""
Series = tuple[np.ndarray, np.ndarray]
"""x in images through the student, and as many values."""


class Panel(NamedTuple):
    """A quantity: its title, what its values are multiplied with, whether it is smoothed or has a dot per value."""

    title: str
    scale: float = 1.0
    smooth: bool = False
    dots: bool = False


PANELS = {
    "loss": Panel("training loss", smooth=True),
    "knn": Panel("kNN accuracy while training, %", 100, dots=True),
    "rankme": Panel("RankMe of the features", dots=True),
    "teacher_agreement": Panel("same nearest neighbour as by the teacher, %", 100, dots=True),
    "top1": Panel("own key nearest (top-1), %", 100),
    "top5": Panel("own key among the 5 nearest (top-5), %", 100),
    "accuracy": Panel("classifier's accuracy, %", 100, dots=True),
    "lr": Panel("learning rate"),
    "images_per_second": Panel("images per second"),
    "loader_wait": Panel("time spent waiting for the loader, %", 100),
    "gpu_peak_gib": Panel("GPU memory at its peak, GiB"),
}
"""Quantity -> how it is shown. Those that a run does not have make no panel."""
KEYS = ("loss", "top1", "top5", "lr", "images_per_second", "loader_wait", "gpu_peak_gib")
"""Quantities that stand under their own names in lines of steps."""
JUDGED = ("knn", "rankme", "teacher_agreement")
"""The same in lines of evaluations."""


@dataclass(frozen=True)
class Curve:
    """One training run: quantity (of `PANELS`) -> its values over the run."""

    series: Mapping[str, Series]

    @property
    def steps(self) -> int:
        """Of the loss."""
        return len(self.series["loss"][0]) if "loss" in self.series else 0


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone, drawn as one curve."""

    name: str
    colour: str
    curves: Sequence[Curve]


def read_curve(path: Path, per_step: float, batch: int) -> Curve:
    """A metrics.jsonl. per_step: whole views through the student per step; batch: images of a step."""
    found = read_lines(path)
    train = [line for line in found if line["kind"] == "train"]
    series = {name: _series([line for line in train if is_number(line.get(name))], name, per_step, 1) for name in KEYS}
    evaluations = [line for line in found if line["kind"] == "eval"]
    for name in JUDGED:
        series[name] = _series([line for line in evaluations if is_number(line.get(name))], name, per_step, 0)
    series["accuracy"] = _series([line for line in found if line["kind"] == "accuracy"], "top1", per_step, 0)
    if not len(series["images_per_second"][0]):
        series["images_per_second"] = _speed(train, per_step, batch)
    return Curve({name: values for name, values in series.items() if len(values[0])})


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and np.isfinite(value)


def _series(found: Sequence[Mapping[str, Any]], name: str, per_step: float, done: int) -> Series:
    """done: steps done beyond the number that the line has."""
    x = per_step * np.array([line["step"] + done for line in found], dtype=float)
    return x, np.array([line[name] for line in found], dtype=float)


def _speed(train: Sequence[Mapping[str, Any]], per_step: float, batch: int) -> Series:
    """Images per second between the ends of pieces of the run, from the times of its lines."""
    timed = [line for line in train if is_number(line.get("time"))]
    ends = timed[:: max(1, len(timed) // WINDOWS)]
    pieces = [(a, b) for a, b in itertools.pairwise(ends) if b["time"] > a["time"] and b["step"] > a["step"]]
    x = per_step * np.array([b["step"] + 1 for _, b in pieces], dtype=float)
    return x, np.array([batch * (b["step"] - a["step"]) / (b["time"] - a["time"]) for a, b in pieces])


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving average; at the ends over the values there are."""
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def smoothing(steps: int) -> int:
    """Steps of the moving average over a loss curve: a fiftieth of the run."""
    return max(1, steps // WINDOWS)


def windows(groups: Sequence[Group]) -> list[int]:
    """The lengths of the moving averages that the curves of these groups are drawn with."""
    return sorted({smoothing(curve.steps) for group in groups for curve in group.curves if curve.steps})


def panels(groups: Sequence[Group], across: Mapping[str, Mapping[str, float]] | None = None) -> list[Chart]:
    """A panel per quantity that any of the groups has. across: quantity -> name -> a height for a dashed line."""
    charts = []
    for name, panel in PANELS.items():
        drawn = [line for group in groups if (line := _line(name, panel, group)) is not None]
        if drawn:
            heights = {what: panel.scale * height for what, height in (across or {}).get(name, {}).items()}
            words = ", ".join(f"{line.name} ends at {line.y[-1]:.4g}" for line in drawn)
            charts.append(lines(panel.title, drawn, f"{panel.title}: {words}", label="images through the student",
                                across=heights))  # fmt: skip
    return charts


def _line(name: str, panel: Panel, group: Group) -> Line | None:
    """The mean over the seeds at the points that all of them have, and each seed."""
    found = [curve.series[name] for curve in group.curves if name in curve.series]
    if not found:
        return None
    ready = [(x, panel.scale * (smooth(y, smoothing(len(y))) if panel.smooth else y)) for x, y in found]
    common = set.intersection(*(set(x.tolist()) for x, _ in ready))
    if not common:
        return Line(group.name, *ready[0], group.colour, ready[1:], dots=panel.dots)
    keep = [(x[mask], y[mask]) for x, y in ready for mask in [np.isin(x, list(common))]]
    mean = np.mean([y for _, y in keep], axis=0)
    thin = ready if len(ready) > 1 else []
    return Line(group.name, keep[0][0], mean, group.colour, thin, dots=panel.dots)


def colours(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]
