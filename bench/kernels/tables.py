"""The kernel benchmark as text: one table per case, and the aims beside what was measured."""

from collections.abc import Callable, Iterator

from bingo.bench.kernels import on_cpu as kernels_cpu
from bingo.bench.kernels.record import Aim, Case, CpuResult, GpuResult, GpuShape, Row
from bingo.bench.kernels.workload import LOSS, LossShape
from bingo.bench.samples import ends, shown

AIMS: dict[int, dict[str, float]] = {
    256: {"µs": 20, "attention": 1.3, "fused": 5, "naive fp32": 40, "MB": 9},
    768: {"µs": 42, "attention": 1.15, "products": 1.0, "fused": 3, "naive fp32": 50, "MB": 9},
    1536: {"µs": 75, "attention": 1.1, "products": 1.2, "fused": 3, "naive fp32": 60, "MB": 9},
    3072: {"µs": 143, "attention": 1.08, "products": 1.3, "fused": 2, "naive fp32": 60, "MB": 19},
}
"""Loss, L and dq on one H200, by rows, at `LossShape`'s other defaults: time, speed-ups over the best of a group,
extra memory."""
OVER = {
    "attention": "over the best attention library",
    "products": "over two matrix products",
    "fused": "over the best fused cross-entropy library",
    "naive fp32": "over the naive loss in fp32",
}


def print_table(result: CpuResult | GpuResult) -> None:
    """Print what `run` or `run_gpu` returned."""
    if result["kind"] == "cpu":
        kernels_cpu.print_table(result)
        return
    for line in lines(result):
        print(line)


def lines(result: GpuResult) -> Iterator[str]:
    device, shape, settings, roof = result["device"], result["shape"], result["settings"], result["roof"]
    yield f"{device['name']}, torch {device['torch']}, Triton {device['triton']}, {result['seconds']:.0f} s"
    if roof:
        yield (
            f"roof, measured: bf16 products {roof['matmul_flops'] / 1e12:.0f} TFLOP/s, "
            f"copy {roof['copy_bytes'] / 1e12:.2f} TB/s, exp2 {roof['exp_per_second'] / 1e12:.2f} T/s"
        )
    total = settings["queues"] * 2 * shape["queue"] * shape["dim"] / 1e6
    yield (
        f"{settings['queues']} bf16 queues in turn ({total:.0f} MB, L2 {device['l2_bytes'] / 1e6:.0f} MB); ABBA order, "
        f"{settings['rounds']} rounds; time per call, median [bootstrap 95 %]; relative error against fp64 on the "
        "inputs as drawn; /ours: time over that of our fastest, timed beside it"
    )
    for case in result["cases"]:
        yield ""
        yield from case_lines(case, shape)
    if result["aims"]:
        yield ""
        yield f"aims, set for one H200 (this is {device['name']}); loss + L + dq:"
        yield from (f"  {aim['text']}" for aim in result["aims"])


def case_lines(case: Case, shape: GpuShape) -> Iterator[str]:
    """A heading with the floor, one line per variant, the noise."""
    floor = f"; floor {1e6 * case['floor_s']:.1f} µs ({_binding(case)})" if "floor_s" in case else ""
    yield (
        f"{case['task']}: R={case['rows']} K={shape['queue']} C={shape['dim']} M={shape['positives']} "
        f"t={shape['temperature']}, {case['flops'] / 1e9:.1f} GFLOP{floor}"
    )
    yield (
        f"  {'variant':31}{'µs':>10} {'[95 %]':>19}{'n':>4}{'/floor':>7}{'%roof':>6}{'host µs':>8}{'+MB':>8}"
        f"{'error':>7}{'of dq':>7}{'/ours':>8}  remarks"
    )
    for row in case["results"]:
        if not row["repeat"]:
            yield f"  {row_line(row)}"
    if "noise" in case:
        noise = case["noise"]
        yield f"  noise: {noise['variant']} against itself {shown(noise, 1, '.3f')}"


def row_line(row: Row) -> str:
    """One variant; what was not measured is a dash, and the reason is a remark."""
    name = f"{row['variant']} ({row['option']})" if "option" in row else row["variant"]
    errors = list(row.get("error", {}).values())
    cells = [
        f"{name[:31]:31}",
        f"{_number(row.get('median_s'), 1e6, '.1f'):>10}",
        f" {_interval(row):>19}",
        f"{row.get('n', '-'):>4}",
        f"{_number(row.get('over_floor'), 1, '.2f'):>7}",
        f"{_number(row.get('share_of_roof'), 100, '.0f'):>6}",
        f"{_number(_middle(row.get('host_s')), 1e6, '.0f'):>8}",
        f"{_number(row.get('extra_bytes'), 1e-6, '.1f'):>8}",
        f"{_number(errors[0] if errors else None, 1, '.0e'):>7}",
        f"{_number(errors[1] if len(errors) > 1 else None, 1, '.0e'):>7}",
        f"{_ratio(row):>8}",
        f"  {remarks(row)}",
    ]
    return "".join(cells).rstrip()


