"""`bingo bench bags`: who finds neighbours how fast: faiss, plain PyTorch, our kernel, exact bags.

Clustered random features of unit length, Q queries that are rows of the N database rows. Accuracy gate first, on a
sample of the queries against fp64: the share of the k exact neighbours among the 16 found (the re-rank takes them from
there), for whole bags among the k. Samples of all variants are interleaved, by the wall clock and on a CPU by the
processor's beside it. Time goes with Q x N: for a full dataset of 1.28 million images, medians are multiplied by
1.28e6^2 / (Q N), where that is at most 100: less is too far from there to say. D is not changed.
"""

import argparse
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Required, TypedDict

import numpy as np
import torch
from torch import Tensor

from bingo.bags.neighbours import Search, import_faiss, knn_bags
from bingo.bench import record
from bingo.bench.arguments import pick_device
from bingo.bench.keeper import Keeper
from bingo.bench.samples import Estimate, Samples, band, visited_ratio, with_noise
from bingo.bench.timing import device_name, first_line, interleave, make_timer
from bingo.errors import UserError
from bingo.kernels.knn import nearest

FOUND = 16
GATE = 0.999
CHECKED = 256  # queries of the gate
PER_CLUSTER = 50
NOISE = 0.7
IMAGENET = 1_281_167
MOST_FACTOR = 100.0
"""An estimate for 1.28 million images is at most so many times what was measured."""
TORCH_ELEMENTS = 1 << 28  # scores held at once by the plain PyTorch peer
VISIT_SECONDS = 0.5


class Data(NamedTuple):
    """features: N x D fp16, as they are stored; rows: the same in fp32 and of unit length; own: 0 .. Q-1."""

    features: Tensor
    rows: Tensor
    own: Tensor


Call = Callable[[], Tensor]
"""Returns Q x 16 (or k) indices on the CPU."""


@dataclass(frozen=True)
class SearchShape:
    """Database rows, channels, queries (0: every row), bag size, rounds of the interleaved samples."""

    images: int
    dim: int
    queries: int
    k: int = 5
    rounds: int = 3


class Row(TypedDict, total=False):
    """One variant; the last keys are there where it was timed."""

    status: Required[str]
    """passed, failed, absent, or no time left."""
    recall: float
    """Share of the exact neighbours that were found."""
    note: str
    seconds: Samples
    cpu_seconds: Samples
    """Of the same samples, on a CPU."""
    tflops: float
    imagenet_seconds: float
    """For 1.28 million images; only from runs that are large enough, see `MOST_FACTOR`."""
    speedup_over_torch: Estimate


class Result(TypedDict):
    """What `run` returns. shape: the fields of `SearchShape`, queries counted; gate: the least recall."""

    shape: dict[str, int]
    device: str
    threads: int
    torch: str
    gate: float
    variants: dict[str, Row]


def default_shape(device: torch.device) -> SearchShape:
    return SearchShape(200_000, 2048, 0) if device.type == "cuda" else SearchShape(20_000, 256, 4096)


def main(options: argparse.Namespace) -> int:
    """`bingo bench bags`; `--json FILE` keeps every sample. 1 if a variant failed or missed the gate."""
    device = pick_device(options.device)
    names = ("images", "dim", "queries", "k", "rounds")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    shape = SearchShape(**{**vars(default_shape(device)), **given})
    check(shape)
    keeper = Keeper(options.json, "bags")
    keeper.say(f"{shape.queries or shape.images} queries of {shape.images} x {shape.dim} rows")
    found = run(device, shape, on_change=lambda now: keeper.keep(rows(now), now))
    print("\n".join(table(found)))
    keeper.finish(rows(found), found)
    return int(any(row["status"] == "failed" for row in found["variants"].values()))


def check(shape: SearchShape) -> None:
    """`UserError` for what could not run."""
    if shape.queries > shape.images:
        raise UserError(f"--queries {shape.queries} is more than --images {shape.images}; make it smaller")
    if not shape.k < FOUND < shape.images:
        raise UserError(f"--k {shape.k} must be below {FOUND} and --images {shape.images} above it")


def run(
    device: torch.device,
    shape: SearchShape,
    seconds: float = math.inf,
    on_change: Callable[[Result], None] = lambda found: None,
) -> Result:
    """Gate, then time every variant that passed; nothing new is begun after `seconds`. JSON-ready.

    on_change gets the result so far: after the gates, and after every half of a round.
    """
    until = time.monotonic() + seconds
    logging.getLogger("bingo.kernels.knn").setLevel(logging.WARNING)
    count = shape.queries or shape.images
    data = make_data(device, shape, count)
    sample = torch.linspace(0, count - 1, min(count, CHECKED), device=device).long()
    exact = exact_neighbours(data.rows, sample, shape.k)
    calls = {name: prepare(data) for name, prepare in variants(device, shape).items()}
    found: dict[str, Row] = {}
    for name, call in calls.items():
        found[name] = gate(call, exact, sample, shape.k) if time.monotonic() < until else {"status": "no time left"}
    timer = make_timer(device)
    passed = {name: calls[name] for name, row in found.items() if row["status"] == "passed"}
    timed = {
        name: timer.prepare(partial(repeat, call), 1, "it allocates and copies to the host")
        for name, call in passed.items()
        if time.monotonic() < until
    }
    result: Result = {
        "shape": {**vars(shape), "queries": count}, "device": device_name(device), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "gate": GATE, "variants": found,
    }  # fmt: skip
    on_change(result)

    def so_far(samples: dict[str, list[float]]) -> None:
        for name, taken in samples.items():
            found[name] |= timed_row(taken, timed[name].cpu, shape)
        _compare(found, 2 * shape.rounds)
        on_change(result)

    interleave(timed, shape.rounds, 10, VISIT_SECONDS, so_far)
    return result


