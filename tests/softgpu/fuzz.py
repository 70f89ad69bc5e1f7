"""Random shapes and settings through every kernel on the executor, against fp64: a program, see `--help`.

`make fuzz` runs it. A case that fails is printed as the command that repeats it. SIGTERM ends it with its
counts, as Ctrl-C does.
"""

import argparse
import json
import os
import random
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable

from bingo.kernels.hopper_queue_softmax import CHANNELS, MOST_CHANNELS_EXCLUDED
from tests.softgpu.cases import DTYPES, Case, run

POLICIES = ("random", "lazy", "eager")
ROWS = (1, 2, 17, 63, 64, 65, 127, 128, 129, 130)
KEYS = (1, 5, 64, 127, 128, 129, 300, 512)
# Tiles of 128 keys: one, two, each way round a ring of up to four stages, a third time round, and ragged ends.
HOPPER_KEYS = (128, 200, 256, 384, 640, 700, 1160)


def softmax_settings(rng: random.Random, impl: str, arch: int) -> Case:
    """What every call over a queue is asked."""
    hopper = impl == "hopper"
    dtype = rng.choice(("bf16", "bf16", "fp16") if hopper else ("bf16", "bf16", "fp16", "fp32"))
    channels = rng.choice(CHANNELS if hopper else (16, 32, 48, 64, 80, 128, 144, 256))
    long = not hopper and rng.random() < 0.2
    temperatures = ((0.2,) if dtype == "fp16" else (0.2, 0.07)) if hopper else (0.2, 0.2, 0.07, 0.012)
    return {
        "impl": impl, "arch": arch, "sms": rng.choice((1, 2, 3)), "dtype": dtype,
        "channels": channels,
        "keys": rng.choice(HOPPER_KEYS if hopper else KEYS),
        "q_dtype": rng.choice((dtype, "fp32")), "normalize": rng.random() < 0.3,
        "unit_rows": not long and rng.random() < 0.5, "temperature": rng.choice(temperatures),
        "length": rng.choice((0.1, 4.0)) if long else 1.0,
        "excluded_ids": rng.choice((0, 0, 0, 1, 3)) if not hopper or channels <= MOST_CHANNELS_EXCLUDED else 0,
    }  # fmt: skip


def softmax(rng: random.Random, impl: str, arch: int) -> Case:
    case = softmax_settings(rng, impl, arch)
    rows = rng.choice(ROWS)
    return case | {"rows": rows, "groups": rng.choice((1, rows)), "grad": rng.random() < 0.75,
                   "splits": rng.choice((None, None, 1, 2, 3)),
                   "values": impl == "triton" and rng.random() < 0.25}  # fmt: skip


def bag(rng: random.Random, impl: str, arch: int) -> Case:
    case = softmax_settings(rng, impl, arch) | {"temperature": 0.2, "length": 1.0}
    batch, views = rng.choice((1, 3, 8, 20)), rng.choice((1, 2, 3))
    return case | {"batch": batch, "views": views, "positives": rng.choice((1, 2, 4)), "groups": batch,
                   "new": rng.choice((0, 1, 5, 40)), "grad": rng.random() < 0.75}  # fmt: skip


def ranks(rng: random.Random, impl: str, arch: int) -> Case:
    case = softmax_settings(rng, "triton", arch) | {"length": 1.0, "normalize": False}
    case["q_dtype"] = case["dtype"]
    return case | {"rows": rng.choice(ROWS[:8]), "positives": rng.choice((1, 2, 4))}


def nearest(rng: random.Random, impl: str, arch: int) -> Case:
    return {
        "arch": arch, "queries": rng.choice((1, 10, 100, 140)), "rows": rng.choice((1, 5, 64, 129, 300, 600)),
        "channels": rng.choice((1, 33, 64, 70, 130)), "k": rng.choice((1, 5, 13, 16, 20, 32)),
        "dtype": rng.choice(tuple(DTYPES)),
    }  # fmt: skip


