"""Made-up samples of `bingo bench scaling`, and the plan that flags make."""

from collections.abc import Sequence
from pathlib import Path

from bingo.bench.scaling.flags import scaling_flags
from bingo.bench.scaling.plan import Plan, plan_of
from bingo.bench.scaling.samples import Burst, RankSamples

TINY = ["--student", "tiny-2", "--teacher", "tiny-2", "--size", "16", "--batch", "8", "--threads", "1"]
FEW = ["--steps", "2", "--rounds", "3"]


def plan(out: Path, *words: object) -> Plan:
    return plan_of(scaling_flags().parse_args(["--out", str(out), *map(str, words)]), False)


def rank(number: int, together: Sequence[float], alone: Sequence[float], loader: float = 0.0) -> RankSamples:
    """A rank whose steps take so many seconds, with messages and without; its processor is busy half of that."""
    bursts = [[Burst(seconds=s, cpu=s / 2, loader=loader) for s in part] for part in (together, alone)]
    return RankSamples(rank=number, host=f"c{number + 1}", device="cpu", threads=1, together=bursts[0], alone=bursts[1])
