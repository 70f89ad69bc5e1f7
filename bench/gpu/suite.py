"""Which checks `bingo bench gpu` runs: the full list for a GPU, small shapes for CPUs and sanitizers."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from bingo.bench.gpu import bag_checks as bags
from bingo.bench.gpu import checks, loader_checks
from bingo.bench.gpu import knn_checks as knn
from bingo.bench.gpu import runtime_checks as runtime
from bingo.bench.gpu import step_checks as steps
from bingo.bench.gpu import view_checks as views
from bingo.bench.gpu.checks import Setting, Task
from bingo.bench.step.variants import Changes, QueueDtype
from bingo.kernels.device import is_interpreted, runs_triton

Suite = dict[str, dict[str, Task]]
NAMES: dict[torch.dtype, QueueDtype] = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
MAIN = (65536, 128)
# R x K x C: each axis through the main shape or a small one, and corners of all three.
ROWS = (0, 1, 3, 64, 65, 256, 768, 1000, 3072)
KEYS = (1, 127, 128, 1000, 65537)
CORNERS = (
    (1000, 65537, 64),
    (768, 65536, 64),
    (256, 128, 256),
    (3072, 1000, 48),
    (1, 65537, 256),
    (0, 1, 16),
    (1, 1, 16),
)
QUICK_SHAPES = ((0, 5, 16), (1, 1, 16), (65, 257, 64), (34, 128, 128), (3, 130, 48))


def suite(device: torch.device, *, quick: bool, impls: tuple[str, ...] = ()) -> Suite:
    """Group -> name -> check. No work is done and no device touched before a check is called."""
    gpu = device.type == "cuda"
    chosen = impls or (("triton", "hopper") if gpu else ("triton",) if runs_triton(device.type) else ("chunked",))
    groups: Suite = {}
    for impl in chosen:
        for dtype in _dtypes(impl, gpu):
            s = Setting(device, impl, dtype, quick)
            title = f"{impl} {NAMES[dtype]}"
            groups[f"{title} loss"] = _loss(s)
            groups[f"{title} edges"] = _edges(s)
            groups |= {f"{title} {name}": tasks for name, tasks in _shapes(s).items()}
            if impl == "triton":
                groups[f"{title} views"] = _views(s)
            if impl != "hopper":
                groups[f"{title} nearest"] = _nearest(s)
        half = _dtypes(impl, gpu)[0]
        groups[f"{impl} runtime"] = _runtime(Setting(device, impl, half, quick))
        groups[f"{impl} step"] = _step(Setting(device, impl, half, quick))
    any_setting = Setting(device, chosen[0], torch.float32, quick)
    groups["loader"] = {"crops behind queued work": partial(loader_checks.behind_work, any_setting, 2.0)}
    return groups


def _dtypes(impl: str, gpu: bool) -> tuple[torch.dtype, ...]:
    """The most important first; the interpreter is wrong on bf16, and impl "hopper" takes no fp32 queue."""
    if impl == "triton" and not gpu and is_interpreted():
        return torch.float32, torch.float16
    return (torch.bfloat16, torch.float16) if impl == "hopper" else (torch.bfloat16, torch.float16, torch.float32)


def _shapes(s: Setting) -> Suite:
    if s.quick:
        return {"shapes": {_name(*shape): partial(checks.accuracy, s, *shape, lse_only=True) for shape in QUICK_SHAPES}}
    keys, channels = MAIN
    main: dict[str, Task] = {
        _name(rows, keys, channels): partial(checks.accuracy, s, rows, keys, channels, lse_only=rows in (3, 768))
        for rows in ROWS
    }
    for keys in KEYS:
        main[_name(65, keys, channels)] = partial(checks.accuracy, s, 65, keys, channels, lse_only=keys in (127, 65537))
    main["clustered keys " + _name(256, 8192, 128)] = partial(checks.clustered, s, 256, 8192, 128)
    other: dict[str, Task] = {
        _name(65, 1000, channels): partial(checks.accuracy, s, 65, 1000, channels, unit_rows=False, lse_only=True)
        for channels in (16, 48, 64, 256)
    }
    other |= {_name(*shape): partial(checks.accuracy, s, *shape) for shape in CORNERS}
    return {"shapes, C=128": main, "shapes, other C": other}


def _nearest(s: Setting) -> dict[str, Task]:
    # Q x N x D, k: ragged in everything, more places than rows, whole tiles, a real size.
    shapes = [(33, 70, 48, 16), (5, 3, 17, 4), (20, 150, 33, 32), (16, 64, 64, 5)]
    shapes += [] if s.quick else [(1000, 20_000, 2048, 16), (4096, 50_000, 512, 13), (3000, 5000, 1000, 24)]
    found: dict[str, Task] = {}
    for q, n, d, k in shapes:
        found[f"ties, Q={q} N={n} D={d} k={k}"] = partial(knn.ties, s, q, n, d, k)
        if q <= n:
            found[f"unit rows, Q={q} N={n} D={d} k={k}"] = partial(knn.unit_rows, s, q, n, d, k)
    shape = (17, 60, 32) if s.quick else (2000, 30_000, 2048)
    found["bitwise repeats"] = partial(knn.repeats, s, *shape)
    if s.dtype != torch.float32:
        found["N * D beyond 2^31"] = partial(knn.long_database, s)
    return found


def _name(rows: int, keys: int, channels: int) -> str:
    return f"R={rows} K={keys} C={channels}"


def _narrow(s: Setting) -> int:
    """Channels of small shapes: the fewest that impl "hopper" takes; fewer in the interpreter, which is slow."""
    return 64 if s.device.type == "cuda" else 32


def _edges(s: Setting) -> dict[str, Task]:
    long, some, channels = (140, 131, _narrow(s)) if s.quick else (65537, 1000, 128)
    few, tiles = ((), 128) if s.quick else ((127, 128, 1000), 65536)
    found: dict[str, Task] = {}
    # In fp16 the path without a running maximum ends at a base-2 logit of 14: both paths are taken.
    for temperature, counts in ((0.05, (1, *few, tiles, long)), (0.11, (127, some))):
        for keys in counts:
            found[f"every key counts, K={keys}, t={temperature}"] = partial(
                checks.every_key_counts, s, keys, channels, temperature
            )
    for temperature in (0.2, 0.05):
        for keys in (1, *few, long):
            found[f"nothing else counts, K={keys}, t={temperature}"] = partial(
                checks.nothing_else_counts, s, keys, channels, temperature
            )
    for shape in ((17, 67, 48),) if s.quick else ((17, 67, 48), (65, 1000, 128), (768, 65536, 128)):
        found[f"NaN around inputs and in fresh memory, {_name(*shape)}"] = partial(
            checks.every_output_is_written, s, *shape
        )
    for length, temperature in ((1.0, 0.005), (300.0, 0.2), (300.0, 0.005)):
        found[f"rows of length {length:g}, t={temperature}"] = partial(
            checks.stays_finite, s, 128 if s.quick else 1024, channels, length, temperature
        )
    found["excluded ids"] = partial(checks.excludes, s, 15, some, channels)
    found["excluded ids, whole tiles"] = partial(checks.excludes, s, 33 if s.quick else 768, 128, channels)
    found["a row without keys"] = partial(checks.excludes_everything, s, 65, channels)
    if s.impl != "hopper":
        for shape in ((17, 67, channels),) if s.quick else ((65, 1000, 128), (768, 65536, 64), (768, 65536, 128)):
            found[f"values, {_name(*shape)}"] = partial(checks.averages_values, s, *shape)
    found["ranks"] = partial(checks.counts_ranks, s, 33 if s.quick else 768, long, channels)
    found["strided and fp32 queries"] = partial(checks.takes_other_inputs, s, 128, channels)
    return found


def _loss(s: Setting) -> dict[str, Task]:
    found: dict[str, Task] = {}
    channels = _narrow(s) if s.quick else 128
    if not s.quick:
        for batch, crops in ((128, 2), (256, 3), (1024, 3)):
            name = f"gates, {_name(batch * crops, *MAIN)}"
            found[name] = partial(bags.main_shape, s, batch, crops, *MAIN)
    shape = (12, 3, 128, channels) if s.quick else (64, 3, 1000, channels)
    cases: dict[str, dict[str, bool]] = {
        "plain": {},
        "normalize": {"normalize": True},
        "no gradient": {"normalize": True, "no_grad": True},
        "weights per row": {"weights_per_row": True},
        "excluded ids": {"normalize": True, "exclude": True},
    }
    for name, changed in cases.items():
        found[f"bag_loss, {name}"] = partial(bags.options, s, *shape, **changed)
    if not s.quick:
        found["bag_loss, normalize, whole tiles"] = partial(bags.options, s, 64, 3, 1024, 64, normalize=True)
    ring: tuple[tuple[str, int, int, int, bool], ...] = (
        ("wraps around", 256, 70, 200, False),
        ("with ids", 128, 50, 90, True),
        ("more keys than slots", 64, 150, 5, True),
        ("odd length", 131, 64, 100, True),
    )
    for name, slots, fresh, start, ids in ring[1:3] if s.quick else ring:
        found[f"ring, {name}"] = partial(
            bags.writes_ring, s, slots, fresh, start, channels, ids=ids, steps=2 if s.quick else 3
        )
    return found


def _views(s: Setting) -> dict[str, Task]:
    """The augmentation; the last shape has more pixels than a program's and odd sides."""
    shapes = ((8, 20, 20, 3), (3, 31, 41, 7)) if s.quick else ((64, 224, 224, 23), (64, 20, 20, 3), (16, 97, 131, 9))
    found: dict[str, Task] = {
        f"augment, {count} of {height}x{width}": partial(views.chain, s, count, height, width, blur)
        for count, height, width, blur in shapes
    }
    count, height, width, _ = shapes[-1]
    found["cutmix"] = partial(views.mixes, s, count, height, width)
    size = shapes[0][1]
    found["views without host synchronisation"] = partial(views.never_waits, s, 8, size)
    if not s.quick:
        found["time over PyTorch's"] = partial(views.speed, s, size)
    return found


