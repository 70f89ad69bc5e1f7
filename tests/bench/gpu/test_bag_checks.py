"""The checks of `bag_loss` find a ring that is written wrongly."""

from typing import Any

import pytest
import torch

from bingo.bench.gpu import bag_checks as gpu_bag_checks
from bingo.bench.gpu.checks import Setting, perform
from bingo.kernels import NewKeys, bag_loss

CPU = torch.device("cpu")


def test_a_wrong_ring_write_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def early(*args: Any, new_keys: NewKeys, **kwargs: Any) -> torch.Tensor:
        loss = bag_loss(*args, new_keys=new_keys, **kwargs)
        new_keys.cursor[0] -= 1
        return loss

    monkeypatch.setattr(gpu_bag_checks, "bag_loss", early)
    s = Setting(CPU, "chunked", torch.float32, True)
    found = perform("g", "ring", lambda: gpu_bag_checks.writes_ring(s, 64, 5, 62, 32, ids=False))
    assert found["status"] == "failed"
    assert "cursor is [2, 0], not [3, 0]" in found["note"]
