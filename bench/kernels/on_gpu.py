"""`bingo bench kernels` on a GPU: our kernels (Triton, Hopper) timed beside their peers; CPU: `on_cpu`.

For every number of rows: accuracy gate, repeats, memory and host time of each variant, then all of them timed in turn.
Three rounds of variants, so that a slow or crashing peer cannot cost what came before it: ours and plain PyTorch for
all sizes; libraries that may be installed; whatever goes through torch.compile, as far as the time budget lasts. The
last two have our fastest kernel beside them again, and ratios are taken within a round.
"""

import re
import time
from collections.abc import Callable, Sequence

import torch

from bingo.bench.arguments import chosen
from bingo.bench.kernels.cpu_losses import RIVALS
from bingo.bench.kernels.on_cpu import run as run_cpu
from bingo.bench.kernels.peers import COMPILED, LIBRARIES, PLAIN, Variant
from bingo.bench.kernels.record import Case, CpuResult, Device, GpuResult, Roof, Row
from bingo.bench.kernels.rounds import KernelRun, measure, reference
from bingo.bench.kernels.tables import aims, print_table
from bingo.bench.kernels.workload import LOSS, TASKS, LossShape, make_inputs, make_queues
from bingo.bench.samples import visited_ratio
from bingo.bench.timing import Timer, device_name, make_timer
from bingo.environment import version

__all__ = ["print_table", "run_any", "run_gpu"]

ROWS = (256, 768, 1536, 3072)
OnChange = Callable[[GpuResult], None]
SLACK = 2e-6  # our error may exceed that of PyTorch in the same dtype by this much


def run_any(
    device: str,
    rows: Sequence[int] | None,
    queue: int,
    dim: int,
    samples: int | None,
    variants: Sequence[str] = (),
    *,
    seconds: float,
    on_change: OnChange = lambda found: None,
) -> CpuResult | GpuResult:
    """`run_cpu` or `run_gpu`, whichever the device is for; "auto" is a GPU if there is one. None: the defaults of each.

    variants: names, or their beginnings, of a CPU's losses; none for all. ValueError for sizes below 1, several row
    counts on a CPU, variants elsewhere or that are none, and a device that is not there.
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
        return run_cpu(rows[0] if rows else 768, queue, dim, samples or 7, chosen(RIVALS, variants))
    if variants:
        raise ValueError("--variants is about the CPU's losses, and this runs on a GPU: leave it out")
    if not re.fullmatch(r"cuda(:\d+)?", device) or int(device[5:] or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: there is no such device here; use cpu or auto")
    return run_gpu(device, rows or ROWS, queue, dim, samples=samples or 5, seconds_budget=seconds, on_change=on_change)


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
    seconds_budget: float = 150.0,
    seed: int = 0,
    on_change: OnChange = lambda found: None,
) -> GpuResult:
    """Measure every variant at every number of rows; JSON-ready, with every sample in seconds per call.

    rounds: of two visits to each variant; samples: at most so many a visit; repeats: of ours that must be bitwise
    equal; seconds_budget: nothing new starts once it is used up (a compilation under way is not cut short); on_change
    gets the result so far after every case of a round. Any device works, but off CUDA the times mean little and there
    is no roof. ValueError for sizes below 1.
    """
    if not rows or min(*rows, keys, dim, positives, rounds, samples, repeats) < 1:
        raise ValueError("rows, keys, dim, positives, rounds, samples and repeats must be at least 1")
    device, start = torch.device(device), time.monotonic()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    run = KernelRun(make_timer(device), start + seconds_budget, rounds, samples, repeats)
    roof = _roof(run)
    shapes = [LossShape(r, keys, dim, positives, temperature) for r in dict.fromkeys(rows)]
    queues = _make_inputs(run, shapes, seed)
    cases = {(s.rows, task): _new_case(s, task, roof) for s in shapes for task in TASKS}
    found: GpuResult = {
        "kind": "gpu",
        "device": _device(run.timer),
        "shape": {"rows": [s.rows for s in shapes], "queue": keys, "dim": dim, "positives": positives,
                  "temperature": temperature, "dtype": "bfloat16"},
        "settings": {"rounds": rounds, "samples": samples, "repeats": repeats, "queues": queues, "seed": seed,
                     "seconds_budget": seconds_budget, "order": "ABBA"},
        "roof": roof,
        "cases": list(cases.values()),
        "seconds": 0.0,
        "aims": [],
    }  # fmt: skip

    def add(case: Case, rows: list[Row]) -> None:
        case["results"] += rows
        on_change(found)

    for (r, task), case in cases.items():
        add(case, measure(run, r, task, PLAIN[task], again=True))
    for (r, task), case in cases.items():
        add(case, measure(run, r, task, LIBRARIES[task], beside=_fastest(case, task)))
    for variants in COMPILED:
        for s in shapes:
            case = cases[s.rows, LOSS]
            add(case, measure(run, s.rows, LOSS, variants, beside=_fastest(case, LOSS)))
    for case in cases.values():
        _derive(case, roof, 2 * rounds)
    found |= {"seconds": time.monotonic() - start, "aims": aims(shapes[0], list(cases.values()))}
    return found


def _roof(run: KernelRun) -> Roof | None:
    if run.timer.device.type != "cuda":
        return None
    from bingo.bench.kernels.roof import measure_roof

    return measure_roof(run.timer.device)


def _make_inputs(run: KernelRun, shapes: list[LossShape], seed: int) -> int:
    """Draw the queues, which all sizes share, and each size's rows; the number of queues."""
    generator, device = torch.Generator().manual_seed(seed), run.timer.device
    queues = make_queues(shapes[0], device, run.timer.l2_bytes, generator)
    for shape in shapes:
        run.inputs[shape.rows] = make_inputs(shape, queues, device, generator)
    return len(queues)


def _device(timer: Timer) -> Device:
    return {
        "type": timer.device.type,
        "name": device_name(timer.device),
        "l2_bytes": timer.l2_bytes,
        "torch": torch.__version__,
        "triton": version("triton"),
    }


def _new_case(shape: LossShape, task: str, roof: Roof | None) -> Case:
    """One number of rows and one task, with its floor: the slowest of tensor cores, exponentials and memory."""
    case: Case = {
        "rows": shape.rows, "task": task, "flops": shape.flops(task), "results": [], "least_bytes": shape.least_bytes(),
    }  # fmt: skip
    if roof:
        floors = {
            "matrix products": shape.flops(task) / roof["matmul_flops"],
            "exponentials": shape.rows * shape.keys / roof["exp_per_second"],
            "memory": shape.least_bytes() / roof["copy_bytes"],
        }
        case["floors_s"] = floors
        case["floor_s"] = max(floors.values())
    return case


def _fastest(case: Case, task: str) -> Variant | None:
    """Our fastest kernel of this case (or, without one, our fallback), to be timed beside later rounds."""
    best = reference(case["results"])
    return next((v for v in PLAIN[task] if best and v.name == best["variant"]), None)


def _derive(case: Case, roof: Roof | None, visits: int) -> None:
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
            errors, others = row["error"], peer["error"]
            row["as_accurate_as_torch"] = all(_as_accurate(error, others[name]) for name, error in errors.items())
        if row["group"] == "again" and "samples_s" in row:
            once = next(r for r in case["results"] if f"{r['variant']} again" == row["variant"])
            noise = visited_ratio(row["samples_s"], once["samples_s"], visits)
            case["noise"] = {**noise, "variant": once["variant"]}


def _as_accurate(ours: float | None, theirs: float | None) -> bool:
    return ours is not None and theirs is not None and ours <= theirs + SLACK