def _runtime(s: Setting) -> dict[str, Task]:
    keys, channels = (128, _narrow(s)) if s.quick else MAIN
    found: dict[str, Task] = {}
    for rows in (20,) if s.quick else (256, 768, 3072):
        found[f"bitwise repeats, {_name(rows, keys, channels)}"] = partial(runtime.repeats, s, rows, keys, channels)
    batches: tuple[int, ...] = (8,) if s.quick else (85, 256)
    for batch in batches:
        found[f"CUDA graph with ring write, {_name(3 * batch, keys, channels)}"] = partial(
            runtime.graph, s, batch, keys, channels
        )
    found["on the caller's stream"] = partial(runtime.follows_stream, s, 3 * batches[-1], keys, channels)
    found["no host synchronisation"] = partial(runtime.never_waits, s, batches[-1], keys, channels)
    if not s.quick:
        found["K * C beyond 2^31"] = partial(runtime.long_queue, s)
    if not (s.quick and s.device.type == "cuda"):  # a sanitizer would wait for the compiler for hours
        found["torch.compile with ring write"] = partial(runtime.compiles, s, batches[-1], keys, channels)
    return found


def _step(s: Setting) -> dict[str, Task]:
    dtype = NAMES[s.dtype]
    half = Changes("bf16", queue_dtype=dtype)
    build: dict[str, Callable[..., checks.Outcome]] = {
        "step's loss": runtime.step_loss,
        "step without host synchronisation": runtime.step_never_waits,
        "steps as a CUDA graph": steps.graphed_steps,
        "checkpoint's copy while training goes on": steps.snapshot_while_training,
    }
    found: dict[str, Task] = {f"{name}, {dtype} queue": partial(check, s, half) for name, check in build.items()}
    if s.impl != "hopper" and s.dtype != torch.float32:
        found["step's loss, fp32 queue"] = partial(runtime.step_loss, s, Changes(channels_last=False))
    if s.device.type == "cuda" and not s.quick:
        found["step's loss, compiled student"] = partial(runtime.step_loss, s, replace(half, compile=True))
    return found
