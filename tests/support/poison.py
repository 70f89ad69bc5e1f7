"""Fresh memory full of poison, so that what a kernel leaves unwritten shows: NaN, and the largest integer."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch


def poison_fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every uninitialised tensor or array that Python asks for is filled; nothing else of torch changes."""
    for place, name in ((torch, "empty"), (torch, "empty_like"), (torch, "empty_strided"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(place, name, _filled(getattr(place, name), _fill))
    monkeypatch.setattr(np, "empty", _filled(np.empty, _fill_bytes))


def _filled(allocate: Callable[..., Any], fill: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(allocate)
    def fresh(*arguments: Any, **options: Any) -> Any:
        memory = allocate(*arguments, **options)
        fill(memory)
        return memory

    return fresh


def _fill(memory: torch.Tensor) -> None:
    if memory.dtype == torch.bool or memory.is_floating_point():
        memory.fill_(torch.nan)
    else:
        memory.fill_(torch.iinfo(memory.dtype).max)


def _fill_bytes(memory: np.ndarray) -> None:
    """All bits set, which is NaN in every floating-point dtype that the bytes are later seen in."""
    if not memory.dtype.hasobject:
        memory.ravel(order="K").view(np.uint8).fill(255)
