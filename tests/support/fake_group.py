"""What a child of `bingo.bench.gpu.children` can do to its parent; tests pass its functions on."""

import json
import os
import time
from pathlib import Path

from bingo.bench.gpu.children import say

ITEMS = ["good", "dies", "hangs", "last"]


def work(first: int, path: str) -> None:
    """Items 0 and 3 end well, 1 kills the process, 2 never ends."""
    for number in range(first, len(ITEMS)):
        say(Path(path), {"begin": number})
        if ITEMS[number] == "dies":
            print("something about memory", flush=True)
            os._exit(11)
        if ITEMS[number] == "hangs":
            time.sleep(600)
        check = {"group": "g", "name": ITEMS[number], "status": "passed", "seconds": float(number)}
        say(Path(path), {"end": number, "record": check})
    say(Path(path), {"done": True})


def never_starts(first: int, path: str) -> None:
    raise SystemExit("no such device")


def sleeps(first: int, path: str) -> None:
    say(Path(path), {"begin": 0})
    time.sleep(600)


NO_KERNELS = {
    "kind": "gpu", "roof": None, "cases": [], "aims": [],
    "shape": {"queue": 1, "dim": 1, "positives": 1, "temperature": 1, "dtype": "float32"},
}  # fmt: skip


def part(device: str, seconds: float, path: str) -> None:
    """Writes a finding, then breaks."""
    Path(path).write_text(json.dumps({"result": NO_KERNELS, "table": ["a row"]}))
    raise SystemExit("out of memory")
