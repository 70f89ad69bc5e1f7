"""The checks of `nearest` pass for the definition, and find places, scores and repeats that are wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bingo.bench.gpu import knn_checks
from bingo.bench.gpu.checks import Setting, perform
from bingo.kernels.knn import nearest

Answer = tuple[Tensor, Tensor]
S = Setting(torch.device("cpu"), "chunked", torch.float32, True)
TASKS = {
    "ties": lambda: knn_checks.ties(S, 20, 90, 16, 5),
    "unit rows": lambda: knn_checks.unit_rows(S, 20, 90, 16, 5),
    "repeats": lambda: knn_checks.repeats(S, 20, 90, 16),
}


@pytest.mark.parametrize("task", TASKS)
def test_the_definition_passes(task: str) -> None:
    assert perform("knn", task, TASKS[task])["status"] == "passed"


def last_of_equals(*args: Any, **kwargs: Any) -> Answer:
    scores, indices = nearest(args[0], args[1].flip(0), *args[2:], **{**kwargs, "exclude": None})
    return scores, len(args[1]) - 1 - indices


def itself(*args: Any, **kwargs: Any) -> Answer:
    return nearest(*args, **{**kwargs, "exclude": None})


def not_twice(*args: Any, **kwargs: Any) -> Answer:
    scores, indices = nearest(*args, **kwargs)
    return scores + 1e-6 * torch.rand_like(scores), indices


@pytest.mark.parametrize(
    ("task", "function", "words"),
    [
        ("ties", last_of_equals, "of 100 places wrong"),
        ("unit rows", itself, "a row is its own neighbour"),
        ("repeats", not_twice, "of 2 differ"),
    ],
)
def test_a_wrong_answer_is_found(
    task: str, function: Callable[..., Answer], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn_checks, "nearest", function)
    found = perform("knn", task, TASKS[task])
    assert found["status"] == "failed"
    assert words in found["note"]