def _compare(found: dict[str, Row], visits: int) -> None:
    """Speed-ups over plain PyTorch: of CPU time where it is known, since other programs lengthen the wall clock's."""
    base = found["torch matmul + topk"]
    clock: Literal["cpu_seconds", "seconds"] = "cpu_seconds" if "cpu_seconds" in base else "seconds"
    for row in found.values():
        if clock in base and clock in row:
            row["speedup_over_torch"] = visited_ratio(base[clock]["samples"], row[clock]["samples"], visits)


def repeat(call: Call, _: int) -> tuple[Tensor, ...]:
    """The call as a timer wants it."""
    return (call(),)


def timed_row(samples: list[float], cpu: list[float], shape: SearchShape) -> Row:
    """The samples (seconds), and rates of their median; products counted as 2 Q N D."""
    median, pairs = float(np.median(samples)), (shape.queries or shape.images) * shape.images
    row: Row = {"status": "passed", "seconds": with_noise(samples), "tflops": 2e-12 * pairs * shape.dim / median}
    if cpu:
        row["cpu_seconds"] = with_noise(cpu)
    if (factor := IMAGENET**2 / pairs) <= MOST_FACTOR:
        row["imagenet_seconds"] = median * factor
    return row


def rows(found: Result) -> list[record.Row]:
    """The figures as rows of the one schema."""
    shape = SearchShape(**found["shape"])
    case = f"{shape.queries} of {shape.images} x {shape.dim}, k={shape.k}, {found['threads']} thread(s)"
    made: list[record.Row] = []
    for variant, row in found["variants"].items():
        accuracy = {"ok": row["status"] == "passed", "recall": row.get("recall"), "bound": found["gate"]}
        base: record.Row = {
            "case": case, "variant": variant, "metric": "seconds", "better": "lower", "clock": "wall",
            "processes": [row["seconds"]["samples"]] if "seconds" in row else [], "order": "ABBA", "discarded": 1,
            "accuracy": accuracy,
        }  # fmt: skip
        if "seconds" not in row:
            base["error"] = f"{row['status']}: {row.get('note') or 'not timed'}"
        made.append(base)
        if "cpu_seconds" in row:
            made.append({**base, "clock": "cpu", "processes": [row["cpu_seconds"]["samples"]]})
    return made


