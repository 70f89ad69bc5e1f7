"""The figures of `bingo bench step` as rows of the one schema."""

from collections.abc import Iterable
from typing import Any, cast

from bingo.bench.record import Clock, Row
from bingo.bench.step.record import Figures, Result

STEP = "seconds per step"


def rows(results: Iterable[Result]) -> list[Row]:
    """Times of whole steps by every clock, of their parts, and memory, of every shape and variant."""
    every = [(found, name) for found in results for name in found["variants"]]
    return [row for found, name in every for row in _rows(found, name, found["variants"][name])]


def _rows(found: Result, variant: str, figures: Figures) -> list[Row]:
    shape, gpu = found["shape"], found["shape"]["device"] != "cpu"
    case = (
        f"{shape['student']} from {shape['teacher']}, {shape['size']} px, batch {shape['batch']}, K={shape['queue']} "
        f"C={shape['dim']}, {found['threads']} thread(s)"
    )

    def row(metric: str, clock: Clock, samples: list[Any], **more: Any) -> Row:
        named = {"case": case, "variant": variant, "metric": metric, "better": "lower", "clock": clock}
        return cast(Row, {**named, "processes": [samples], **more})

    if "error" in figures:
        return [row(STEP, "wall" if gpu else "cpu", [], error=figures["error"])]
    whole: dict[str, Any] = {"work": {"images": shape["batch"]}, "order": figures["order"]}
    whole["discarded"] = figures["discarded_steps"]
    if "loss_gate" in figures:
        whole["accuracy"] = figures["loss_gate"]
    made = []
    if "cpu_seconds" in figures:
        made.append(row(STEP, "cpu", figures["cpu_seconds"]["samples"], **whole))
    if "seconds" in figures:
        made.append(row(STEP, "wall", figures["seconds"]["samples"], **whole))
    clock: Clock = "cuda" if gpu else "wall"
    made += [row(f"seconds per step in {part}", clock, samples) for part, samples in figures["parts"].items()]
    if figures["peak_bytes"] is not None:
        made.append(row("bytes of device memory at the peak", "none", [figures["peak_bytes"]]))
    return made or [row(STEP, "wall", [], error="not timed: the time was up")]
