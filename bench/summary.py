"""Rows of any measurement as a table: median with interval, how many samples of how many processes, their spread."""

from collections.abc import Iterable

import numpy as np

from bingo.bench.record import Row
from bingo.bench.samples import of_processes, shown


def table(rows: Iterable[Row]) -> list[str]:
    """A heading per case, a line per variant, metric and clock."""
    lines, heading = [], ""
    for row in rows:
        if row["case"] != heading:
            heading = row["case"]
            lines.append(heading)
        clock = "" if row["clock"] == "none" else f" ({row['clock']})"
        lines.append(f"  {row['variant'][:44]:44} {row['metric'] + clock:34}{figures(row)}".rstrip())
    return lines


def figures(row: Row) -> str:
    """`0.123 [0.120, 0.130]  3 x 7  between processes 1.2 %`, or why there are none."""
    filled = [samples for samples in row["processes"] if samples]
    if not filled:
        return f" {row.get('error', 'no samples')}"
    sizes = {len(samples) for samples in filled}
    count = f"{len(filled)} x {sizes.pop()}" if len(sizes) == 1 else f"{sum(map(len, filled))} in {len(filled)}"
    return f" {shown(of_processes(filled), 1, '.4g'):32} {count:>9}{between(filled)}"


def between(processes: list[list[float]]) -> str:
    """How far apart processes are: the standard deviation of their medians, as a share of its middle."""
    medians = [float(np.median(samples)) for samples in processes]
    if len(medians) < 2 or not np.median(medians):
        return ""
    return f"  between processes {100 * np.std(medians, ddof=1) / abs(np.median(medians)):.1f} %"
