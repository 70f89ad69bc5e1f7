"""The checks of whole steps: they pass on a CPU in small form, and fail for steps and copies that are not right."""

from collections.abc import Iterator

import pytest
import torch

from bingo.bench.gpu import step_checks
from bingo.bench.gpu.checks import Setting, perform
from bingo.bench.step.variants import Changes
from bingo.train.graph import GraphedStep

S = Setting(torch.device("cpu"), "chunked", torch.float32, True)
HALF = Changes("bf16", queue_dtype="bf16")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The steps are tiny: threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("changes", [Changes(), HALF])
def test_they_pass(changes: Changes) -> None:
    for check in (step_checks.graphed_steps, step_checks.snapshot_while_training):
        found = perform("step", check.__name__, lambda check=check: check(S, changes))
        assert found["ok"], found


def test_a_step_whose_rate_never_changes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    call = GraphedStep.__call__
    monkeypatch.setattr(GraphedStep, "__call__", lambda step, shares, rate, *rest, **more: call(
        step, shares, 0.03, *rest, **more
    ))  # fmt: skip
    found = perform("step", "graph", lambda: step_checks.graphed_steps(S, Changes()))
    assert (found["status"], "network, optimiser" in found["note"]) == ("failed", True), found


def test_a_copy_that_follows_the_training_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_checks, "snapshot", lambda state, device: lambda: state)
    found = perform("step", "copy", lambda: step_checks.snapshot_while_training(S, Changes()))
    assert found["status"] == "failed", found
