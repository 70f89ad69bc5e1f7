"""Predictions against measurements: `bingo bench predict --score PREDICTED MEASURED...`, the error of each case."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bingo.bench.record import Row, read_result, samples_of
from bingo.errors import UserError

MODE = re.compile(r"^(weak|strong), ")
PARTS = 5  # of a case, with commas between: ranks, batch, networks, pixels, precision; what follows says where it ran


class Score(NamedTuple):
    """One case: what was predicted and the median of what was measured, in the metric's unit."""

    case: str
    variant: str
    metric: str
    predicted: float
    measured: float
    n: int

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def scores(predicted: Path, measured: Sequence[Path]) -> list[Score]:
    """Every row of the measurements that was predicted; `UserError` where none was.

    Cases are the same where networks, sizes and numbers of ranks are; a measured variant that no prediction names is
    held against the step "as asked".
    """
    rows = read_result(predicted, "predict")["rows"]
    found = [
        score
        for path in measured
        for row in read_result(path)["rows"]
        if any(row["processes"]) and (score := _score(row, rows))
    ]
    if not found:
        cases = ", ".join(sorted({row["case"] for row in rows}))
        raise UserError(
            f"nothing that {predicted} predicts was measured in {', '.join(map(str, measured))}; "
            f"it predicts {cases}: measure that case, or predict another"
        )
    return found


def _score(row: Row, predictions: Sequence[Row]) -> Score | None:
    alike = [p for p in predictions if p["metric"] == row["metric"] and _key(p["case"]) == _key(row["case"])]
    named = [p for p in alike if p["variant"] == row["variant"]] or [p for p in alike if p["variant"] == "as asked"]
    if not named:
        return None
    samples = samples_of(row)
    value = float(np.median(samples_of(named[0])))
    return Score(row["case"], row["variant"], row["metric"], value, float(np.median(samples)), len(samples))


def _key(case: str) -> tuple[str, ...]:
    return tuple(MODE.sub("", case).split(", ")[:PARTS])


def lines(found: Sequence[Score]) -> list[str]:
    """A line for each case, and the worst."""
    told = [
        f"{score.error * 100:+7.1f} %  predicted {score.predicted:.4g}, measured {score.measured:.4g} "
        f"(n={score.n})  {score.metric}: {score.case}, {score.variant}"
        for score in found
    ]
    worst = max(found, key=lambda score: abs(score.error))
    return [*told, f"largest error: {worst.error * 100:+.1f} % of {len(found)} cases"]
