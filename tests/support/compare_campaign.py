"""Is the verdict of `bingo bench compare` sound? Many comparisons of one real measurement with itself, and with one
that does 3 % more work.

    python -m tests.support.compare_campaign record --comparisons 100 --turns 64 --json series.json
    python -m tests.support.compare_campaign judge --turns 64 --json series.json

`record` takes one long series: fresh Python processes in turn, forwards and backwards, of three kinds: A, the same
again (B), and one with 3 % more passes through the same loop. `judge` cuts it into comparisons that do not overlap,
and says how many of A against B gave an alarm, and how many of A against the third found it.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bingo.bench.compare.verdict import Verdict, judge
from bingo.bench.record import Row, read_result, write_result
from bingo.environment import environment_record

CASE, METRIC = "120 000 passes of a loop in Python", "seconds"
GATE = 0.03
PASSES, SAMPLES = 120_000, 4
VARIANTS = {"A": 1.0, "B": 1.0, "3 % more passes": 1.03}
CHILD = """
import json, sys, time
def work(passes):
    total, seen = 0, {}
    for i in range(passes):
        total = (total * 31 + i) & 0xFFFFFF
        seen[total & 1023] = i
passes, samples = int(sys.argv[1]), []
work(passes)  # warm-up
for _ in range(int(sys.argv[2])):
    before = time.process_time()
    work(passes)
    samples.append(time.process_time() - before)
print(json.dumps(samples))
"""


def measure(share: float) -> list[float]:
    """CPU seconds of the loop, some samples of a fresh process; share: how much of the work."""
    command = [sys.executable, "-I", "-S", "-c", CHILD, str(round(share * PASSES)), str(SAMPLES)]
    found: list[float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def record(turns: int, path: Path) -> None:
    """Take the series; kept every 100 turns."""
    environment = environment_record()
    series: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    for turn in range(turns):
        for name in VARIANTS if turn % 2 == 0 else reversed(VARIANTS):
            series[name].append(measure(VARIANTS[name]))
        if turn % 100 == 99 or turn == turns - 1:
            print(f"{turn + 1} of {turns} turns", file=sys.stderr, flush=True)
            write_result(path, "compare", rows(series), partial=turn < turns - 1, environment=environment)


def rows(series: dict[str, list[list[float]]]) -> list[Row]:
    """A row per kind, every process a list of its own."""
    return [
        {
            "case": CASE, "variant": name, "metric": METRIC, "better": "lower", "clock": "cpu", "processes": processes,
            "order": "A, B, 3 % more, and the next turn backwards", "discarded": 1,
        }
        for name, processes in series.items()
    ]  # fmt: skip


class Counts(NamedTuple):
    """Alarms over A against B, and how often 3 % more work was found, and missed a gate of 3 %, of so many of each."""

    comparisons: int
    turns: int
    alarms: int
    found: int
    gated: int


def judged(series: Sequence[Row], turns: int, comparisons: int) -> Counts:
    """Cut the series into comparisons that do not overlap, and ask for the verdict of each."""
    a, b, more = series
    parts = [slice(at * turns, (at + 1) * turns) for at in range(min(comparisons, len(a["processes"]) // turns))]
    same, slower = ([_verdict(a, other, part) for part in parts] for other in (b, more))
    return Counts(
        len(parts), turns,
        alarms=sum(verdict.word in ("slower", "faster") for verdict in same),
        found=sum(verdict.word == "slower" for verdict in slower),
        gated=sum(verdict.reaches(GATE) for verdict in slower),
    )  # fmt: skip


def _verdict(a: Row, b: Row, part: slice) -> Verdict:
    return judge(a["processes"][part], b["processes"][part], "lower", turns=True)


def main(words: Sequence[str]) -> None:
    """Record or judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "judge"])
    parser.add_argument("--comparisons", type=int, default=100, help="comparisons of each kind (default: 100)")
    parser.add_argument("--turns", type=int, default=64, help="processes of either side in each (default: 64)")
    parser.add_argument("--json", type=Path, required=True, help="the series")
    options = parser.parse_args(words)
    if options.what == "record":
        record(options.comparisons * options.turns, options.json)
    found = judged(read_result(options.json, "compare")["rows"], options.turns, options.comparisons)
    print(
        f"{found.comparisons} comparisons of each kind, {found.turns} processes a side: {found.alarms} false alarms, "
        f"3 % more work found in {found.found}, a gate of {GATE:.0%} missed in {found.gated}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
