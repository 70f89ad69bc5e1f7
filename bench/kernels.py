"""`bingo bench kernels` on a GPU: our kernels and their peers, side by side in one run; `kernels_cpu` on a CPU.

For every number of rows: accuracy gate, repeats, memory and host time of each variant, then all of them timed in turn.
Three rounds of variants, so that a slow or crashing peer cannot cost what came before it: ours and plain PyTorch for
all sizes; libraries that may be installed; whatever goes through torch.compile, as far as the time budget lasts. The
last two have our fastest kernel beside them again, and ratios are taken within a round.
"""

import gc
import math
import re
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from bingo.bench.kernel_tables import print_table
from bingo.bench.kernels_cpu import run
from bingo.bench.peers import COMPILE_LIMIT, COMPILED, LIBRARIES, PLAIN, Variant, splits
from bingo.bench.timing import (
    Call,
    Timed,
    Timer,
    first_line,
    interleave,
    make_timer,
    median_interval,
    ratio_interval,
    relative_error,
)
from bingo.bench.workload import LOSS, TASKS, Inputs, Shape, exact, make_inputs, make_queues
from bingo.environment import cpu_name, version

__all__ = ["print_table", "run", "run_any", "run_gpu"]

ROWS = (256, 768, 1536, 3072)
VISIT_SECONDS = 0.05
POISON_BYTES = 1 << 28
SLACK = 2e-6  # our error may exceed that of PyTorch in the same dtype by this much
Row = dict[str, Any]


@dataclass
class Session:
    """Settings of a run, and what later rounds take from earlier ones: inputs, exact answers, fastest settings."""

    timer: Timer
    deadline: float
    rounds: int
    samples: int
    repeats: int
    inputs: dict[int, Inputs] = field(default_factory=dict)
    exact: dict[tuple[int, str], tuple[torch.Tensor, ...]] = field(default_factory=dict)
    chosen: dict[tuple[int, str], Any] = field(default_factory=dict)

    def left(self) -> float:
        return self.deadline - time.monotonic()


def run_any(
    device: str, rows: Sequence[int] | None, queue: int, dim: int, samples: int | None, *, seconds: float
) -> dict[str, Any]:
    """`run` or `run_gpu`, whichever the device is for; "auto" is a GPU if there is one. None: the defaults of each.

    ValueError for sizes below 1, several row counts on a CPU, and a device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if min([*(rows or [1]), queue, dim, 1 if samples is None else samples]) < 1:
        raise ValueError("--rows, --queue, --dim and --samples must be at least 1")
    if seconds <= 0:
        raise ValueError(f"--seconds is {seconds:g}; it must be above 0")
    if device == "cpu":
        if rows and len(rows) > 1:
            raise ValueError("--rows: the CPU benchmark takes one number of rows; give several with --device cuda")
        return run(rows[0] if rows else 768, queue, dim, samples or 7)
    if not re.fullmatch(r"cuda(:\d+)?", device) or int(device[5:] or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: there is no such device here; use cpu or auto")
    return run_gpu(device, rows or ROWS, queue, dim, samples=samples or 5, seconds_budget=seconds)


def run_gpu(
    device: torch.device | str = "cuda",
    rows: Sequence[int] = ROWS,
    keys: int = 65536,
    dim: int = 128,
    positives: int = 2,
    temperature: float = 0.2,
    *,
    rounds: int = 5,
    samples: int = 5,
    repeats: int = 20,
    seconds_budget: float = 170.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure every variant at every number of rows; JSON-ready, with every sample in seconds per call.

    rounds: of two visits to each variant; samples: at most so many a visit; repeats: of ours that must be bitwise
    equal; seconds_budget: nothing new starts once it is used up (a compilation under way is not cut short). Any device
    works, but off CUDA the times mean little and there is no roof. ValueError for sizes below 1.
    """
    if not rows or min(*rows, keys, dim, positives, rounds, samples, repeats) < 1:
        raise ValueError("rows, keys, dim, positives, rounds, samples and repeats must be at least 1")
    device, start = torch.device(device), time.monotonic()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    session = Session(make_timer(device), start + seconds_budget, rounds, samples, repeats)
    roof = _roof(session)
    shapes = [Shape(r, keys, dim, positives, temperature) for r in dict.fromkeys(rows)]
    queues = _make_inputs(session, shapes, seed)
    cases = {(s.rows, task): _new_case(s, task, roof) for s in shapes for task in TASKS}
    for (r, task), case in cases.items():
        case["results"] += _measure(session, r, task, PLAIN[task], again=True)
    for (r, task), case in cases.items():
        case["results"] += _measure(session, r, task, LIBRARIES[task], beside=_fastest(case, task))
    for variants in COMPILED:
        for s in shapes:
            case = cases[s.rows, LOSS]
            case["results"] += _measure(session, s.rows, LOSS, variants, beside=_fastest(case, LOSS))
    for case in cases.values():
        _derive(case, roof)
    return {
        "kind": "gpu",
        "device": _device(session.timer),
        "shape": {"rows": [s.rows for s in shapes], "queue": keys, "dim": dim, "positives": positives,
                  "temperature": temperature, "dtype": "bfloat16"},
        "settings": {"rounds": rounds, "samples": samples, "repeats": repeats, "queues": queues, "seed": seed,
                     "seconds_budget": seconds_budget, "order": "ABBA"},
        "roof": roof,
        "cases": list(cases.values()),
        "seconds": time.monotonic() - start,
    }  # fmt: skip


