"""`bingo bench gpu` on a CPU with a part of its suite, and what it leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bingo.bench.gpu import suite as gpu_suite
from bingo.bench.record import read_result
from bingo.cli import main


def few(kind: str, only: Callable[[str], bool] = lambda name: True) -> Callable[..., gpu_suite.Suite]:
    """The suite with one kind of group and some of its checks."""
    whole = gpu_suite.suite

    def suite(device: torch.device, *, quick: bool, impls: tuple[str, ...] = ()) -> gpu_suite.Suite:
        groups = {g: tasks for g, tasks in whole(device, quick=quick, impls=impls).items() if kind in g}
        return {g: {n: task for n, task in tasks.items() if only(n)} for g, tasks in groups.items()}

    return suite


def run(out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["bench", "gpu", "--device", "cpu", "--out", str(out), *words])
    return status, read_result(out / "gpu.json", "gpu")["detail"]
