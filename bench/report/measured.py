"""Results of `bingo bench` as parts of a report: speed-ups, parts of a step, roofline, scaling; and every figure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import numpy as np

from bingo.bench.record import Result, Row, samples_of
from bingo.bench.report.charts import (
    COLOURS,
    RED,
    Bar,
    Chart,
    Dot,
    Line,
    Span,
    dots,
    lines,
    number,
    roofline,
    timeline,
)
from bingo.bench.samples import ends, of_processes, ratio_interval, with_noise

BASES = ("release", "naive", "plain", "reference", "eager", "torch")
"""Beginnings of the names of those that others are compared with; where there is none, the first of a case is."""
PART = re.compile(r"(?:(host|GPU) )?seconds per step(?: in |: )(.+)")
SIZE = re.compile(r"(?:(\d+) nodes? x )?(\d+) ranks?\b(?:, (\d+ per rank, [^,]+, \d+ px))?")
"""Nodes, ranks on each, and the step, as `bench scaling` and `bench predict` name their cases."""
PRECISION = re.compile(r", (fp32|tf32|bf16)\b")
WHOLE, EXPOSED = "whole step", "exposed communication"
RATE, PREDICT = "images per second", "predict"
MODES = ("weak", "strong")
CLOCKS = ("cuda", "cpu", "wall", "none")
TAKEN = {"none": "predicted", "cuda": "GPU's clock", "cpu": "processor time"}
REDS = (RED, "#ee8590", "#a03040", "#f0a8a0")
WAITS = ("data", "exposed", "communication", "comm", "gap")
"""Words in the names of parts in which a GPU or a core waits: red."""
MOST_CHARTS = 24


class Figure(TypedDict):
    """A row of the table of all figures: everything as text."""

    case: str
    variant: str
    metric: str
    clock: str
    value: str
    n: int
    note: str


class Measured(TypedDict):
    """A result file: what it is, where it was taken, its charts by kind, its figures."""

    about: str
    environment: list[tuple[str, str]]
    forests: list[Chart]
    waterfalls: list[Chart]
    rooflines: list[Chart]
    scaling: list[Chart]
    predicted: bool
    is_prediction: bool
    figures: list[Figure]
    left_out: int


@dataclass(frozen=True)
class Ratio:
    """How many times as good a variant is as the one it is compared with, and the noise of that one against itself."""

    name: str
    value: float
    interval: tuple[float, float] | None
    noise: float | None
    n: int


def content(result: Result, others: Sequence[Result] = ()) -> Measured:
    """Everything the template shows. others: all results that are given, for predictions and ceilings among them."""
    rows, predicts = result["rows"], result["measurement"] == PREDICT
    predictions = [row for other in others if other["measurement"] == PREDICT for row in other["rows"]]
    forests = list(forest_charts(ladder(rows) if predicts else rows))
    return {
        "about": result["measurement"] + (", partial: it was stopped" if result["partial"] else ""),
        "environment": environment(result["environment"]),
        "forests": forests[:MOST_CHARTS],
        "waterfalls": list(waterfalls(rows)),
        "rooflines": roof_charts(result, others),
        "scaling": [] if predicts else scaling_charts(rows, predictions),
        "predicted": bool(predictions),
        "is_prediction": predicts,
        "figures": [figure for row in rows if (figure := figure_of(row))],
        "left_out": max(0, len(forests) - MOST_CHARTS),
    }


def environment(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what a reader must know of the machine and the code."""
    packages = record.get("packages")
    rows = [
        ("CPU", record.get("cpu")),
        ("GPU", ", ".join(map(str, record.get("gpu") or []))),
        ("torch", packages.get("torch") if isinstance(packages, Mapping) else None),
        ("git", record.get("git")),
        ("command", " ".join(map(str, record.get("argv") or []))),
    ]
    return [(name, str(value)) for name, value in rows if value]