def _roof(session: Session) -> dict[str, Any] | None:
    if session.timer.device.type != "cuda":
        return None
    from bingo.bench.roof import measure_roof

    return measure_roof(session.timer.device)


def _make_inputs(session: Session, shapes: list[Shape], seed: int) -> int:
    """Draw the queues, which all sizes share, and each size's rows; the number of queues."""
    generator, device = torch.Generator().manual_seed(seed), session.timer.device
    queues = make_queues(shapes[0], device, session.timer.l2_bytes, generator)
    for shape in shapes:
        session.inputs[shape.rows] = make_inputs(shape, queues, device, generator)
    return len(queues)


def _device(timer: Timer) -> dict[str, Any]:
    cuda = timer.device.type == "cuda"
    return {
        "type": timer.device.type,
        "name": torch.cuda.get_device_name(timer.device) if cuda else cpu_name(),
        "l2_bytes": timer.l2_bytes,
        "torch": torch.__version__,
        "triton": version("triton"),
    }


def _new_case(shape: Shape, task: str, roof: dict[str, Any] | None) -> dict[str, Any]:
    """One number of rows and one task, with its floor: the slowest of tensor cores, exponentials and memory."""
    case: dict[str, Any] = {"rows": shape.rows, "task": task, "flops": shape.flops(task), "results": []}
    case["least_bytes"] = shape.least_bytes()
    if roof:
        floors = {
            "matrix products": shape.flops(task) / roof["matmul_flops"],
            "exponentials": shape.rows * shape.keys / roof["exp_per_second"],
            "memory": shape.least_bytes() / roof["copy_bytes"],
        }
        case["floors_s"] = floors
        case["floor_s"] = max(floors.values())
    return case


def _fastest(case: dict[str, Any], task: str) -> Variant | None:
    """Our fastest kernel of this case (or, without one, our fallback), to be timed beside later rounds."""
    best = reference(case["results"])
    return next((v for v in PLAIN[task] if best and v.name == best["variant"]), None)


def reference(results: list[Row]) -> Row | None:
    """The fastest result of our kernels; of our fallback where no kernel ran."""
    for group in ("ours", "ours chunked"):
        ran = [row for row in results if row["group"] == group and row["status"] == "ok"]
        if ran:
            return min(ran, key=lambda row: row["median_s"])
    return None


