"""What is measured in which order: gates, repeats, and a reason for every row without a number."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bingo.bench.kernels.peers import Variant
from bingo.bench.kernels.rounds import KernelRun, measure, reference
from bingo.bench.kernels.workload import LOSS, Inputs, exact
from bingo.bench.timing import (
    Timed,
    WallTimer,
)
from tests.support.kernel_inputs import SHAPE


@pytest.fixture
def run(inputs: Inputs) -> KernelRun:
    return KernelRun(WallTimer(), float("inf"), rounds=2, samples=2, repeats=2, inputs={SHAPE.rows: inputs})


def build(answer: Callable[[Inputs], tuple[Tensor, ...]]) -> Callable[[Inputs, Any], Any]:
    return lambda inputs, _: lambda i: answer(inputs)


def variants(inputs: Inputs) -> list[Variant]:
    truth = tuple(part.float() for part in exact(inputs, LOSS))
    calls = iter(range(1000))
    drifting = build(lambda _: (truth[0], truth[1] * (1 + 1e-6 * next(calls))))

    def missing(inputs: Inputs, _: Any) -> Any:
        import no_such_library  # type: ignore[import-not-found]

        return no_such_library

    def broken(inputs: Inputs, option: int) -> Any:
        if option < 3:
            raise RuntimeError(f"no kernel for {option}\nand a long story")
        return lambda i: truth

    return [
        Variant("right", "ours", build(lambda _: truth)),
        Variant("off", "fused", build(lambda _: (truth[0] * 1.1, truth[1]))),
        Variant("nan", "fused", build(lambda _: (truth[0], truth[1] * torch.nan))),
        Variant("drifting", "ours", drifting),
        Variant("missing", "fused", missing),
        Variant("broken", "fused", broken, lambda shape: (1, 2)),
        Variant("half broken", "fused", broken, lambda shape: (1, 3)),
        Variant("slow", "naive", broken, compile_seconds=float("inf")),
    ]


def test_gate_repeats_and_reasons(run: KernelRun, inputs: Inputs) -> None:
    rows = {row["variant"]: row for row in measure(run, SHAPE.rows, LOSS, variants(inputs), again=True)}
    assert rows["right"]["status"] == "ok"
    assert rows["right"]["bitwise_repeats"] == 2
    assert rows["right"]["n"] == len(rows["right"]["samples_s"]) == 8
    assert "loss is off by 1.0e-01, allowed 2e-02" in rows["off"]["reason"]
    assert rows["nan"]["status"] == "wrong"
    assert rows["drifting"]["reason"] == "repeat 1 differs from the first"
    assert not any("samples_s" in rows[name] for name in ("off", "nan", "drifting")), "no time without a right answer"
    assert (rows["missing"]["status"], rows["missing"]["reason"]) == ("absent", "no_such_library is not installed")
    assert (rows["broken"]["status"], rows["broken"]["reason"]) == ("failed", "RuntimeError: no kernel for 2")
    assert rows["half broken"]["option"] == "3"
    assert rows["half broken"]["sweep"]["1"] == "no kernel for 1"
    assert rows["slow"]["status"] == "skipped"
    assert rows["right again"]["repeat"]
    best = reference(list(rows.values()))
    assert best is rows["right"]
    assert rows["half broken"]["over_ours"]["ours"] == "right"


def test_a_slow_compilation_is_not_started_again(run: KernelRun, inputs: Inputs) -> None:
    slow = Variant("slow", "naive", build(lambda _: exact(inputs, LOSS)), compile_seconds=1e-3)
    run.deadline = time.monotonic() + 1000
    assert measure(run, SHAPE.rows, LOSS, [slow])[0]["status"] == "ok"
    run.compiled_in["slow"] = 2000
    assert "it may compile for 2000 s" in measure(run, SHAPE.rows, LOSS, [slow])[0]["reason"]


def test_settings_are_taken_over_and_ours_is_timed_again(run: KernelRun, inputs: Inputs) -> None:
    truth = exact(inputs, LOSS)
    seen = []

    def remember(inputs: Inputs, option: Any) -> Any:
        seen.append(option)
        return lambda i: truth

    run.chosen[SHAPE.rows, "flash attention"] = 4
    ours = Variant("right", "ours", build(lambda _: truth))
    rows = measure(run, SHAPE.rows, LOSS, [Variant("b", "attention", remember, like="flash attention")], beside=ours)
    assert seen == [4]
    assert [(row["variant"], row["repeat"]) for row in rows] == [("b", False), ("right", True)]
    assert rows[0]["over_ours"]["ours"] == "right"
    assert measure(run, SHAPE.rows, LOSS, variants(inputs)[4:5], beside=ours)[1:] == [], "nothing to compare with"


def test_a_lost_device_leaves_rows(run: KernelRun, inputs: Inputs) -> None:
    def die(count: int) -> list[float]:
        raise RuntimeError("an illegal memory access was encountered")

    run.timer.prepare = lambda *_: Timed("CUDA graph", 1, die)  # type: ignore[method-assign]
    (row,) = measure(run, SHAPE.rows, LOSS, variants(inputs)[:1])
    assert row["reason"] == "while timing: an illegal memory access was encountered"