def figure_of(row: Row) -> Figure | None:
    """A row of the table."""
    samples, gate = samples_of(row), row.get("accuracy")
    notes = [row.get("error", ""), *row.get("notes", [])]
    if gate is not None and gate.get("ok") is False:
        notes.insert(0, "its accuracy gate failed")
    value = "–"
    if samples:
        found = of_processes(row["processes"])
        value = number(found["median"])
        if found["interval"]:
            value += f" [{', '.join(map(number, found['interval']))}]"
    return {
        "case": row["case"],
        "variant": row["variant"],
        "metric": row["metric"],
        "clock": row["clock"],
        "value": value,
        "n": len(samples),
        "note": "; ".join(note for note in notes if note),
    }


Key = tuple[str, str, str]


def groups(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    """(case, metric, clock) -> rows that can be compared: two variants or more that were measured, by one clock each.

    Parts of steps are none.
    """
    found: dict[Key, list[Row]] = {}
    for row in rows:
        timed = "per step" in row["metric"] or row["clock"] != "none"
        if timed and not PART.fullmatch(row["metric"]) and min(samples_of(row), default=0.0) > 0:
            found.setdefault((row["case"], row["metric"], row["clock"]), []).append(row)
    return {key: group for key, group in found.items() if len(group) > 1 and key[2] == _best(found, key)}


def _best(found: Iterable[Key], key: Key) -> str:
    """The clock that other work on the machine disturbs least, of those by which this was measured."""
    clocks = {clock for case, metric, clock in found if (case, metric) == key[:2]}
    return next(clock for clock in CLOCKS if clock in clocks)


def ladder(rows: Iterable[Row]) -> list[Row]:
    """Predicted steps of all precisions as one case: each is a rung of one ladder."""
    steps = (row for row in rows if row["metric"] == "seconds per step")
    found = {row["variant"]: cast(Row, {**row, "case": PRECISION.sub("", row["case"])}) for row in steps}
    return list(found.values())


def base_of(group: Sequence[Row]) -> Row:
    """The row that the others are compared with."""
    named = (row for word in BASES for row in group if row["variant"].lower().startswith(word))
    return next(named, group[0])


def group_noise(group: Sequence[Row]) -> float | None:
    """A/A noise of the row that the others of its group are compared with, as a share; None below four samples."""
    return with_noise(samples_of(base_of(group)))["aa_noise"]


def ratios(group: Sequence[Row]) -> list[Ratio]:
    """Speed-ups over the base, largest first; none for a row whose accuracy gate failed."""
    base, found = base_of(group), []
    for row in group:
        if row is base or row.get("accuracy", {}).get("ok") is False:
            continue
        above, below = (base, row) if row["better"] == "lower" else (row, base)
        taken = samples_of(above), samples_of(below)
        ratio, n = ratio_interval(*taken), min(map(len, taken))
        interval = ratio["interval"]
        ends = (interval[0], interval[1]) if interval else None
        found.append(Ratio(row["variant"], ratio["median"], ends, group_noise(group), n))
    return sorted(found, key=lambda ratio: -ratio.value)


def forest_charts(rows: Iterable[Row]) -> Iterator[Chart]:
    """A panel per case, metric and clock: speed-ups with intervals, and the noise around one."""
    for (case, metric, clock), group in groups(rows).items():
        found = ratios(group)
        if found:
            base = base_of(group)["variant"]
            shown = [
                Dot(one.name, one.value, one.interval, colour=_colour(one), text=f"{one.value:.2f}×") for one in found
            ]
            words = ", ".join(f"{one.name} {one.value:.2f}" for one in found)
            alt, taken = f"{case}, {metric}: times as good as {base}: {words}", TAKEN.get(clock, f"{clock} clock")
            yield dots(case, shown, alt, label=f"times {base} ({metric}, {taken})", band=group_noise(group) or 0.0,
                       at=1.0, logarithmic=True)  # fmt: skip


def _colour(ratio: Ratio) -> str:
    """Green and red only where the whole interval is outside the noise."""
    if ratio.interval and ratio.noise is not None:
        if ratio.interval[0] > 1 + ratio.noise:
            return COLOURS[2]
        if ratio.interval[1] < 1 / (1 + ratio.noise):
            return RED
    return COLOURS[4]


def waterfalls(rows: Iterable[Row]) -> Iterator[Chart]:
    """A panel per case: the parts of a step one after the other, a row per variant, and per rank where ranks differ."""
    cases: dict[str, dict[str, dict[str, list[list[float]]]]] = {}
    for row in rows:
        if (match := PART.fullmatch(row["metric"])) and samples_of(row):
            case = f"{row['case']}, {match[1]}" if match[1] else row["case"]
            cases.setdefault(case, {}).setdefault(row["variant"], {})[match[2]] = row["processes"]
    for case, variants in cases.items():
        bars = [bar for variant, parts in variants.items() for bar in _steps(variant, parts)]
        names = dict.fromkeys(part for parts in variants.values() for part in parts if part != WHOLE)
        words = "; ".join(f"{bar.name}: {bar.text}" for bar in bars)
        yield timeline(case, bars, part_colours(list(names)), f"Parts of a step, {case}: {words}", label="milliseconds")


def _steps(variant: str, parts: Mapping[str, list[list[float]]]) -> Iterator[Bar]:
    """A bar per process (a rank) that measured, of medians in milliseconds."""
    ranks = max(len(processes) for processes in parts.values())
    for rank in range(ranks):
        took = {
            part: 1e3 * float(np.median(processes[rank]))
            for part, processes in parts.items()
            if rank < len(processes) and processes[rank]
        }
        whole, text = took.pop(WHOLE, 0.0), ""
        if whole and sum(took.values()) > 1.001 * whole and EXPOSED in took:  # on a host it lies inside other parts
            text = f", of it {took.pop(EXPOSED):.3g} {EXPOSED}"
        ends = np.cumsum(list(took.values())).tolist()
        spans = [Span(end - one, end, part) for (part, one), end in zip(took.items(), ends, strict=True)]
        name = variant if ranks == 1 else f"{variant}, rank {rank}"
        yield Bar(name, spans, text=f"{whole or sum(took.values()):.3g} ms{text}")


def part_colours(names: Sequence[str]) -> dict[str, str]:
    """Red for parts in which something waits; the others in turn."""
    free = [colour for colour in COLOURS if colour != RED]
    work = [name for name in names if not any(word in name.lower() for word in WAITS)]
    waits = [name for name in names if name not in work]
    colours = {name: free[place % len(free)] for place, name in enumerate(work)}
    colours |= {name: REDS[place % len(REDS)] for place, name in enumerate(waits)}
    return {name: colours[name] for name in names}


def roof_charts(result: Result, others: Iterable[Result] = ()) -> list[Chart]:
    """One panel: rows whose work has FLOPs and bytes, below the ceilings that were measured on the same machine.

    others: results given beside this one, of which one may have the ceilings.
    """
    points: list[tuple[str, float, float, str]] = []
    for row in result["rows"]:
        work, samples = row.get("work", {}), samples_of(row)
        if work.get("flops") and work.get("bytes") and samples and row["better"] == "lower" and min(samples) > 0:
            rate = work["flops"] / float(np.median(samples))
            points.append((row["variant"], work["flops"] / work["bytes"], rate, ""))
    alike = (other for other in others if same_machine(result, other))
    ceilings = next((found for one in (result, *alike) if (found := roofs(one))), [])
    if not ceilings or not (points or roofs(result)):
        return []
    names = list(dict.fromkeys(name for name, *_ in points))
    coloured = [(name, x, y, COLOURS[names.index(name) % len(COLOURS)]) for name, x, y, _ in points]
    told = [*((name, rate) for name, _, rate, _ in coloured), *((name, rate) for name, rate, _ in ceilings)]
    words = ", ".join(f"{name} {number(rate)}FLOP/s" for name, rate in told)
    return [roofline("roofline, FLOP/s", coloured, ceilings, f"Roofline: {words}")]


def same_machine(one: Result, other: Result) -> bool:
    """Whether two results were taken on hardware of one name."""
    return all(one["environment"].get(name) == other["environment"].get(name) for name in ("cpu", "gpu"))


def roofs(result: Result) -> list[tuple[str, float, float]]:
    """(name, FLOP/s, bytes/s): of `bench roof`, of rows about ceilings, or of the record of a kernel benchmark."""
    rates = {"flops": list[tuple[str, float]](), "bytes": list[tuple[str, float]]()}
    for row in result["rows"]:
        if "roof" in row["case"].lower() or result["measurement"] == "roof":
            for kind, found in rates.items():
                if row["metric"] == f"{kind} per second" and samples_of(row) and "all-reduce" not in row["case"]:
                    found.append((row["case"], float(np.median(samples_of(row)))))
                work, samples = row.get("work", {}), samples_of(row)
                amount = work.get(kind)
                if amount and samples and not (work.get("flops") and work.get("bytes")) and row["better"] == "lower":
                    found.append((row["variant"], amount / float(np.median(samples))))
    if rates["flops"] and rates["bytes"]:
        copied = max(rate for _, rate in rates["bytes"])
        return [(name, rate, copied) for name, rate in rates["flops"]]
    roof = found_in(result["detail"], "roof")
    if isinstance(roof, Mapping) and {"matmul_flops", "copy_bytes"} <= roof.keys():
        return [("matrix products", float(roof["matmul_flops"]), float(roof["copy_bytes"]))]
    return []


def found_in(value: Any, name: str) -> Any:
    """The first value of this name in nested objects, or None."""
    if not isinstance(value, Mapping):
        return None
    if name in value:
        return value[name]
    return next((found for inner in value.values() if (found := found_in(inner, name)) is not None), None)


def ranks_of(row: Row) -> int | None:
    """How many ranks a case names (`2 nodes x 8 ranks`)."""
    size = SIZE.search(row["case"])
    return int(size[1] or 1) * int(size[2]) if size else None


def scaling_charts(rows: Iterable[Row], predictions: Iterable[Row]) -> list[Chart]:
    """A panel per mode: images per second of so many ranks, measured, on the band that was predicted."""
    charts = []
    measured = [row for row in rows if row["metric"] == RATE and ranks_of(row) and samples_of(row)]
    for mode in MODES:
        chosen = sorted((row for row in measured if row["case"].startswith(mode)), key=lambda row: ranks_of(row) or 0)
        if chosen:
            x = np.array([ranks_of(row) for row in chosen], dtype=float)
            found = [of_processes(row["processes"]) for row in chosen]
            y = np.array([each["median"] for each in found])
            drawn = [Line("as the first", x, y[0] * x / x[0], COLOURS[4], style="--")]
            drawn += [band] if (band := predicted(mode, step_of(chosen[0]), predictions)) else []
            low, high = np.array([ends(each) for each in found]).T
            drawn.append(Line("measured, 95 % interval", x, y, COLOURS[1], band=(low, high), dots=True))
            words = ", ".join(f"{int(n)} ranks {number(rate)}" for n, rate in zip(x, y, strict=True))
            charts.append(lines(f"{mode} scaling, images per second", drawn, f"{mode} scaling: {words}", label="ranks"))
    return charts


def step_of(row: Row) -> str:
    """The step that a case names, "" where it names none."""
    size = SIZE.search(row["case"])
    return (size[3] or "") if size else ""


def predicted(mode: str, step: str, predictions: Iterable[Row]) -> Line | None:
    """The band of the predictions of this step for numbers of ranks, in this mode or in none."""
    found: dict[int, list[float]] = {}
    for row in predictions:
        ranks, other = ranks_of(row), [name for name in MODES if name in row["case"] and name != mode]
        if row["metric"] == RATE and ranks and not other and step_of(row) == step:
            found.setdefault(ranks, []).extend(samples_of(row))
    at = sorted(ranks for ranks, rates in found.items() if rates)
    if not at:
        return None
    low, high = (np.array([pick(found[ranks]) for ranks in at]) for pick in (min, max))
    return Line("predicted", np.array(at, dtype=float), (low + high) / 2, COLOURS[0], band=(low, high))
