"""What a recipe showed, in words: means and paired differences with their 95 % intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from bingo.bench.report.leaderboard import BY, rows_of
from bingo.bench.report.results import METRICS, Run, Student, compare
from bingo.bench.report.statistics import Difference, mean_half

LABELS = {"random": "random bags", "knn": "kNN bags", "label": "label bags", "kmeans": "k-means bags"}
BASELINE, MAIN = "no teacher", "knn"


def label(arm: str) -> str:
    return LABELS.get(arm, arm)


def mean_interval(values: Sequence[float]) -> str:
    """`81.1 [79.2, 83.0]` in percent of values 0..1; for fewer than three the mean alone."""
    mean, half = mean_half([100 * value for value in values])
    return f"{mean:.1f}" if half is None else f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def scores(arm: Sequence[Student], metric: str) -> list[float]:
    return [student.scores[metric] for student in arm]


def signed(value: float) -> str:
    """Points with their sign, from a share; never -0.0."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def interval(difference: Difference) -> str:
    """`[+5.0, +15.0]`, or how many seeds there are where they are too few for one."""
    if difference.half is None:
        return "one seed, no interval" if difference.n == 1 else f"{difference.n} seeds, no interval"
    low, high = difference.mean - difference.half, difference.mean + difference.half
    return f"[{signed(low)}, {signed(high)}]"


def spread(difference: Difference) -> str:
    """`+10.6 points [-1.0, +22.2], n = 5: unclear`."""
    if difference.half is None:
        return f"{signed(difference.mean)} points ({interval(difference)})"
    return f"{signed(difference.mean)} points {interval(difference)}, n = {difference.n}: {difference.verdict}"


def summary_lines(run: Run) -> list[str]:
    """One line per arm, one for the teacher, and one for kNN bags against no teacher."""
    shown = {label(arm): group for arm, group in run.arms.items()}
    if run.teacher is not None:
        shown["teacher"] = (run.teacher,)
    lines = table(shown)
    if BASELINE in run.arms and MAIN in run.arms:
        found = [(m, compare(run.arms[BASELINE], run.arms[MAIN], m)) for m in METRICS]
        parts = [f"{METRICS[metric]} {spread(d)}" for metric, d in found if d]
        lines.append(f"{label(MAIN)} minus {BASELINE}: " + ("; ".join(parts) or "no common seed"))
    return lines


def table(arms: Mapping[str, Sequence[Student]]) -> list[str]:
    """A line per arm, in columns."""
    rows = [
        [name, f"n = {len(group)}", *(f"{METRICS[m]} {mean_interval(scores(group, m))} %" for m in METRICS)]
        for name, group in arms.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:{width}s}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def headline(run: Run) -> str:
    """The result in words, with n and intervals."""
    if BASELINE not in run.arms or MAIN not in run.arms:
        if len(run.arms) > 1:
            return ranking(run)
        return f"This recipe has no pair of {BASELINE!r} and {MAIN!r} arms, so the gain over no teacher is not known."
    base, main = run.arms[BASELINE], run.arms[MAIN]
    few, knn = (compare(base, main, metric) for metric in ("fewshot", "knn"))
    config = main[0].record.config
    teacher = run.teacher_of(main[0].record)
    source = f"a {teacher.config['model']} teacher" if teacher else "a given teacher"
    reached = np.mean([100 * s.scores["fewshot"] for s in main])
    opening = (
        f"On {run.name}, a {config['student']} student distilled from {source} with {label(MAIN)} reaches "
        f"{reached:.1f} % few-label accuracy ({shots(run)} labels per class)"
    )
    if few is None or knn is None:
        return f"{opening}; it shares no seed with the student trained without a teacher, so the gain is not known."
    model = base[0].record.config["model"]
    other = "the same student" if model == config["student"] else f"a {model}"
    passes = "equal" if len({s.passes for s in (*base, *main)}) == 1 else "unequal"
    return (
        f"{opening}, {relation(few)} {other} trained without a teacher at {passes} student passes ({evidence(few)}). "
        f"Its kNN accuracy is {relation(knn)} ({evidence(knn)})."
    )


def ranking(run: Run) -> str:
    """Which of many arms is first, and what ties with it; or what each does to a base."""
    first, *others = rows_of(run)
    score = f"{first.scores[BY][0]:.1f} % {METRICS[BY]} accuracy"
    opening = f"{first.name} has {score}, " + (
        f"the highest of {len(run.arms)} arms" if first.against == "best" else "the base of the other arms"
    )
    found: dict[str, list[str]] = {}
    for row in others:
        found.setdefault(row.verdict, []).append(row.name)
    told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in found.items())
    return f"{opening}. By 95 % intervals paired by seed: {told}."


def relation(difference: Difference) -> str:
    """`10.6 points above`, as it will be rounded."""
    points = round(100 * difference.mean, 1)
    return f"{abs(points):.1f} points {'below' if points < 0 else 'above'}"


def evidence(difference: Difference) -> str:
    """The difference with its 95 % interval, n, and what that says."""
    if difference.half is None:
        return "one seed, so no interval" if difference.n == 1 else f"{difference.n} seeds, too few for an interval"
    told = {"unclear": "which holds zero: no clear difference"}.get(difference.verdict, difference.verdict)
    return f"difference {signed(difference.mean)}, 95 % interval {interval(difference)}, n = {difference.n}: {told}"


def shots(run: Run) -> int:
    """Labels per class of the few-label evaluation."""
    return next(int(s.config["shots"]) for s in run.stages if s.kind == "eval")
