"""The checks of the views pass on a pretended GPU, and find a wrong view."""

from typing import Any

import pytest
import torch

from bingo.bench.gpu import suite as gpu_suite
from bingo.bench.gpu import view_checks as gpu_view_checks
from bingo.bench.gpu.checks import Setting, perform
from bingo.kernels.augment import augment
from tests.support.on_gpu import REAL

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.skipif(REAL, reason="CPU tensors, for which a GPU is pretended")
@pytest.mark.usefixtures("gpu")
def test_views_pass_and_a_wrong_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = gpu_suite._views(Setting(CPU, "triton", torch.bfloat16, True))
    found = {name: perform("views", name, task) for name, task in tasks.items()}
    assert {name: record["status"] for name, record in found.items()} == {
        "augment, 8 of 20x20": "passed",
        "augment, 3 of 31x41": "passed",
        "cutmix": "passed",
        "views without host synchronisation": "skipped",
    }
    for error, words in ((0.02, "0.0"), (0.1, "levels off")):

        def wrong(*args: Any, error: float = error, **kwargs: Any) -> torch.Tensor:
            views = augment(*args, **kwargs)
            views[0, 0, :4] += error * (kwargs["impl"] == "triton")
            return views

        monkeypatch.setattr(gpu_view_checks, "augment", wrong)
        record = perform("views", "augment", tasks["augment, 8 of 20x20"])
        assert record["status"] == "failed"
        assert words in f"{record['error']} {record['note']}"
