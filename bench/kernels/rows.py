"""The kernel benchmark's and the compile report's figures as rows of the one schema."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from bingo.bench.kernels.record import Case, CpuResult, GpuResult, Roof
from bingo.bench.kernels.record import Row as Timing
from bingo.bench.record import Clock, Row

SECONDS, MEMORY = "seconds per call", "bytes beyond the inputs"
COUNTS = ("registers", "spill_bytes", "shared_bytes", "loop_instructions", "expected_cycles")
"""What `compile_report` counts of every kernel, and expects of a tile; the fewer the better."""


def rows(result: CpuResult | GpuResult) -> list[Row]:
    """Times and memory of every loss, or why there are none."""
    return _cpu(cast(Mapping[str, Any], result)) if result["kind"] == "cpu" else _gpu(result)


def aot_rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """What the compiler made of every kernel; the gate is the accuracy of these."""
    return [
        {
            "case": f"{found['kernel']} {found['variant']} {found['dtype']} C={found['channels']}".strip(),
            "variant": f"sm_{found['arch']}", "metric": name.replace("_", " "), "better": "lower", "clock": "none",
            "processes": [[found[name]]], "exact": True,
            "accuracy": {"ok": found["gate"] == "ok", "error": found["gate"]},
        }
        for found in records
        for name in COUNTS
        if found.get(name) is not None
    ]  # fmt: skip


def _cpu(result: Mapping[str, Any]) -> list[Row]:
    shape = result["shape"]
    sizes = " ".join(f"{letter}={shape[name]}" for letter, name in zip("RKCM", shape, strict=False))
    case = f"loss + gradient, {sizes} {shape['dtype']}, {result['threads']} thread(s)"
    found: list[Row] = []
    for clock, name in (("cpu", "cpu_seconds"), ("wall", "seconds")):
        for variant, samples in result.get(name, {}).items():
            found.append(_row(case, variant, SECONDS, cast(Clock, clock), samples) | _accuracy(result, variant))
    for variant, extra in result["extra_bytes"].items():
        if extra is not None:
            found.append(_row(case, variant, MEMORY, "none", [extra]))
    for variant, why in result.get("failed", {}).items():
        found.append(_row(case, variant, SECONDS, "cpu", []) | {"error": why})
    for variant, samples in result["host_seconds"].items():
        found.append(_row("host time per call, R=4 K=32 C=16, 1 thread", variant, SECONDS, "wall", samples))
    return found


def _accuracy(result: Mapping[str, Any], variant: str) -> Row:
    """The errors against fp64, where they are known: earlier releases wrote those of the chunked loss alone."""
    known = result.get("accuracy", {}).get(variant)
    if known is None and variant == "chunked" and "relative_error" in result:
        known = {"ok": True, **result["relative_error"], "bound": 1e-5}
    return cast(Row, {"accuracy": known} if known else {})


def _gpu(result: GpuResult) -> list[Row]:
    shape = result["shape"]
    sizes = f"K={shape['queue']} C={shape['dim']} M={shape['positives']} t={shape['temperature']} {shape['dtype']}"
    found = _roof(result["roof"])
    for case in result["cases"]:
        name, again = f"{case['task']}, R={case['rows']} {sizes}", 0
        for timing in case["results"]:
            again += timing["repeat"]
            variant = f"{timing['variant']}, timed again {again}" if timing["repeat"] else timing["variant"]
            found += _timing(name, variant, case, timing)
    return found


def _timing(name: str, variant: str, case: Case, timing: Timing) -> list[Row]:
    clock: Clock = "cuda" if timing.get("method") in ("CUDA graph", "events") else "wall"
    row = _row(name, variant, SECONDS, clock, timing.get("samples_s", []))
    row["work"] = {"flops": case["flops"], "bytes": case["least_bytes"]}
    row["order"] = "ABBA"
    if "error" in timing:
        right = timing["status"] != "wrong"
        row["accuracy"] = {"ok": right, "error": timing["error"], "bound": timing["tolerance"]}
    if not any(row["processes"]):
        row["error"] = f"{timing['status']}: {timing['reason'] or 'not timed'}"
    if notes := [text for text in (timing["note"], timing.get("method_note", "")) if text]:
        row["notes"] = notes
    extra = timing.get("extra_bytes")
    return [row] if extra is None else [row, _row(name, variant, MEMORY, "none", [extra])]


def _roof(roof: Roof | None) -> list[Row]:
    if roof is None:
        return []
    return [_row(f"roof: {roof['work']}", name, SECONDS, "cuda", samples) for name, samples in roof["seconds"].items()]


def _row(case: str, variant: str, metric: str, clock: Clock, samples: list[Any]) -> Row:
    return {
        "case": case, "variant": variant, "metric": metric, "better": "lower", "clock": clock, "processes": [samples],
    }  # fmt: skip
