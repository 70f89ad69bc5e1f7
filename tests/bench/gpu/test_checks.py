"""What a check of `bingo bench gpu` finds: a wrong kernel, and whatever else happens in it as a record."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.bench.gpu import checks as gpu_checks
from bingo.bench.gpu import suite as gpu_suite
from bingo.bench.gpu.checks import Outcome, Setting, Skip, perform
from bingo.bench.gpu.record import Check
from bingo.kernels import queue_softmax
from tests.support.gpu_suite import few, run

CPU = torch.device("cpu")
KEYS = set(Check.__annotations__)


def wrong_lse(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lse, mean = queue_softmax(*args, **kwargs)
    return lse + 0.1, mean


def last_key_missing(q: torch.Tensor, queue: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return queue_softmax(q, queue[:-1] if len(queue) > 1 else queue, *args, **kwargs)


def one_key_too_many(q: torch.Tensor, queue: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return queue_softmax(q, torch.cat([queue, torch.zeros_like(queue[:1])]), *args, **kwargs)


def not_a_number(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lse, mean = queue_softmax(*args, **kwargs)
    return lse * math.nan, mean


@pytest.mark.parametrize(
    ("function", "kind", "check"),
    [
        (wrong_lse, "fp32 shapes", "R=65"),
        (last_key_missing, "bf16 edges", "every key counts, K=140, t=0.05"),
        (one_key_too_many, "bf16 edges", "nothing else counts, K=140, t=0.2"),
        (not_a_number, "fp16 shapes", "R=1 K=1"),
    ],
)
def test_a_wrong_kernel_is_found(
    function: Callable[..., Any], kind: str, check: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(gpu_suite, "suite", few(kind, lambda name: name.startswith(check)))
    monkeypatch.setattr(gpu_checks, "queue_softmax", function)
    status, state = run(tmp_path, "--only", "correctness", "--impl", "chunked")
    (found,) = state["correctness"]["checks"]
    assert (status, found["status"], found["ok"]) == (1, "failed", False)
    assert state["failures"] == 1
    assert f"FAILED chunked {kind}, {found['name']}" in capsys.readouterr().out
    assert "1 failure(s)" in (tmp_path / "gpu.txt").read_text()


def test_whatever_happens_in_a_check_becomes_a_record() -> None:
    def breaks() -> Outcome:
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    def skips() -> Outcome:
        raise Skip("no such thing")

    outcomes = {
        "passed": lambda: Outcome(1.0, 1.0),
        "failed": lambda: Outcome(math.nan, 1.0),
        "skipped": skips,
    }
    for status, task in outcomes.items():
        found = perform("g", "n", task)
        assert (found["status"], set(found)) == (status, KEYS)
        json.dumps(found, allow_nan=False)
    assert perform("g", "n", breaks)["note"].startswith("RuntimeError: CUDA error: an illegal memory access (test_")


def test_only_hopper_may_refuse_and_only_outside_its_domain() -> None:
    for impl, expected in (("hopper", Skip), ("triton", ValueError)):
        s = Setting(CPU, impl, torch.float32, True)
        with pytest.raises(expected), gpu_checks.allowed(s, 128, 64, 0.2):
            raise ValueError("not here")
