"""The tables of docs/predicted.md, so that the page can be held against the code."""

from collections.abc import Iterator

from bingo.bench.predict import calibration
from bingo.bench.predict.gpus import GPUS
from bingo.bench.predict.ladder import LADDER, RELEASE
from bingo.bench.predict.step import Job, Variant, predict

STUDENTS = ("resnet18", "resnet34")
ROWS = (32, 128, 256)
PER_NODE = 8
SHOWN = {
    "live": Variant("live", teacher="compiled", student="compiled"),
    "cached": Variant("cached", teacher="none", student="compiled"),
}


def lines() -> list[str]:
    """Three tables in Markdown: the ladder, kinds and batches, the published measurements."""
    return [*ladder(), "", *kinds(), "", *published()]


def ladder() -> Iterator[str]:
    """The rungs on eight H100, 256 and 32 images per GPU; ratios to the first two rungs, release-style both."""
    yield "| step on 8 H100 | ms, 256 per GPU | x first | x second | ms, 32 per GPU | x first | in the code |"
    yield "|---|---|---|---|---|---|---|"
    first, second, small = (_seconds(256, LADDER[0]), _seconds(256, LADDER[1]), _seconds(32, LADDER[0]))
    for variant in LADDER:
        large, little = (_seconds(rows, variant) for rows in (256, 32))
        yield (
            f"| {variant.name} | {1000 * large:.1f} | {first / large:.2f} | {second / large:.2f} | "
            f"{1000 * little:.1f} | {small / little:.2f} | {variant.note or 'yes'} |"
        )


def _seconds(rows: int, variant: Variant) -> float:
    return predict(Job(rows=rows, per_node=PER_NODE), variant, GPUS["H100"]).seconds


def kinds() -> Iterator[str]:
    """Milliseconds per step by student, kind of GPU and batch, and the ratio to a release-style step."""
    yield "| student | GPU | images per GPU | release TF32, ms | live, ms | x | cached, ms | x | decoded/s, live |"
    yield "|---|---|---|---|---|---|---|---|---|"
    release = next(variant for variant in LADDER if variant.name == RELEASE)
    for student in STUDENTS:
        for machine in GPUS.values():
            for rows in ROWS:
                job = Job(student, rows=rows, per_node=PER_NODE)
                base, live, cached = (predict(job, v, machine) for v in (release, *SHOWN.values()))
                cells = [f"{1000 * s.seconds:.1f} | {base.seconds / s.seconds:.2f}" for s in (live, cached)]
                decoded = round(2 * rows / live.seconds, -2)
                yield (
                    f"| {student} | {machine.name} | {rows} | {1000 * base.seconds:.1f} | {' | '.join(cells)} | "
                    f"{decoded:,.0f} |"
                )


def published() -> Iterator[str]:
    """The model against what others measured."""
    yield "| published measurement | predicted, images/s | measured | error |"
    yield "|---|---|---|---|"
    for check in calibration.single_gpu() + calibration.many_gpus():
        error = "fitted to" if check.fitted else f"{100 * check.error:+.1f} %"
        yield f"| {check.name} | {check.predicted:,.0f} | {check.measured:,.0f} | {error} |"
