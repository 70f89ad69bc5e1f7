"""One round of the kernel benchmark: check every variant, then time in turn those that are right.

Each variant becomes a row: its setting, errors against fp64, bitwise repeats, extra memory, host time and samples; or
the reason why one of these is not there.
"""

import gc
import math
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from bingo.bench.kernels.peers import COMPILE_LIMIT, Variant, splits
from bingo.bench.kernels.record import Row
from bingo.bench.kernels.workload import LOSS, Inputs, exact
from bingo.bench.samples import median_interval, visited_ratio
from bingo.bench.timing import (
    Call,
    Timed,
    Timer,
    first_line,
    interleave,
    relative_error,
)

VISIT_SECONDS = 0.05
POISON_BYTES = 1 << 28


@dataclass
class KernelRun:
    """One run of the benchmark: its settings, and what later rounds take from earlier ones."""

    timer: Timer
    deadline: float
    """time.monotonic() after which nothing new starts."""
    rounds: int
    samples: int
    repeats: int
    inputs: dict[int, Inputs] = field(default_factory=dict)
    """By the number of rows."""
    exact: dict[tuple[int, str], tuple[torch.Tensor, ...]] = field(default_factory=dict)
    """Answers by rows and task."""
    chosen: dict[tuple[int, str], Any] = field(default_factory=dict)
    """Fastest settings by rows and variant."""
    compiled_in: dict[str, float] = field(default_factory=dict)
    """Seconds that a variant's last compilation took: what its next one may take."""

    def left(self) -> float:
        return self.deadline - time.monotonic()


def reference(results: list[Row]) -> Row | None:
    """The fastest result of our kernels; of our fallback where no kernel ran."""
    for group in ("ours", "ours chunked"):
        ran = [row for row in results if row["group"] == group and row["status"] == "ok"]
        if ran:
            return min(ran, key=lambda row: row["median_s"])
    return None


def measure(
    run: KernelRun,
    rows: int,
    task: str,
    variants: list[Variant],
    *,
    beside: Variant | None = None,
    again: bool = False,
) -> list[Row]:
    """One round: prepare and check each variant, then time in turn those that passed.

    beside: one of ours that is timed with them again. again: our first that passes is timed twice, as two variants.
    """
    results = [_new_row(variant, rows, task) for variant in variants]
    timed: dict[str, Timed] = {}
    for variant, row in zip(variants, results, strict=True):
        ready = _try(run, variant, row)
        if ready:
            timed[variant.name] = ready
    repeats: list[tuple[Variant, Row]] = []
    if beside and timed:
        repeats.append((beside, _new_row(beside, rows, task) | {"repeat": True}))
    twin = next((v for v in variants if v.ours and v.name in timed), None)
    if again and twin:
        twice: Row = _new_row(twin, rows, task) | {"variant": f"{twin.name} again", "group": "again", "repeat": True}
        repeats.append((twin, twice))
    for variant, row in repeats:
        ready = _try(run, variant, row)
        if ready:
            results.append(row)
            timed[row["variant"]] = ready
    _time(run, results, timed)
    if run.timer.device.type == "cuda":
        timed.clear()
        _free()
    return results


def _new_row(variant: Variant, rows: int, task: str) -> Row:
    return {
        "variant": variant.name, "group": variant.group, "rows": rows, "task": task, "status": "ok", "reason": "",
        "note": variant.note, "repeat": False,
    }  # fmt: skip


def _try(run: KernelRun, variant: Variant, row: Row) -> Timed | None:
    """`_prepare`, with whatever stops it written into the row."""
    left, compiling = run.left(), run.compiled_in.get(variant.name, variant.compile_seconds)
    if left <= compiling:
        wanted = f", and it may compile for {compiling:.0f} s" if compiling else ""
        row |= {"status": "skipped", "reason": f"{max(0.0, left):.0f} s of the time budget were left{wanted}"}
        return None
    start = time.monotonic()
    try:
        return _prepare(run, variant, row)
    except ModuleNotFoundError as error:
        row |= {"status": "absent", "reason": f"{error.name} is not installed"}
    except Exception as error:  # a peer may fail in any way; each is a row that says so
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
    finally:
        row["prepare_s"] = time.monotonic() - start
        if variant.compile_seconds:
            run.compiled_in[variant.name] = row["prepare_s"]
    return None


