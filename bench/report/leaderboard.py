"""The table and the picture of `bingo leaderboard`: arms by accuracy, paired intervals, ties called ties, and costs.

An arm ties with the best one, or with the base of ingredients, where the 95 % interval of their difference, paired by
seed, holds zero.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bingo.bench.drawing import standalone
from bingo.bench.report.charts import COLOURS, Chart, Dot, dots
from bingo.bench.report.results import METRICS, Run, Student, compare, load
from bingo.bench.report.statistics import Difference, mean_half
from bingo.files import atomic_write
from bingo.objectives import OBJECTIVES
from bingo.recipes.leaderboard import BASES

TABLE, PICTURE = "leaderboard.md", "leaderboard.svg"
BY = "linear"
"""What the rows are ordered by."""
OTHER = "#808080"
"""Of what is told apart from the first."""


@dataclass(frozen=True)
class Row:
    """One arm. scores: metric -> mean and half of its 95 % interval, in percent; difference: the best arm's score less
    its own, or its own less the base's (against: "best", "base"), paired by seed; None for that arm itself; passes,
    forwards: images through the student and the teacher while training; seconds: of training, median over seeds."""

    name: str
    n: int
    scores: dict[str, tuple[float, float | None]]
    difference: Difference | None
    against: Literal["best", "base"]
    passes: int
    forwards: int
    seconds: float

    @property
    def verdict(self) -> str:
        """The first, a tie with it, behind it; or better or worse than the base; or that there are too few seeds."""
        if self.difference is None:
            return "first" if self.against == "best" else "base"
        told = {"unclear": "tie"} | ({"better": "behind", "worse": "behind"} if self.against == "best" else {})
        return told.get(self.difference.verdict, self.difference.verdict)


def rows_of(run: Run, metric: str = BY) -> list[Row]:
    """The arms, the best mean of a metric first; where there is a base, it stands before the others."""
    means = {name: _score(group, metric)[0] for name, group in run.arms.items()}
    base = base_of(run)
    order = sorted(means, key=lambda name: (name != base, -means[name]))
    return [_row(name, run, order[0], "best" if base is None else "base", metric) for name in order]


def base_of(run: Run) -> str | None:
    """The arm that all others are compared with; None: that is the best one."""
    return BASES.get(str((run.settings or {}).get("compare")))


def _row(name: str, run: Run, first: str, against: Literal["best", "base"], metric: str) -> Row:
    group, other = run.arms[name], run.arms[first]
    pair = (group, other) if against == "best" else (other, group)
    seconds = sorted(student.record.seconds for student in group)
    return Row(
        name,
        len(group),
        {each: _score(group, each) for each in METRICS},
        None if name == first else compare(*pair, metric),
        against,
        group[0].passes,
        teacher_forwards(group[0]),
        seconds[len(seconds) // 2],
    )


def _score(group: tuple[Student, ...], metric: str) -> tuple[float, float | None]:
    mean, half = mean_half([student.scores[metric] for student in group])
    return 100 * mean, None if half is None else 100 * half


def teacher_forwards(student: Student) -> int:
    """Images through the teacher while the student trained; none with cached keys."""
    config = student.record.config
    if student.record.kind != "distill" or not config.get("teacher"):
        return 0
    return student.steps * config["optim"]["batch"] * OBJECTIVES[config["objective"]].keys


def table(run: Run, metric: str = BY) -> str:
    """The rows as a Markdown table."""
    names = " | ".join(f"{METRICS[each]}, %" for each in METRICS)
    base = base_of(run)
    difference = "best − arm" if base is None else f"arm − {base}"
    lines = [
        f"| arm | n | {names} | {difference}, {METRICS[metric]} | | student passes | teacher forwards | seconds |",
        f"|---|---|{'---|' * len(METRICS)}---|---|---|---|---|",
    ]
    for row in rows_of(run, metric):
        scores = " | ".join(_with_interval(*score) for score in row.scores.values())
        counts = (f"{count:,}".replace(",", " ") for count in (row.passes, row.forwards))
        cells = (row.name, str(row.n), scores, _difference(row.difference), row.verdict, *counts, f"{row.seconds:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _with_interval(mean: float, half: float | None) -> str:
    return f"{mean:.1f}" if half is None else f"{mean:.1f} ± {half:.1f}"


def _difference(found: Difference | None) -> str:
    if found is None:
        return ""
    mean = f"{100 * found.mean:.1f}"
    if found.half is None:
        return mean
    return f"{mean} [{100 * (found.mean - found.half):.1f}; {100 * (found.mean + found.half):.1f}]"


def picture(run: Run, metric: str = BY) -> Chart:
    """The arms with their intervals and seeds; those that tie with the first have its colour."""
    rows = rows_of(run, metric)
    found = []
    for row in rows:
        mean, half = row.scores[metric]
        points = [100 * student.scores[metric] for student in run.arms[row.name]]
        interval = None if half is None else (mean - half, mean + half)
        colour = COLOURS[0] if row.verdict in ("first", "base", "tie") else OTHER
        found.append(Dot(row.name, mean, interval, points if len(points) > 1 else (), colour))
    alt = "; ".join(f"{row.name} {row.scores[metric][0]:.1f} %, {row.verdict}" for row in rows)
    return dots(f"{METRICS[metric]} accuracy, %", found, alt, label=f"blue: {rows[0].verdict}, and what ties with it")


def write(root: Path) -> list[str]:
    """Write table and picture of a finished leaderboard into its folder; the lines to print."""
    run = load(root)
    text = table(run)
    with atomic_write(root / TABLE) as file:
        file.write(text.encode())
    with atomic_write(root / PICTURE) as file:
        file.write(standalone(picture(run).svg).encode())
    return [text.rstrip(), f"table: {root / TABLE}, picture: {root / PICTURE}"]