def make_data(device: torch.device, shape: SearchShape, count: int) -> Data:
    """Random features around N / 50 centres."""
    generator = torch.Generator(device).manual_seed(0)
    centres = torch.randn(max(1, shape.images // PER_CLUSTER), shape.dim, generator=generator, device=device)
    where = torch.randint(len(centres), (shape.images,), generator=generator, device=device)
    features = torch.empty(shape.images, shape.dim, device=device, dtype=torch.float16)
    for part in torch.arange(shape.images, device=device).split(1 << 16):
        noise = torch.randn(len(part), shape.dim, generator=generator, device=device)
        features[part] = (centres[where[part]] + NOISE * noise).half()
    rows = torch.nn.functional.normalize(features.float())
    return Data(features, rows, torch.arange(count, device=device))


def exact_neighbours(rows: Tensor, sample: Tensor, k: int) -> Tensor:
    """len(sample) x k by fp64, a part of the database at a time."""
    queries, best = rows[sample].double(), torch.empty(len(sample), 0, device=rows.device, dtype=torch.float64)
    places = torch.empty(len(sample), 0, device=rows.device, dtype=torch.int64)
    for part in torch.arange(len(rows), device=rows.device).split(1 << 15):
        scores = queries @ rows[part].double().T
        scores.masked_fill_(part == sample[:, None], -torch.inf)
        best, places = torch.cat([best, scores], 1), torch.cat([places, part.expand(len(sample), -1)], 1)
        best, order = best.topk(min(k, best.shape[1]), dim=1)
        places = places.gather(1, order)
    return places


def gate(call: Call, exact: Tensor, sample: Tensor, k: int) -> Row:
    """Run once; the share of exact neighbours found, or why it did not run."""
    try:
        indices = call()[sample.cpu()]
    except UserError as error:
        return {"status": "absent", "note": str(error)}
    except Exception as error:  # one that breaks is a row that says so
        return {"status": "failed", "note": f"{type(error).__name__}: {first_line(error)}"}
    recall = (exact.cpu()[:, :, None] == indices[:, None, :]).any(2).double().mean().item()
    passed = recall >= GATE
    note = "" if passed else f"recall@{k} {recall:.4f} is below {GATE}: not timed"
    return {"status": "passed" if passed else "failed", "recall": recall, "note": note}


def variants(device: torch.device, shape: SearchShape) -> dict[str, Callable[[Data], Call]]:
    """Name -> what prepares its call."""
    gpu = device.type == "cuda"
    half = {dtype: str(dtype).removeprefix("torch.") for dtype in (torch.float16, torch.bfloat16)}
    found: dict[str, Callable[[Data], Call]] = {
        "faiss IndexFlatIP": flat_index,
        "torch matmul + topk": plain(torch.float16 if gpu else torch.float32),
    }
    if gpu:
        found["torch matmul + topk, float32"] = plain(torch.float32)
        for dtype, name in half.items():
            found[f"nearest, triton {name}"] = fused(dtype, "triton")
    else:
        found["nearest, reference float32"] = fused(torch.float32, "reference")
        found["nearest, reference float16"] = fused(torch.float16, "reference")
    for search in (Search("faiss", device), Search("triton", device)):
        found[f"exact bags, {search.engine} engine"] = whole(search, shape.k)
    return found


def flat_index(data: Data) -> Call:
    """faiss's exact index, filled beforehand; on a GPU if this faiss has one."""
    rows, made = data.rows, dict[str, Any]()

    def search() -> Tensor:
        faiss = import_faiss()
        if not made:
            index = faiss.IndexFlatIP(rows.shape[1])
            if rows.device.type == "cuda" and faiss.get_num_gpus():
                made["resources"] = faiss.StandardGpuResources()
                index = faiss.index_cpu_to_gpu(made["resources"], rows.device.index or 0, index)
            made["rows"] = rows.cpu().numpy()
            index.add(made["rows"])
            made["index"] = index
        return torch.from_numpy(made["index"].search(made["rows"][: len(data.own)], FOUND + 1)[1])

    return search


def plain(dtype: torch.dtype) -> Callable[[Data], Call]:
    """Blocks of queries against the whole database, scores in memory, then topk."""

    def prepare(data: Data) -> Call:
        database, own = data.rows.to(dtype), data.own
        step = max(1, TORCH_ELEMENTS // len(database))

        def search() -> Tensor:
            parts = []
            for part in own.split(step):
                scores = database[part] @ database.T
                scores[torch.arange(len(part), device=own.device), part] = -torch.inf
                parts.append(scores.topk(FOUND, dim=1).indices)
            return torch.cat(parts).cpu()

        return search

    return prepare


def fused(dtype: torch.dtype, impl: str) -> Callable[[Data], Call]:
    """Ours alone: the 16 best, not ranked again."""

    def prepare(data: Data) -> Call:
        database, own = data.rows.to(dtype), data.own
        return lambda: nearest(database[: len(own)], database, FOUND, exclude=own, impl=impl)[1].cpu()

    return prepare


def whole(search: Search, k: int) -> Callable[[Data], Call]:
    """From fp16 features in memory to proven exact bags, as `bingo bags` makes them."""

    def prepare(data: Data) -> Call:
        features, anchors = data.features.cpu().numpy(), data.own.cpu().numpy()
        return lambda: torch.from_numpy(knn_bags(features, k, rows=anchors, search=search))

    return prepare


def table(found: Result) -> list[str]:
    """One line per variant."""
    shape = SearchShape(**found["shape"])
    lines = [
        f"neighbours of {shape.queries} of {shape.images} x {shape.dim} rows, {found['device']}, "
        f"{found['threads']} thread(s), torch {found['torch']}",
        f"{'':34}{'recall':>8}{'median s':>10}{'95 %':>18}{'n':>4}{'TFLOP/s':>9}{'x torch':>9}{'1.28 M, s':>11}",
    ]
    for name, row in found["variants"].items():
        recall = f"{row['recall']:.4f}" if "recall" in row else "-"
        if "seconds" not in row:
            lines.append(f"{name:34}{recall:>8}  {row['status']}: {row.get('note', '')}".rstrip(": "))
            continue
        seconds, ratio = row["seconds"], row.get("speedup_over_torch")
        whole = f"{row['imagenet_seconds']:.1f}" if "imagenet_seconds" in row else "-"
        lines.append(
            f"{name:34}{recall:>8}{seconds['median']:10.4f}{band(seconds, 1, '.4f'):>18}{seconds['n']:4}"
            f"{row['tflops']:9.3f}{format(ratio['median'], '.2f') if ratio else '-':>9}{whole:>11}"
        )
    if (factor := IMAGENET**2 / (shape.queries * shape.images)) > MOST_FACTOR:
        lines.append(f"1.28 M: {factor:.0f} times these pairs, too far to estimate; give --images and --queries more")
    return lines
