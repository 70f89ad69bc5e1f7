"""Trainings of the user's own as a part of a report: side by side, seeds of one setting as a group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from bingo.bench.report.charts import Chart, number
from bingo.bench.report.contents import SettingRow
from bingo.bench.report.curves import Curve, Group, colours, panels, read_curve, windows
from bingo.bench.report.results import student_views
from bingo.bench.report.statistics import Difference, paired
from bingo.bench.report.summary import mean_interval, spread
from bingo.config_json import from_json, to_json, values_in
from bingo.errors import UserError
from bingo.files import METRICS, RECORD, hash_json, read_object, read_sealed
from bingo.inputs import CONFIG, kind_of, read_config
from bingo.stages import KINDS

SHOWN = {"knn": "kNN, %", "accuracy": "classifier, %", "top1": "top-1, %"}
"""Quantity -> its column: at the end of the run."""
TRAININGS = ("pretrain", "distill", "eval")


@dataclass(frozen=True)
class Training:
    """A run folder. settings: dotted, without its own place and seed; seconds: None while it is not finished."""

    out: Path
    kind: str
    seed: int | None
    settings: Mapping[str, Any]
    curve: Curve
    seconds: float | None

    def last(self, quantity: str) -> float | None:
        """The newest value of a quantity."""
        return float(self.curve.series[quantity][1][-1]) if quantity in self.curve.series else None

    def middle(self, quantity: str) -> float | None:
        """The median over the run."""
        return float(np.median(self.curve.series[quantity][1])) if quantity in self.curve.series else None


class RunRow(TypedDict):
    """A group: its runs, values as text."""

    name: str
    n: int
    steps: str
    values: list[str]
    speed: str
    wait: str
    state: str


class PairRow(TypedDict):
    """A group against the first; found: a difference per column, None where it has none."""

    name: str
    found: list[Difference | None]


class Runs(TypedDict):
    """Everything the template shows. columns: names of the values."""

    curves: list[Chart]
    windows: list[int]
    columns: list[str]
    rows: list[RunRow]
    pairs: list[PairRow]
    names: list[str]
    settings: list[SettingRow]


def read_training(out: Path) -> Training:
    """A run folder, finished or not; `UserError` where it holds no training."""
    if not (out / METRICS).exists():
        raise UserError(f"{out} has no {METRICS}: no training has begun there; give the --out of a training")
    kind = kind_of(out) or read_object(out / CONFIG).get("kind")
    if kind not in TRAININGS:
        raise UserError(f"{out / CONFIG} does not say which training this is; give the --out of a training")
    cls, path = KINDS[kind].config, out / CONFIG
    config = to_json(from_json(cls, values_in(cls, read_config(path)), str(path)))
    batch = (config.get("optim") or {}).get("batch") or config.get("linear_batch") or 1
    record = read_sealed(out / RECORD) if (out / RECORD).exists() else {}
    settings = {"kind": kind, **flatten({k: v for k, v in config.items() if k not in ("out", "seed")})}
    curve = read_curve(out / METRICS, batch * student_views(kind, config), batch)
    return Training(out, kind, config.get("seed"), settings, curve, record.get("seconds"))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; the student's `model` of a pre-training is called `student`, as in distilling."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found["student" if prefix + name == "model" else prefix + name] = value
    return found


def grouped(trainings: Sequence[Training]) -> dict[str, list[Training]]:
    """Name -> runs of one setting that differ in their seeds, in the order given."""
    found: dict[str, list[Training]] = {}
    for training in trainings:
        key = hash_json({name: value for name, value in training.settings.items() if not name.startswith("runtime.")})
        again = any(other.seed == training.seed for other in found.get(key, ()))
        found.setdefault(f"{key} {training.out}" if again else key, []).append(training)
    named = {}
    for group, name in zip(found.values(), names_of(list(found.values())), strict=True):
        named[name] = group
    return named


def names_of(groups: Sequence[Sequence[Training]]) -> list[str]:
    """The folder of the first run of each group, with as much of what is above it as tells them apart."""
    paths = [group[0].out.absolute() for group in groups]
    for depth in range(1, 8):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return [name if len(group) == 1 else f"{name} and seeds" for name, group in zip(names, groups, strict=True)]


def content(trainings: Sequence[Training]) -> Runs:
    """Everything the template shows."""
    groups = grouped(trainings)
    drawn = [
        Group(name, colour, [training.curve for training in group])
        for (name, group), colour in zip(groups.items(), colours(len(groups)), strict=True)
    ]
    columns = [q for q in SHOWN if any(t.last(q) is not None for t in trainings)]
    return {
        "curves": panels(drawn),
        "windows": windows(drawn),
        "columns": [SHOWN[quantity] for quantity in columns],
        "rows": [row_of(name, group, columns) for name, group in groups.items()],
        "pairs": pairs(groups, columns),
        "names": list(groups),
        "settings": setting_rows({name: group[0].settings for name, group in groups.items()}),
    }


def row_of(name: str, group: Sequence[Training], columns: Sequence[str]) -> RunRow:
    """Means over the runs, with intervals where there are enough of them."""
    steps = sorted({training.curve.steps for training in group})
    speeds = [speed for training in group if (speed := training.middle("images_per_second"))]
    waits = [wait for training in group if (wait := training.middle("loader_wait")) is not None]
    unfinished = sum(training.seconds is None for training in group)
    return {
        "name": name,
        "n": len(group),
        "steps": " or ".join(f"{count:,}" for count in steps),
        "values": [mean_interval(values) if (values := list(by_seed(group, q).values())) else "–" for q in columns],
        "speed": number(float(np.median(speeds))) if speeds else "–",
        "wait": f"{100 * max(waits):.1f} %" if waits else "not recorded",
        "state": f"{unfinished} not finished" if unfinished else "finished",
    }


def pairs(groups: Mapping[str, Sequence[Training]], columns: Sequence[str]) -> list[PairRow]:
    """Every group against the first, paired by seed."""
    (first, base), *others = groups.items()
    rows: list[PairRow] = []
    for name, group in others:
        found = [paired(by_seed(base, quantity), by_seed(group, quantity)) for quantity in columns]
        if any(found):
            rows.append({"name": f"{name} − {first}", "found": found})
    return rows


def by_seed(group: Sequence[Training], quantity: str) -> dict[int | None, float]:
    return {training.seed: value for training in group if (value := training.last(quantity)) is not None}


def setting_rows(columns: Mapping[str, Mapping[str, Any]]) -> list[SettingRow]:
    """Settings side by side."""
    rows: list[SettingRow] = []
    for name in dict.fromkeys(name for settings in columns.values() for name in settings):
        values = ["–" if settings.get(name) is None else str(settings[name]) for settings in columns.values()]
        rows.append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return rows


def told(runs: Runs) -> list[str]:
    """The same for a terminal: a line per group, and per difference."""
    lines = []
    for row in runs["rows"]:
        values = "  ".join(f"{name} {value}" for name, value in zip(runs["columns"], row["values"], strict=True))
        lines.append(f"{row['name']}: n = {row['n']}, {row['steps']} steps, {row['speed']} images/s  {values}".rstrip())
    for pair in runs["pairs"]:
        columns = zip(runs["columns"], pair["found"], strict=True)
        parts = [f"{name.removesuffix(', %')} {spread(found)}" for name, found in columns if found]
        lines.append(f"{pair['name']}: {'; '.join(parts)}")
    return lines
