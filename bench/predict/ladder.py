"""The ladder: from a release-style step to ours, one change on each rung, and what nothing does yet."""

from bingo.bench.predict.step import Teacher, Variant

RELEASE = "release-style TF32"
LIVE, CACHED = "+ student compiled", "+ cached keys"
NOT_THERE = "not in the code"
ALONE = "in runs of one process"

LADDER = (
    Variant(RELEASE, "tf32", release=True, layout=True),
    Variant(f"{RELEASE}, no layout passes", "tf32", release=True),
    Variant("release-style bf16 channels-last", release=True),
    Variant("ours bf16 channels-last"),
    Variant("+ teacher's batch norm folded", teacher="folded"),
    Variant("+ teacher compiled", teacher="compiled"),
    Variant(LIVE, teacher="compiled", student="compiled"),
    Variant("+ CUDA graph", teacher="compiled", student="compiled", graph=True, note=ALONE),
    Variant(CACHED, teacher="none", student="compiled"),
    Variant("+ cached keys, CUDA graph", teacher="none", student="compiled", graph=True, note=ALONE),
    Variant("teacher by cuDNN's fused calls", teacher="library", student="compiled", note=NOT_THERE),
    Variant("cached, student's products alone", teacher="none", student="bound", note=f"{NOT_THERE}; a bound"),
)


def chosen(engine: Teacher, student: str, *, cached: bool, graph: bool) -> Variant:
    """What the flags ask for."""
    return Variant(
        "as asked", teacher="none" if cached else engine, student="compiled" if student == "yes" else "plain",
        graph=graph,
    )  # fmt: skip