def remarks(row: Row) -> str:
    """Why there is no time; how it was timed where not by a graph; what else to know."""
    if row["status"] != "ok":
        return f"{row['status']}: {row['reason']}"
    said = [row["note"]]
    if row.get("method") == "events":
        said.append(f"timed by events ({row['method_note']})")
    if "bitwise_repeats" in row:
        said.append(f"{row['bitwise_repeats']} repeats bitwise equal")
    if "as_accurate_as_torch" in row:
        said.append(
            f"{'no' if row['as_accurate_as_torch'] else 'LESS'} less accurate than torch".replace("LESS less", "less")
        )
    return "; ".join(filter(None, said))


def aims(shape: LossShape, cases: list[Case]) -> list[Aim]:
    """Every aim of the measured sizes and its verdict; none at another shape than theirs. shape: that of any case."""
    if shape != LossShape(shape.rows):
        return []
    return [
        _aim(case["rows"], what, aim, case)
        for case in cases
        if case["task"] == LOSS
        for what, aim in AIMS.get(case["rows"], {}).items()
    ]


def _aim(rows: int, what: str, aim: float, case: Case) -> Aim:
    name = {"µs": "time, µs", "MB": "extra memory, MB"}.get(what) or OVER[what]
    smaller = what in ("µs", "MB")
    found = _measured(what, case)
    text = f"R={rows} {name}: aim {'<=' if smaller else '>='} {aim:g}{'' if smaller else 'x'}, "
    if found is None:
        return {"rows": rows, "what": what, "aim": aim, "verdict": "not measured", "text": text + "not measured"}
    value, (low, high), remark = found
    verdict = judge(aim, low, high, smaller)
    spread = "" if low == high else f" [{low:.4g}, {high:.4g}]"
    text += f"measured {value:.4g}{spread}{remark}, {verdict}"
    return {
        "rows": rows,
        "what": what,
        "aim": aim,
        "measured": value,
        "interval": [low, high],
        "verdict": verdict,
        "text": text,
    }


def judge(aim: float, low: float, high: float, smaller: bool) -> str:
    """met or missed only where the whole interval is on one side of the aim."""
    if (high <= aim) if smaller else (low >= aim):
        return "met"
    return "missed" if (low > aim if smaller else high < aim) else "unsure"


def _measured(what: str, case: Case) -> tuple[float, tuple[float, float], str] | None:
    """(value, interval, remark) of an aim, from our fastest kernel and the fastest peer of the group."""
    ours = _best(case, lambda row: row["group"] == "ours")
    if ours is None:
        return None
    if what == "µs":
        if "interval_s" not in ours:
            return None
        low, high = (1e6 * bound for bound in ours["interval_s"])
        return 1e6 * ours["median_s"], (low, high), f" n={ours['n']} ({ours['variant']})"
    if what == "MB":
        value = None if ours["extra_bytes"] is None else ours["extra_bytes"] / 1e6
        return None if value is None else (value, (value, value), f" ({ours['variant']})")
    peer = _best(case, lambda row: what in (row["group"], row["variant"]))
    if peer is None or "over_ours" not in peer or peer["over_ours"]["interval"] is None:
        return None
    ratio = peer["over_ours"]
    return ratio["median"], ends(ratio), f" ({peer['variant']} / {ratio['ours']})"


def _best(case: Case, belongs: Callable[[Row], bool]) -> Row | None:
    return next((row for row in timed_rows(case) if belongs(row)), None)


def timed_rows(case: Case) -> list[Row]:
    """The rows of a case that have a time, each variant once, fastest first."""
    rows = [row for row in case["results"] if "median_s" in row and not row["repeat"]]
    return sorted(rows, key=lambda row: row["median_s"])


def _binding(case: Case) -> str:
    return max(case["floors_s"], key=lambda name: case["floors_s"][name])


def _middle(samples: list[float] | None) -> float | None:
    return sorted(samples)[len(samples) // 2] if samples else None


def _number(value: float | None, unit: float, form: str) -> str:
    return "-" if value is None else format(value * unit, form)


def _interval(row: Row) -> str:
    return f"[{1e6 * row['interval_s'][0]:.1f}, {1e6 * row['interval_s'][1]:.1f}]" if "interval_s" in row else "-"


def _ratio(row: Row) -> str:
    return f"{row['over_ours']['median']:.2f}" if "over_ours" in row else "-"
