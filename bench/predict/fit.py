"""What measured files say: rates of a machine from `bench roof`, stragglers and ranks from `bench scaling`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bingo.bench.predict.gpus import Machine
from bingo.bench.record import Row, read_result, samples_of
from bingo.bench.samples import LEAST, Estimate, medians_of
from bingo.errors import UserError

RATES = {
    ("bf16 products", "flops per second"): "bf16",
    ("tf32 products", "flops per second"): "tf32",
    ("fp32 products", "flops per second"): "fp32",
    ("copies", "bytes per second"): "memory",
    ("shortest kernel", "seconds"): "kernel_s",
    ("one launch", "host seconds"): "host_s",
    ("all-reduce within a node", "bytes per second"): "nvlink",
    ("all-reduce within a node", "alpha seconds"): "node_alpha_s",
    ("all-reduce between nodes", "bytes per second"): "network",
    ("all-reduce between nodes", "alpha seconds"): "network_alpha_s",
}
"""Case and metric of a row of `bench roof` -> the field of a `Machine` that it sets."""
STRAGGLER = "slowest rank over the median, less one"
CPU = "cpu seconds per step and rank"
RANKS = re.compile(r"(?:(\d+) nodes x )?(\d+) ranks")


def fitted(machine: Machine, files: Iterable[Path]) -> Machine:
    """The machine with what the files measured in place of the table's numbers. `UserError`: a file says nothing."""
    for path in files:
        rows = read_result(path)["rows"]
        found: dict[str, Any] = {
            RATES[key]: _median(row) for row in rows if (key := (row["case"], row["metric"])) in RATES
        }
        found |= _straggler(rows)
        if not found and not _by_ranks(rows):
            raise UserError(
                f"{path} has no row of a machine's rates, of stragglers or of {CPU!r}; "
                "give the --json of `bingo bench roof` or of `bingo bench scaling`"
            )
        machine = replace(machine, **{name: value for name, value in found.items() if value > 0})
    return machine


def _straggler(rows: Sequence[Row]) -> dict[str, float]:
    """The share by which one rank's step spreads, from how far the slowest of N is behind."""
    found = []
    for row in rows:
        ranks = _ranks(row["case"])
        if row["metric"] == STRAGGLER and ranks > 1 and samples_of(row):
            found.append(_median(row) / np.sqrt(2 * np.log(ranks)))
    return {"straggler": float(np.median(found))} if found else {}


def _median(row: Row) -> float:
    return float(np.median(samples_of(row) or [0.0]))


def _ranks(case: str) -> int:
    found = RANKS.search(case)
    return int(found[1] or 1) * int(found[2]) if found else 0


def _by_ranks(rows: Iterable[Row]) -> dict[str, dict[int, list[float]]]:
    """Case without its number of ranks -> ranks -> samples of CPU seconds, the mean of the ranks of each turn."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row["metric"] == CPU and (ranks := _ranks(row["case"])) and any(row["processes"]):
            rest = RANKS.sub("N ranks", row["case"])
            found.setdefault(rest, {})[ranks] = samples_of(row)
    return found


@dataclass(frozen=True)
class RanksPrediction:
    """CPU seconds per step and rank with `ranks` ranks; measured: None where the file has no such row."""

    case: str
    ranks: int
    predicted: Estimate
    measured: Estimate | None

    @property
    def error(self) -> float | None:
        return None if self.measured is None else self.predicted["median"] / self.measured["median"] - 1


def more_ranks(files: Iterable[Path], ranks: Sequence[int]) -> list[RanksPrediction]:
    """CPU time of more ranks from that of 1 and 2, for every case of weak scaling in the files.

    A ring of N ranks has each of them send and add up 2 (N - 1) / N times the gradients, so what a second rank costs
    the first grows to 1.5 times that with four. `UserError` where 1 and 2 ranks were not measured.
    """
    found = [
        _prediction(case, samples, count)
        for path in files
        for case, samples in _by_ranks(read_result(path)["rows"]).items()
        if {1, 2} <= samples.keys()
        for count in ranks
    ]
    if not found:
        raise UserError(
            f"--ranks asks for files with {CPU!r} of 1 and of 2 ranks at the same batch per rank; "
            "measure them: bingo bench scaling --local 1,2 --mode weak --out DIR, and give its JSON to --fit"
        )
    return found


def _prediction(case: str, samples: Mapping[int, list[float]], ranks: int) -> RanksPrediction:
    one, two = medians_of(samples[1], 1), medians_of(samples[2], 2)
    grown = 2 * (ranks - 1) / ranks
    predicted = one + grown * (two - one)
    median = float(np.median(samples[1]) + grown * (np.median(samples[2]) - np.median(samples[1])))
    measured = samples.get(ranks)
    seen = None if measured is None else _estimate(float(np.median(measured)), medians_of(measured, 3), len(measured))
    count = min(len(samples[1]), len(samples[2]))
    return RanksPrediction(case, ranks, _estimate(median, predicted, count), seen)


def _estimate(median: float, medians: np.ndarray, count: int) -> Estimate:
    low, high = np.percentile(medians, [2.5, 97.5]).tolist()
    return {"median": median, "interval": [low, high] if count >= LEAST else None, "n": count}
