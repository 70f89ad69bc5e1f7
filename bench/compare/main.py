"""`bingo bench compare A B`: the ratio of every row that both have, with an interval, a verdict and a gate."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bingo.bench.compare.turns import measure_in_turns
from bingo.bench.compare.verdict import LEAST_GROUP, THRESHOLD, Verdict, judge_rows
from bingo.bench.keeper import Keeper
from bingo.bench.processes import OWN, without
from bingo.bench.record import Result, Row, read_result, rows_by_case
from bingo.errors import UserError

Key = tuple[str, str, str, str]
TURNS = 10
WORDS = {"slower": "MORE", "faster": "less"}
"""Of counts, which no clock has part in."""
OUT_OF_TURNS = "measured at two times: what else changed on the machine in between is in the ratios"


class Pair(NamedTuple):
    """A row that both have."""

    a: Row
    b: Row
    verdict: Verdict


def main(options: argparse.Namespace) -> int:
    """Compare; 1 if `--gate` is missed. options.rest: the words after `--`."""
    keeper = Keeper(options.json, "compare")
    options.threshold = options.threshold or THRESHOLD
    a, b, turns = _both(options, keeper)
    found = pairs(a, b, options.clock, options.threshold, turns=turns)
    lost = lost_rows(a, b) if options.gate else []
    print("\n".join(table(options, a, b, found, turns)))
    keeper.finish(rows_of(found), {**detail(options, a, b, found), "turns": turns})
    missed = [pair for pair in found if options.gate and pair.verdict.reaches(options.gate)]
    if options.gate:
        _refuse_unjudged(found)
        bad = len(missed) + len(lost)
        wide = sum(pair.verdict.could_hide(options.gate, pair.a["better"]) for pair in found)
        hidden = f"; {wide} row(s) too noisy to rule it out: take more --processes" if wide else ""
        print(f"gate {options.gate:.1%}: missed by {bad} of {len(found) + len(lost)} row(s){hidden}")
    return int(bool(missed or lost))


def _refuse_unjudged(found: Sequence[Pair]) -> None:
    """`UserError` for a gate that no time could miss: there are too few processes for an interval."""
    timed = [pair for pair in found if not pair.a.get("exact")]
    if timed and not any(pair.verdict.interval for pair in timed):
        raise UserError(
            f"--gate: no row has processes enough to be judged; measure both with --processes {LEAST_GROUP} or more"
        )


def _both(options: argparse.Namespace, keeper: Keeper) -> tuple[Result, Result, bool]:
    """The two results, and whether they were measured in turns."""
    folders = [path.is_dir() for path in (options.a, options.b)]
    if all(folders):
        a, b = measure_in_turns(options.a, options.b, options.rest, options.processes or TURNS, keeper)
        return a, b, True
    if any(folders):
        raise UserError(f"{options.a} and {options.b}: one is a file, the other a folder; give two of a kind")
    if options.rest or options.processes:
        word = f"-- {options.rest[0]}" if options.rest else "--processes"
        raise UserError(f"{word} is about checkouts, and {options.a} is a file: leave it out, or give two folders")
    return read_result(options.a), read_result(options.b), False


def pairs(a: Result, b: Result, clock: str | None, threshold: float, *, turns: bool) -> list[Pair]:
    """The rows that both have with samples; `UserError` where there are none."""
    mine, theirs = rows_by_case(a["rows"]), rows_by_case(b["rows"])
    if a["measurement"] != b["measurement"]:
        raise UserError(
            f"A is a result of {a['measurement']!r}, B of {b['measurement']!r}; give two of one measurement"
        )
    common = [key for key in mine if key in theirs]
    if not common:
        raise UserError(
            "A and B have no case in common: sizes, variants or metrics differ; measure both with the same flags"
        )
    sampled = [key for key in common if any(mine[key]["processes"]) and any(theirs[key]["processes"])]
    wanted = [key for key in sampled if (key[3] == clock if clock else _chosen(key, sampled))]
    if not wanted:
        which = f" of the {clock} clock" if clock and sampled else ""
        raise UserError(f"no case that A and B have in common has samples{which} in both; measure again")
    rows = [(mine[key], theirs[key]) for key in wanted]
    return [Pair(first, second, judge_rows(first, second, threshold, turns=turns)) for first, second in rows]


def _chosen(key: Key, known: Sequence[Key]) -> bool:
    """Without --clock: not the wall's where the processor's is there, which other programs disturb less."""
    return key[3] != "wall" or (*key[:3], "cpu") not in known


def lost_rows(a: Result, b: Result) -> list[Key]:
    """What A has figures of and B has not: no gate may be kept by not measuring, or by breaking."""
    theirs = {key for key, row in rows_by_case(b["rows"]).items() if any(row["processes"])}
    return [key for key, row in rows_by_case(a["rows"]).items() if any(row["processes"]) and key not in theirs]


def table(options: argparse.Namespace, a: Result, b: Result, found: Sequence[Pair], turns: bool) -> list[str]:
    """Lines for people."""
    lines = [
        f"{a['measurement']}: B over A; A {options.a}, B {options.b}",
        *differences(a["environment"], b["environment"]),
    ]
    lines.append("fresh processes in turns" if turns else OUT_OF_TURNS)
    heading = ""
    for pair in found:
        if pair.a["case"] != heading:
            heading = pair.a["case"]
            lines.append(heading)
        lines.append(_line(pair))
    return lines + list(told(a, b))


def _line(pair: Pair) -> str:
    verdict, clock = pair.verdict, pair.a["clock"]
    what = pair.a["metric"] + ("" if clock == "none" else f" ({clock})")
    band = "" if verdict.interval is None else "[{:.3f}, {:.3f}]".format(*verdict.interval)
    noise = "" if verdict.noise is None else f" A/A {100 * verdict.noise:.1f} %"
    word = WORDS.get(verdict.word, verdict.word) if clock == "none" else verdict.word
    why = f": {verdict.why}" if verdict.why else ""
    return (
        f"  {pair.a['variant'][:40]:40} {what[:32]:32}{verdict.ratio:8.3f} {band:16} n={verdict.n}{noise}  {word}{why}"
    )


def told(a: Result, b: Result) -> Iterator[str]:
    """What only one has, and what failed, grouped by side."""
    mine, theirs = rows_by_case(a["rows"]), rows_by_case(b["rows"])
    for name, side, other in (("A", mine, theirs), ("B", theirs, mine)):
        for key, row in side.items():
            if key not in other:
                yield f"only {name} has: {row['case']}, {row['variant']}, {row['metric']} ({row['clock']})"
            elif not any(row["processes"]):
                yield f"{name} has no figures: {row['case']}, {row['variant']}: {row.get('error', 'no samples')}"
            if not row.get("accuracy", {}).get("ok", True):
                yield f"{name} missed its accuracy gate: {row['case']}, {row['variant']}"
    for name, result in (("A", a), ("B", b)):
        if result["partial"]:
            yield f"{name} is partial: its measurement was stopped, or still runs"


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What differs between two environments, a line each; where the result went to is no difference."""
    mine, theirs = (flat(side | {"argv": without(side.get("argv", []), OWN)}) for side in (a, b))
    keys = [key for key in dict.fromkeys([*mine, *theirs]) if mine.get(key) != theirs.get(key)]
    return [f"  {key}: {mine.get(key, '-')} -> {theirs.get(key, '-')}" for key in keys]


