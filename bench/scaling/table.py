"""The result of `bingo bench scaling` as text, and predictions that are drawn beside it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bingo.bench.record import read_result, samples_of
from bingo.bench.samples import shown
from bingo.bench.scaling.rows import (
    CPU,
    EXPOSED,
    LOADER,
    RATE,
    SHARED,
    STRAGGLER,
    Dot,
    Measured,
    curves,
    estimate,
    shares_cores,
)
from bingo.errors import UserError

Band = Mapping[tuple[int, int], tuple[float, float]]
"""(Ranks, images per rank) -> lowest and highest images per second that are predicted."""
CASE = re.compile(r"(?:(\d+) nodes x )?(\d+) ranks, (\d+) per rank, (.*)")


def lines(found: Sequence[Measured]) -> list[str]:
    """For each mode a table: medians with their 95 % intervals."""
    told = []
    for mode, dots in curves(found).items():
        loads = dots[0].measured.point.stages[0].config.data is not None
        told += ["", f"{mode} scaling: {dots[0].measured.point.case.split(', ', 2)[2]}"]
        told += _columns([_head(loads), *(_line(dot, loads) for dot in dots)])
    if any(shares_cores(measured) for measured in found):
        told += ["", SHARED]
    for measured in found:
        told += [f"{measured.point.size}, {measured.point.batch} per rank: {problem}" for problem in measured.problems]
    return told


def _head(loads: bool) -> list[str]:
    head = ["ranks", "per rank", "images/s", "efficiency", "CPU ms per step"]
    return [*head, *["loader wait, %"] * loads, "exposed messages, %", "slowest rank, +%", "n"]


def _line(dot: Dot, loads: bool) -> list[str]:
    found, point = dot.measured, dot.measured.point
    shares = [LOADER] * loads + [EXPOSED, STRAGGLER]
    return [
        point.size.removesuffix(" ranks"), str(point.batch), shown(dot.rate), shown(dot.efficiency),
        shown(estimate(found, CPU), 1000), *(shown(estimate(found, name), 100) for name in shares),
        f"{dot.rate['n']} of {len(found.jobs)} job{'s' * (len(found.jobs) > 1)}",
    ]  # fmt: skip


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def predicted(paths: Iterable[Path], step: str) -> Band:
    """What results of `bingo bench predict` say of the measured step (`resnet18 from resnet50, 224 px`).

    `UserError` for a file that predicts nothing of it for any number of ranks.
    """
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for path in paths:
        rows = [row for row in read_result(path, "predict")["rows"] if row["metric"] == RATE]
        mine = [(size, samples) for row in rows if (size := CASE.search(row["case"])) and (samples := samples_of(row))
                and size[4].startswith(step)]  # fmt: skip
        if not mine:
            told = ", ".join(dict.fromkeys(row["case"] for row in rows)) or f"no {RATE}"
            raise UserError(f"{path} predicts {told}; give the --json of `bingo bench predict` for {step}")
        for size, samples in mine:
            place = int(size[1] or 1) * int(size[2]), int(size[3])
            low, high = found.get(place, (samples[0], samples[0]))
            found[place] = min(low, *samples), max(high, *samples)
    return found
