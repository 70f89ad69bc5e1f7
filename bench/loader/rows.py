"""The figures of `bingo bench loader` as rows of the one schema."""

from typing import Any, cast

from bingo.bench.loader.record import Gate, Gpu, Result
from bingo.bench.record import Clock, Row

IMAGE = "seconds per image"


def rows(found: Result) -> list[Row]:
    """Seconds per decoded image of every variant and stage by both clocks, then what a GPU's decoder showed."""
    shape, images = found["shape"], found["images"]
    about = f"{images['images']} images of {images['mean_bytes'] / 1e3:.0f} kB, batch {shape['batch']}"
    about += f", {shape['threads']} thread(s)"
    made: list[Row] = []
    for row in found["rows"]:
        case, variant = f"{row['stage']}, {about}", row["variant"]
        more: dict[str, Any] = {"order": "ABBA", "discarded": found["discarded_bursts"], "work": {"images": 1}}
        if variant.startswith("ours"):
            more["accuracy"] = {**found["gate"], "ok": _ok(found["gate"])}
        if "error" in row:
            made.append(_row(case, variant, "cpu", [], error=row["error"]))
            continue
        made.append(_row(case, variant, "cpu", row["cpu_seconds"]["samples"], **more))
        made.append(_row(case, variant, "wall", row["wall_seconds"]["samples"], **more))
    return made + _sweep(found["gpu"], about)


def _ok(gate: Gate) -> bool:
    return gate["crops"]["ok"] and gate["colours"]["ok"]


def _sweep(gpu: Gpu, about: str) -> list[Row]:
    made = []
    for row in gpu.get("sweep", []):
        seconds = row["seconds"]
        samples = seconds["samples"] if isinstance(seconds, dict) else []
        more: dict[str, Any] = {"notes": ["batch of the setting, not of the case"]}
        if not samples:
            more["error"] = row.get("error", "nothing beyond the warm-up")
        made.append(_row(f"GPU decoder, {about}", row["name"], "wall", samples, **more))
    return made


def _row(case: str, variant: str, clock: Clock, samples: list[float], **more: Any) -> Row:
    return cast(
        Row,
        {"case": case, "variant": variant, "metric": IMAGE, "better": "lower", "clock": clock, "processes": [samples]}
        | more,
    )