def flat(value: dict[str, Any], before: str = "") -> dict[str, str]:
    """Dotted name -> text of every entry."""
    found: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, dict):
            found |= flat(entry, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = " ".join(map(str, entry)) if isinstance(entry, list) else str(entry)
    return found


def rows_of(found: Sequence[Pair]) -> list[Row]:
    """Ratios of processes of either side by their medians, in order; of as many as both have."""
    made: list[Row] = []
    for pair in found:
        sides = [[float(np.median(samples)) for samples in row["processes"] if samples] for row in (pair.a, pair.b)]
        ratios = [[b / a] for a, b in zip(*sides, strict=False) if a] or [[]]
        made.append(
            {**pair.a, "metric": f"{pair.a['metric']}, B over A", "clock": pair.a["clock"], "processes": ratios}
        )
        if not any(ratios):
            made[-1]["error"] = "A is zero"
    return made


def detail(options: argparse.Namespace, a: Result, b: Result, found: Sequence[Pair]) -> dict[str, Any]:
    """Everything that the table is made of."""
    verdicts = [
        {"case": p.a["case"], "variant": p.a["variant"], "metric": p.a["metric"], "clock": p.a["clock"],
         **p.verdict._asdict(), "a": p.a["processes"], "b": p.b["processes"]}
        for p in found
    ]  # fmt: skip
    return {
        "a": str(options.a), "b": str(options.b), "threshold": options.threshold, "gate": options.gate,
        "environment_of_a": a["environment"], "environment_of_b": b["environment"], "verdicts": verdicts,
        "told": list(told(a, b)),
    }  # fmt: skip
