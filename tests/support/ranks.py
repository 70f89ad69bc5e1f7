"""Start `bingo` verbs as ranks of one process group, the way torchrun or srun would."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# One rank of `bingo`, whose last line has how often it called each collective operation.
COUNT_CALLS = """
import json, sys, torch.distributed as dist
from collections import Counter
calls = Counter()
NAMES = "all_gather_single all_gather_into_tensor broadcast all_reduce all_gather barrier broadcast_object_list"
for name in NAMES.split():
    if not hasattr(dist, name):
        continue
    def wrapped(*args, _name=name, _inner=getattr(dist, name), **kwargs):
        calls[_name + " aside" * (kwargs.get("group") is not None)] += 1
        return _inner(*args, **kwargs)
    setattr(dist, name, wrapped)
from bingo.cli import main
assert main(sys.argv[1:]) == 0
print("CALLS", json.dumps(calls))
"""


def bingo(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run one `bingo` command to its end."""
    command = [sys.executable, "-m", "bingo", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=1200, env={**os.environ, **extra}, check=False
    )


def start_ranks(
    words: Sequence[object], ranks: int, program: Sequence[str] = ("-m", "bingo")
) -> list[subprocess.Popen[str]]:
    """Start `ranks` processes of one verb joined through loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, *program, *map(str, words)]
    return [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in range(ranks)
    ]


def finish(processes: list[subprocess.Popen[str]], timeout: float = 9000) -> list[tuple[int, str]]:
    """Exit status and output of every rank."""
    return [(p.wait(timeout), out) for p, out in [(p, p.communicate(timeout=timeout)[0]) for p in processes]]


def wait_for(condition: Callable[[], bool], *children: subprocess.Popen[Any], timeout: float = 900) -> None:
    """Poll every 2 ms until a condition holds, which these processes bring about: it fails once one has ended."""
    deadline = time.monotonic() + timeout
    while not condition():
        ended = [child.args for child in children if child.poll() is not None]
        assert not ended or condition(), f"ended before the condition held: {ended}"
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.002)