def _prepare(run: KernelRun, variant: Variant, row: Row) -> Timed | None:
    """Choose the setting, then gate, repeats, memory and host time. None if the answer is wrong."""
    inputs, timer = run.inputs[row["rows"]], run.timer
    with torch._dynamo.config.patch(recompile_limit=COMPILE_LIMIT) if variant.compile_seconds else nullcontext():
        call, timed = _choose(run, variant, row)
    if variant.tolerance and not _passes(run, variant, row, call):
        return None
    if variant.ours:
        row["bitwise_repeats"] = _equal_repeats(call, run.repeats)
        if row["bitwise_repeats"] < run.repeats:
            row |= {"status": "wrong", "reason": f"repeat {row['bitwise_repeats'] + 1} differs from the first"}
            return None
    row["extra_bytes"] = timer.extra_bytes(call)
    row["host_s"] = timer.host_seconds(call, len(inputs.queues))
    row |= {"method": timed.method, "calls_per_sample": timed.calls, "method_note": timed.note}
    return timed


def _choose(run: KernelRun, variant: Variant, row: Row) -> tuple[Call, Timed]:
    """The variant under the fastest of its settings; all their times (seconds) or errors go into the row."""
    inputs = run.inputs[row["rows"]]
    options = variant.options(inputs.shape)
    if variant.like:
        options = (run.chosen.get((row["rows"], variant.like), splits(inputs.shape)[-1]),)
    best: tuple[float, Any, Call, Timed] | None = None
    sweep: dict[str, float | str] = {}
    for option in options:
        if best and run.left() <= 0:
            sweep[str(option)] = "no time left"
            continue
        try:
            call = variant.build(inputs, option)
            timed = run.timer.prepare(call, len(inputs.queues), variant.no_capture)
            seconds = statistics.median(timed.samples(3)) if len(options) > 1 else 0.0
        except Exception as error:
            if option == options[-1] and best is None:
                raise
            sweep[str(option)] = first_line(error)
            continue
        sweep[str(option)] = seconds
        if best is None or seconds < best[0]:
            best = (seconds, option, call, timed)
    assert best is not None
    if best[1] is not None:
        run.chosen[row["rows"], variant.name] = best[1]
        row |= {"option": str(best[1]), "sweep": sweep}
    return best[2], best[3]


def _passes(run: KernelRun, variant: Variant, row: Row, call: Call) -> bool:
    """Compare with fp64 on the inputs as drawn; a miss, or NaN, makes the row wrong."""
    key, row_shape = (row["rows"], row["task"]), run.inputs[row["rows"]].shape
    if key not in run.exact:
        run.exact[key] = exact(run.inputs[row["rows"]], row["task"])
    _poison(run.timer.device)
    names = ("loss", "dq") if row["task"] == LOSS else ("L",)
    answers = zip(names, call(0), run.exact[key], variant.allowed(row_shape), strict=False)
    errors = {name: (relative_error(mine, truth), limit) for name, mine, truth, limit in answers}
    row["error"] = {name: error if math.isfinite(error) else None for name, (error, _) in errors.items()}
    row["tolerance"] = {name: limit for name, (_, limit) in errors.items()}
    missed = [
        f"{name} is off by {error:.1e}, allowed {limit:.0e}"
        for name, (error, limit) in errors.items()
        if not error <= limit
    ]
    if missed:
        row |= {"status": "wrong", "reason": "; ".join(missed)}
    return not missed


def _poison(device: torch.device) -> None:
    """Leave NaN in the memory that the next call will be given: an element it does not write shows."""
    size = POISON_BYTES if device.type == "cuda" else POISON_BYTES >> 8
    if device.type == "cuda":
        torch.cuda.empty_cache()  # or the allocator would hand out blocks that hold earlier, right answers
    large = [torch.full((size // 4,), torch.nan, device=device)]
    small = [torch.full((1 << 16,), torch.nan, device=device) for _ in range(16)]  # another pool of the allocator
    del large, small


def _equal_repeats(call: Call, repeats: int) -> int:
    """How many of `repeats` calls in a row give the bits of a first one."""
    first = call(0)
    for done in range(repeats):
        if not all(torch.equal(mine, once) for mine, once in zip(call(0), first, strict=True)):
            return done
    return repeats


def _time(run: KernelRun, results: list[Row], timed: dict[str, Timed]) -> None:
    try:
        samples = interleave(timed, run.rounds, run.samples, VISIT_SECONDS)
    except Exception as error:  # the device is lost: what was measured before stays
        samples = {}
        for row in results:
            if row["status"] == "ok":
                row |= {"status": "failed", "reason": f"while timing: {first_line(error)}"}
    for row in results:
        if row["variant"] in samples and row["status"] == "ok":
            row["samples_s"] = samples[row["variant"]]
            summary = median_interval(row["samples_s"])
            row |= {"median_s": summary["median"], "n": summary["n"]}
            if summary["interval"]:
                row["interval_s"] = summary["interval"]
    best = reference(results)
    for row in results:
        if best and row is not best and "samples_s" in row:
            ratio = visited_ratio(row["samples_s"], best["samples_s"], 2 * run.rounds)
            row["over_ours"] = {**ratio, "ours": best["variant"]}


def _free() -> None:
    gc.collect()
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # a lost device: every later row will say so
        return