def augment(rng: random.Random, impl: str, arch: int) -> Case:
    taps = rng.choice((1, 3, 5, 9, 23))
    least = taps // 2 + 1
    return {
        "arch": arch, "count": rng.choice((1, 3, 9)), "height": rng.randint(least, 45),
        "width": rng.randint(least, 70), "taps": taps, "dtype": rng.choice(tuple(DTYPES)),
    }  # fmt: skip


SIBLINGS = 4
PROGRESS_S = 60.0
# What the compiler is told, or what decides which kernels are launched. To compile takes longer than to run.
COMPILED = ("arch", "dtype", "q_dtype", "channels", "normalize", "unit_rows", "grad", "excluded_ids", "temperature",
            "length", "positives", "k", "taps", "values")  # fmt: skip
# name -> (how often, the implementation, a drawing function of the family of the same name)
DRAWS: dict[str, tuple[int, str, Callable[[random.Random, str, int], Case]]] = {
    "hopper": (6, "hopper", softmax),
    "portable": (6, "triton", softmax),
    "bag": (1, "triton", bag),
    "hopper bag": (1, "hopper", bag),
    "ranks": (1, "triton", ranks),
    "nearest": (1, "triton", nearest),
    "augment": (1, "triton", augment),
}


def draw(rng: random.Random, name: str) -> Case:
    """A random case of one kind."""
    _, impl, of_family = DRAWS[name]
    arch = 90 if impl == "hopper" else rng.choice((80, 90, 100))
    case = {"family": of_family.__name__} | of_family(rng, impl, arch)
    return case | {"policy": rng.choice(POLICIES), "seed": rng.randrange(10**6)}


def sibling(rng: random.Random, name: str, case: Case) -> Case:
    """Another case for the code that was compiled for this one."""
    return draw(rng, name) | {setting: case[setting] for setting in COMPILED if setting in case}


def verdict(case: Case) -> str:
    """What is wrong with a case, or ""."""
    try:
        off = run(case)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if off <= 1 else f"wrong by {off:.3g} times what is allowed"


def main(arguments: list[str] | None = None) -> int:
    """0 if every case was right."""
    parser = argparse.ArgumentParser(prog="python -m tests.softgpu.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (%(default)s)")
    parser.add_argument("--cases", type=int, default=10**9, help="end after so many, too (no limit)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (%(default)s)")
    parser.add_argument("--only", choices=DRAWS, nargs="+", default=list(DRAWS), help="kinds of cases (all)")
    parser.add_argument("--case", type=json.loads, help="run this one case, as a failure printed it")
    given = parser.parse_args(arguments)
    if given.case:
        wrong = verdict(given.case)
        print(wrong or "right")
        return int(bool(wrong))
    rng, end = random.Random(given.seed), time.monotonic() + given.seconds
    counts: Counter[str] = Counter()
    bad = 0

    def told() -> str:
        kinds = ", ".join(f"{n} {name}" for name, n in counts.most_common())
        return f"{counts.total()} cases, {bad} bad: {kinds}"

    def stop(*_: object) -> None:
        print(told(), "(stopped)", flush=True)
        os._exit(int(bad > 0))  # at once: an interrupted case is none

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    said = time.monotonic()
    while time.monotonic() < end and counts.total() < given.cases:
        (name,) = rng.choices(given.only, [DRAWS[kind][0] for kind in given.only])
        first = draw(rng, name)
        for case in (first, *(sibling(rng, name, first) for _ in range(SIBLINGS))):
            wrong = verdict(case)
            counts[name] += 1
            if wrong:
                bad += 1
                print(f"{wrong}\n  python -m tests.softgpu.fuzz --case {shlex.quote(json.dumps(case))}", flush=True)
        if time.monotonic() - said > PROGRESS_S:
            said = time.monotonic()
            print(told(), flush=True)
    print(told())
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
