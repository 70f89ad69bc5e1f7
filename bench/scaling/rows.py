"""What the samples of the jobs say: rows of a result, one case for each number of ranks and mode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bingo.bench.record import Better, Clock, Row
from bingo.bench.samples import LEAST, Estimate, of_processes, ratio_interval
from bingo.bench.scaling.plan import Point
from bingo.bench.scaling.samples import RankSamples

RATE = "images per second"
RATE_OF_A_RANK = "images per second and rank"
CPU = "cpu seconds per step and rank"
LOADER = "loader wait, share of a step"
EXPOSED = "exposed communication, share of a step"
STRAGGLER = "slowest rank over the median, less one"


@dataclass(frozen=True)
class Measured:
    """A point and what its jobs left: the samples of their ranks, and a sentence for each that has none."""

    point: Point
    jobs: tuple[list[RankSamples], ...]
    problems: tuple[str, ...] = ()
    gradient_bytes: int = 0
    commits: tuple[str, ...] = ()

    def case(self, mode: str) -> str:
        return f"{mode}, {self.point.case}"

    def rates(self) -> list[list[float]]:
        """Images per second of all ranks, for each job one list over its bursts: the slowest rank counts."""
        images = self.point.batch * self.point.ranks
        return [[images / max(part) for part in _by_burst(job, "together", "seconds")] for job in self.jobs]


def _by_burst(job: Sequence[RankSamples], kind: str, figure: str) -> list[list[float]]:
    """One figure: for each burst the values of all ranks."""
    return [list(values) for values in zip(*(_of_a_rank(rank, kind, figure) for rank in job), strict=True)]


def _of_a_rank(rank: RankSamples, kind: str, figure: str) -> list[float]:
    bursts: list[dict[str, float]] = rank[kind]  # type: ignore[literal-required]
    return [burst[figure] for burst in bursts]


def _each_rank(figure: Callable[[RankSamples], list[float]]) -> Callable[[Measured], list[list[float]]]:
    """A list of samples for each rank of each job."""
    return lambda measured: [figure(rank) for job in measured.jobs for rank in job]


def _share(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _exposed(rank: RankSamples) -> list[float]:
    with_messages, alone = (_of_a_rank(rank, kind, "seconds") for kind in ("together", "alone"))
    return [(a - b) / a for a, b in zip(with_messages, alone, strict=True)]


def _stragglers(measured: Measured) -> list[list[float]]:
    bursts = [_by_burst(job, "alone", "seconds") for job in measured.jobs]
    return [[max(part) / float(np.median(part)) - 1 for part in job] for job in bursts]


class Metric(NamedTuple):
    """A kind of row: what is better, on which clock, its samples, and what they are."""

    better: Better
    clock: Clock
    samples: Callable[[Measured], list[list[float]]]
    note: str


A_RANK = "a list of samples for each rank of each job, in their order"
A_JOB = "a list of samples for each job"
METRICS = {
    RATE: Metric("higher", "wall", Measured.rates, f"of all ranks together, at the slowest one's pace; {A_JOB}"),
    RATE_OF_A_RANK: Metric(
        "higher", "wall", lambda m: [[m.point.batch / s for s in _of_a_rank(rank, "together", "seconds")]
                                     for job in m.jobs for rank in job], A_RANK,
    ),
    "seconds per step and rank": Metric(
        "lower", "wall", _each_rank(lambda rank: _of_a_rank(rank, "together", "seconds")), A_RANK
    ),
    CPU: Metric("lower", "cpu", _each_rank(lambda rank: _of_a_rank(rank, "together", "cpu")), A_RANK),
    "seconds per step and rank, no messages": Metric(
        "lower", "wall", _each_rank(lambda rank: _of_a_rank(rank, "alone", "seconds")), A_RANK
    ),
    "cpu seconds per step and rank, no messages": Metric(
        "lower", "cpu", _each_rank(lambda rank: _of_a_rank(rank, "alone", "cpu")), A_RANK
    ),
    LOADER: Metric(
        "lower", "wall",
        _each_rank(lambda r: _share(_of_a_rank(r, "together", "loader"), _of_a_rank(r, "together", "seconds"))),
        f"host time in the loader's next batch over the step's; {A_RANK}",
    ),
    EXPOSED: Metric(
        "lower", "wall", _each_rank(_exposed),
        "step with messages less the step without, over the former: messages that nothing hides, and waiting for "
        f"slower ranks; below 0 where noise is larger, and nothing but noise for one rank; {A_RANK}",
    ),
    STRAGGLER: Metric(
        "lower", "wall", _stragglers, f"of the steps without messages, in which no rank waits for another; {A_JOB}"
    ),
}  # fmt: skip
"""Metric of a row -> how it comes from samples."""


def rows_of(measured: Measured) -> list[Row]:
    """The rows of a point, for each of its modes. Where no job has ended well, one row says why."""
    found: list[Row] = []
    for mode in measured.point.modes:
        case = measured.case(mode)
        if not measured.jobs:
            found.append(_row(case, RATE, [], error="; ".join(measured.problems) or "not measured yet"))
            continue
        for name, metric in METRICS.items():
            if name == LOADER and measured.point.stages[0].config.data is None:
                continue
            row = _row(case, name, metric.samples(measured))
            row["notes"] = [metric.note, *_notes(measured)]
            row["work"] = {"images": float(measured.point.batch * measured.point.ranks)}
            found.append(row)
    return found


def _row(case: str, name: str, processes: list[list[float]], error: str = "") -> Row:
    metric = METRICS[name]
    row: Row = {
        "case": case, "variant": "ours", "metric": name, "better": metric.better, "clock": metric.clock,
        "processes": processes,
    }  # fmt: skip
    if error:
        return {**row, "error": error}
    order = "bursts with messages and without in turn, ABBA; all numbers of ranks in turn, job by job"
    return {**row, "order": order, "discarded": 1}


SHARED = "ranks on the cores of one machine: CPU time tells what a rank's work takes, the wall clock who else was there"


def shares_cores(measured: Measured) -> bool:
    """Whether ranks without GPUs of their own were processes of one machine."""
    return measured.point.local and any(rank["device"] == "cpu" for job in measured.jobs for rank in job)


def _notes(measured: Measured) -> list[str]:
    ranks = [rank for job in measured.jobs for rank in job]
    devices = ", ".join(sorted({rank["device"].partition(":")[0] for rank in ranks}))
    threads = ", ".join(str(n) for n in sorted({rank["threads"] for rank in ranks}))
    hosts = sorted({rank["host"] for rank in ranks})
    notes = [f"{devices}, {threads} threads per rank, nodes {' '.join(hosts)}"]
    if shares_cores(measured):
        notes.append(SHARED)
    notes += [f"measured with the code of {', '.join(dict.fromkeys(measured.commits))}"] * bool(measured.commits)
    return [*notes, *(f"a job is missing: {problem}" for problem in measured.problems)]


class Dot(NamedTuple):
    """A point of a scaling curve. efficiency: images per second and rank over the first dot's."""

    measured: Measured
    efficiency: Estimate

    @property
    def rate(self) -> Estimate:
        return estimate(self.measured, RATE)