def _measure(
    session: Session,
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
    results, timed = [], {}
    for variant in variants:
        row = _new_row(variant, rows, task)
        results.append(row)
        ready = _try(session, variant, row)
        if ready:
            timed[variant.name] = ready[1]
    if beside and timed:
        row = _new_row(beside, rows, task) | {"repeat": True}
        ready = _try(session, beside, row)
        if ready:
            results.append(row)
            timed[beside.name] = ready[1]
    twin = next((v for v in variants if v.ours and v.name in timed), None)
    if again and twin:
        row = _new_row(twin, rows, task) | {"variant": f"{twin.name} again", "group": "again", "repeat": True}
        ready = _try(session, twin, row)
        if ready:
            results.append(row)
            timed[row["variant"]] = ready[1]
    _time(session, results, timed)
    if session.timer.device.type == "cuda":
        timed.clear()
        _free()
    return results


def _new_row(variant: Variant, rows: int, task: str) -> Row:
    return {
        "variant": variant.name, "group": variant.group, "rows": rows, "task": task, "status": "ok", "reason": "",
        "note": variant.note, "repeat": False,
    }  # fmt: skip


def _try(session: Session, variant: Variant, row: Row) -> tuple[Call, Timed] | None:
    """`_prepare`, with whatever stops it written into the row."""
    left = session.left()
    if left <= variant.compile_seconds:
        wanted = f", and it may compile for {variant.compile_seconds:.0f} s" if variant.compile_seconds else ""
        row |= {"status": "skipped", "reason": f"{max(0.0, left):.0f} s of the time budget were left{wanted}"}
        return None
    start = time.monotonic()
    try:
        return _prepare(session, variant, row)
    except ModuleNotFoundError as error:
        row |= {"status": "absent", "reason": f"{error.name} is not installed"}
    except Exception as error:  # a peer may fail in any way; each is a row that says so
        row |= {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
    finally:
        row["prepare_s"] = time.monotonic() - start
    return None


def _prepare(session: Session, variant: Variant, row: Row) -> tuple[Call, Timed] | None:
    """Choose the setting, then gate, repeats, memory and host time. None if the answer is wrong."""
    inputs, timer = session.inputs[row["rows"]], session.timer
    with torch._dynamo.config.patch(recompile_limit=COMPILE_LIMIT) if variant.compile_seconds else nullcontext():
        call, timed = _choose(session, variant, row)
    if variant.tolerance and not _passes(session, variant, row, call):
        return None
    if variant.ours:
        row["bitwise_repeats"] = _equal_repeats(call, session.repeats)
        if row["bitwise_repeats"] < session.repeats:
            row |= {"status": "wrong", "reason": f"repeat {row['bitwise_repeats'] + 1} differs from the first"}
            return None
    row["extra_bytes"] = timer.extra_bytes(call)
    row["host_s"] = timer.host_seconds(call, len(inputs.queues))
    row |= {"method": timed.method, "calls_per_sample": timed.calls, "method_note": timed.note}
    return call, timed


def _choose(session: Session, variant: Variant, row: Row) -> tuple[Call, Timed]:
    """The variant under the fastest of its settings; all their times (seconds) or errors go into the row."""
    inputs = session.inputs[row["rows"]]
    options = variant.options(inputs.shape)
    if variant.like:
        options = (session.chosen.get((row["rows"], variant.like), splits(inputs.shape)[-1]),)
    best: tuple[float, Any, Call, Timed] | None = None
    sweep: dict[str, Any] = {}
    for option in options:
        if best and session.left() <= 0:
            sweep[str(option)] = "no time left"
            continue
        try:
            call = variant.build(inputs, option)
            timed = session.timer.prepare(call, len(inputs.queues), variant.no_capture)
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
        session.chosen[row["rows"], variant.name] = best[1]
        row |= {"option": str(best[1]), "sweep": sweep}
    return best[2], best[3]


def _passes(session: Session, variant: Variant, row: Row, call: Call) -> bool:
    """Compare with fp64 on the inputs as drawn; a miss, or NaN, makes the row wrong."""
    assert variant.tolerance is not None
    key = (row["rows"], row["task"])
    if key not in session.exact:
        session.exact[key] = exact(session.inputs[row["rows"]], row["task"])
    _poison(session.timer.device)
    names = ("loss", "dq") if row["task"] == LOSS else ("L",)
    answers = zip(names, call(0), session.exact[key], variant.tolerance, strict=False)
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


def _time(session: Session, results: list[Row], timed: dict[str, Timed]) -> None:
    try:
        samples = interleave(timed, session.rounds, session.samples, VISIT_SECONDS)
    except Exception as error:  # the device is lost: what was measured before stays
        samples = {}
        for row in results:
            if row["status"] == "ok":
                row |= {"status": "failed", "reason": f"while timing: {first_line(error)}"}
    for row in results:
        if row["variant"] in samples and row["status"] == "ok":
            row["samples_s"] = samples[row["variant"]]
            summary = median_interval(row["samples_s"])
            row |= {"median_s": summary["median"], "interval_s": summary["interval"], "n": summary["n"]}
    best = reference(results)
    for row in results:
        if best and row is not best and "samples_s" in row:
            row["over_ours"] = ratio_interval(row["samples_s"], best["samples_s"]) | {"ours": best["variant"]}


def _free() -> None:
    gc.collect()
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # a lost device: every later row will say so
        return


def _derive(case: dict[str, Any], roof: dict[str, Any] | None) -> None:
    """Rates, shares of the roof, and whether ours is as accurate as PyTorch in the same dtype."""
    peers = {"ours": "naive bf16", "ours chunked": "naive bf16", "ours fp32": "naive fp32"}
    for row in case["results"]:
        if "median_s" in row:
            row["flops_per_second"] = case["flops"] / row["median_s"]
            if roof:
                row["share_of_roof"] = row["flops_per_second"] / roof["matmul_flops"]
                row["over_floor"] = row["median_s"] / case["floor_s"]
        peer = next((r for r in case["results"] if r["variant"].startswith(peers.get(row["group"], "-"))), None)
        if peer and "error" in row and "error" in peer:
            pairs = [(error, peer["error"][name]) for name, error in row["error"].items()]
            row["as_accurate_as_torch"] = all(None not in (e, p) and e <= p + SLACK for e, p in pairs)
        if row["group"] == "again" and "samples_s" in row:
            once = next(r for r in case["results"] if f"{r['variant']} again" == row["variant"])
            case["noise"] = ratio_interval(row["samples_s"], once["samples_s"]) | {"variant": once["variant"]}
