"""The table and the picture of `bingo leaderboard`: arms by accuracy, paired intervals, ties called ties, and costs.

An arm ties with the best one where the 95 % interval of their difference, paired by seed, holds zero.
"""

from dataclasses import dataclass
from pathlib import Path

from bingo.bench.drawing import standalone
from bingo.bench.report.charts import COLOURS, Chart, Dot, dots
from bingo.bench.report.results import METRICS, Run, Student, compare, load
from bingo.bench.report.statistics import Difference, mean_half
from bingo.files import atomic_write
from bingo.objectives import OBJECTIVES

TABLE, PICTURE = "leaderboard.md", "leaderboard.svg"
BY = "linear"
"""What the rows are ordered by."""
TIE = "#808080"


@dataclass(frozen=True)
class Row:
    """One arm. scores: metric -> mean and half of its 95 % interval, in percent; behind: the best arm's score less its
    own, paired by seed, None for the best; passes, forwards: images through the student and the teacher while training;
    seconds: of training, median over seeds."""

    name: str
    n: int
    scores: dict[str, tuple[float, float | None]]
    behind: Difference | None
    passes: int
    forwards: int
    seconds: float

    @property
    def verdict(self) -> str:
        """The first, a tie with it, behind it; or that there are too few seeds to say."""
        if self.behind is None:
            return "first"
        told = {"better": "behind", "worse": "behind", "unclear": "tie"}
        return told.get(self.behind.verdict, self.behind.verdict)


def rows_of(run: Run, metric: str = BY) -> list[Row]:
    """The arms, the best mean of a metric first."""
    means = {name: _score(group, metric)[0] for name, group in run.arms.items()}
    order = sorted(means, key=lambda name: -means[name])
    best = run.arms[order[0]]
    return [_row(name, run.arms[name], None if name == order[0] else best, metric) for name in order]


def _row(name: str, group: tuple[Student, ...], best: tuple[Student, ...] | None, metric: str) -> Row:
    seconds = sorted(student.record.seconds for student in group)
    return Row(
        name,
        len(group),
        {each: _score(group, each) for each in METRICS},
        None if best is None else compare(group, best, metric),
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
    lines = [
        f"| arm | n | {names} | best − arm, {METRICS[metric]} | | student passes | teacher forwards | seconds |",
        f"|---|---|{'---|' * len(METRICS)}---|---|---|---|---|",
    ]
    for row in rows_of(run, metric):
        scores = " | ".join(_with_interval(*score) for score in row.scores.values())
        counts = (f"{count:,}".replace(",", " ") for count in (row.passes, row.forwards))
        cells = (row.name, str(row.n), scores, _difference(row.behind), row.verdict, *counts, f"{row.seconds:.0f}")
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
        colour = COLOURS[0] if row.verdict in ("first", "tie") else TIE
        found.append(Dot(row.name, mean, interval, points if len(points) > 1 else (), colour))
    alt = "; ".join(f"{row.name} {row.scores[metric][0]:.1f} %, {row.verdict}" for row in rows)
    return dots(f"{METRICS[metric]} accuracy, %", found, alt, label="blue: first, and what ties with it")


def write(root: Path) -> list[str]:
    """Write table and picture of a finished leaderboard into its folder; the lines to print."""
    run = load(root)
    text = table(run)
    with atomic_write(root / TABLE) as file:
        file.write(text.encode())
    with atomic_write(root / PICTURE) as file:
        file.write(standalone(picture(run).svg).encode())
    return [text.rstrip(), f"table: {root / TABLE}, picture: {root / PICTURE}"]