def curves(found: Sequence[Measured]) -> dict[str, list[Dot]]:
    """Mode -> its points that were measured, by their number of ranks."""
    modes = dict.fromkeys(mode for measured in found for mode in measured.point.modes)
    return {mode: dots for mode in modes if (dots := _curve([m for m in found if mode in m.point.modes and m.jobs]))}


def _curve(found: Sequence[Measured]) -> list[Dot]:
    dots: list[Dot] = []
    ordered = sorted(found, key=lambda measured: measured.point.ranks)
    for measured in ordered:
        dots.append(Dot(measured, ratio_interval(paces(measured), paces(ordered[0]))))
    return dots


def paces(measured: Measured) -> list[float]:
    """Images per second and rank: one figure for each job, or of fewer than three jobs one for each burst."""
    jobs = [[rate / measured.point.ranks for rate in job] for job in measured.rates()]
    return [float(np.median(job)) for job in jobs] if len(jobs) >= LEAST else flat(jobs)


def estimate(measured: Measured, name: str) -> Estimate:
    """The median of a metric, its interval over jobs and then over the samples of each."""
    lists = METRICS[name].samples(measured)
    each = len(lists) // len(measured.jobs)
    return of_processes([flat(lists[at : at + each]) for at in range(0, len(lists), each)])


def flat(lists: Sequence[Sequence[float]]) -> list[float]:
    return [value for part in lists for value in part]


def detail_of(found: Sequence[Measured], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the table is made of: the settings, every point, and the efficiencies."""
    points = [
        {
            "case": measured.point.case, "modes": measured.point.modes, "nodes": measured.point.nodes,
            "ranks_per_node": measured.point.ranks_per_node, "ranks": measured.point.ranks,
            "batch_per_rank": measured.point.batch, "gradient_bytes": measured.gradient_bytes,
            "jobs": len(measured.jobs), "commits": measured.commits, "problems": measured.problems,
            "hosts": [[rank["host"] for rank in job] for job in measured.jobs],
        }
        for measured in found
    ]  # fmt: skip
    efficiency = {
        mode: [{"ranks": dot.measured.point.ranks, **dot.efficiency} for dot in dots]
        for mode, dots in curves(found).items()
    }
    return {"settings": dict(settings), "points": points, "efficiency": efficiency}
